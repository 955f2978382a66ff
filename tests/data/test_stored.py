"""Rows that stay on disk: the same numbers as rows in memory, from training to prediction."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow
import pyarrow.parquet
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from backlight.assemble import build_data
from backlight.backprop.sparse import SparseRows
from backlight.callbacks.stop_hopeless import base_loss
from backlight.data import stored
from backlight.data.batches import BlockShuffle, TrainingBatches
from backlight.data.encoder import FeatureEncoder
from backlight.data.module import ClassificationData
from backlight.data.source import PARTS, Standardize
from backlight.data.stored import StoredRows, StoredTable, stored_table
from backlight.errors import BacklightError
from backlight.loss import BinaryCrossEntropy
from tests.conftest import Call, TrainedRun

Train = Callable[..., TrainedRun]
PEAK_RESET = Path("/proc/self/clear_refs")


@pytest.fixture(autouse=True)
def everything_is_large(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(stored, "STORED_VALUES", 0)
    monkeypatch.setattr(stored, "ROWS_AT_ONCE", 37)
    monkeypatch.setattr(stored, "MAPPED_BYTES", 112)
    monkeypatch.setattr(stored, "ROWS_PER_THREAD", 20)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def peak_memory() -> int:
    """Of this process, in bytes, since it was reset."""
    status = Path("/proc/self/status").read_text()
    return 1024 * int(status.split("VmHWM:")[1].split()[0])


def arrays(folder: Path, rows: int = 200, dtype: type = np.float32) -> tuple[np.ndarray, np.ndarray]:
    """Two classes that a line separates, the first rows all of one class."""
    random = np.random.default_rng(0)
    x = random.normal(3, 5, (rows, 4)).astype(dtype)
    x = x[np.argsort(x[:, 0])]
    y = (x[:, 0] > np.median(x[:, 0])).astype(np.uint8)
    np.save(folder / "x.npy", x)
    np.save(folder / "y.npy", y)
    return x, y


def frame(rows: int = 150) -> pd.DataFrame:
    random = np.random.default_rng(0)
    return pd.DataFrame(
        {
            "age": random.integers(18, 80, rows),
            "income": np.where(np.arange(rows) % 7 == 0, np.nan, random.normal(3e4, 1e4, rows)),
            "town": np.array(["Ulm", "Bonn", None])[np.arange(rows) % 3],
            "since": pd.Timestamp("2020-01-01") + pd.to_timedelta(np.arange(rows), unit="D"),
            "code": np.arange(rows) % 5,
            "bought": np.array(["yes", "no"])[np.arange(rows) % 2],
        }
    )


def table_file(path: Path) -> Path:
    table = pyarrow.Table.from_pandas(frame())
    if path.suffix == ".parquet":
        pyarrow.parquet.write_table(table, path, row_group_size=40)
    else:
        with pyarrow.OSFile(str(path), "wb") as file, pyarrow.ipc.new_file(file, table.schema) as writer:
            writer.write_table(table, max_chunksize=40)
    return path


def module(node: dict[str, Any], run_seed: int = 0) -> ClassificationData:
    data = build_data({"seed": 0, **node}, run_seed=run_seed)
    data.setup()
    return data


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.lists(st.integers(0, 19), max_size=30), st.slices(20), st.integers(1, 25))
@pytest.mark.usefixtures("two_threads")
def test_reads_what_indexing_in_memory_gives(
    tmp_path: Path, index: list[int], part: slice, size: int
) -> None:
    whole = np.random.default_rng(1).normal(size=(20, 3)).astype(np.float32)
    np.save(tmp_path / "a.npy", whole)
    order = np.random.default_rng(2).permutation(20)
    rows = StoredRows(tmp_path / "a.npy", order, lambda some: some * 2)
    expected = torch.from_numpy(whole[order] * 2)
    assert rows.shape == (20, 3)
    assert torch.equal(rows[torch.tensor(index, dtype=torch.int64)], expected[index])
    assert torch.equal(torch.cat(list(rows.split(size))), expected)
    if part.step is None or part.step > 0:
        assert torch.equal(rows[part], expected[part])
    assert torch.equal(rows.take(np.array([3, 1]))[:], expected[[3, 1]])


@pytest.mark.skipif(
    not PEAK_RESET.exists(), reason="the system does not tell the peak of a process's memory anew"
)
def test_few_rows_far_from_each_other_bring_little_of_the_file_into_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()  # what is mapped at a time
    path = tmp_path / "a.npy"
    np.lib.format.open_memmap(path, "w+", np.float32, (4_000_000, 28))  # 450 MB, none of which is on disk
    with path.open("rb") as file:
        while file.read(2**24):  # so that the system holds it in large pieces
            pass
    rows = StoredRows(path, np.random.default_rng(0).permutation(4_000_000)[:8192])
    rows[:100]
    PEAK_RESET.write_text("5")
    before = peak_memory()
    assert not rows[:].any()
    assert peak_memory() - before < 2**24


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 5000), st.integers(1, 2**17), st.integers(0, 9))
def test_blocks_are_mixed_and_every_row_comes_once(rows: int, row_bytes: int, seed: int) -> None:
    shuffle = BlockShuffle(rows, seed, row_bytes)
    first = shuffle.order()
    assert first.sort().values.tolist() == list(range(rows))
    assert torch.equal(first, BlockShuffle(rows, seed, row_bytes).order())
    shuffle.set_epoch(1)
    assert rows < 20 or not torch.equal(first, shuffle.order())


def test_rows_that_are_read_together_lie_in_few_blocks() -> None:
    shuffle = BlockShuffle(400_000, 0, row_bytes=2**13)  # 8 rows in a block
    blocks = BlockShuffle.MIXED_BYTES // BlockShuffle.BLOCK_BYTES
    window = shuffle.order()[: 8 * blocks]
    assert len((window // 8).unique()) == blocks
    assert (window[1:] // 8 != window[:-1] // 8).float().mean() > 0.9


def test_the_base_rate_is_that_of_all_rows_where_a_file_is_sorted_by_class(tmp_path: Path) -> None:
    arrays(tmp_path, rows=40_000)
    node = {"source": "arrays", "path": str(tmp_path / "x.npy"), "labels": str(tmp_path / "y.npy")}
    assert base_loss(module(node), BinaryCrossEntropy()) == pytest.approx(np.log(2), abs=1e-3)


@pytest.mark.parametrize("standardize", [True, "quantile"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.uint8])
def test_arrays_are_standardised_as_in_memory(tmp_path: Path, dtype: type, standardize: Standardize) -> None:
    x, y = arrays(tmp_path, dtype=dtype)
    data = module(
        {
            "source": "arrays",
            "path": str(tmp_path / "x.npy"),
            "labels": str(tmp_path / "y.npy"),
            "standardize": standardize,
        },
        run_seed=3,
    )
    parts = {part: data.part(part) for part in PARTS}
    assert all(isinstance(rows, StoredRows) for rows, _ in parts.values())
    of_file = {part: rows.rows for part, (rows, _) in parts.items() if isinstance(rows, StoredRows)}
    assert sorted(np.concatenate(list(of_file.values()))) == list(range(len(x)))
    names = [f"x{column}" for column in range(4)]
    encoder = FeatureEncoder.fit(x[of_file["train"]].astype(np.float32), names, standardize=standardize)
    assert data.encoder.is_close(encoder)
    for part, (rows, labels) in parts.items():
        torch.testing.assert_close(
            rows[:], torch.from_numpy(encoder.transform(x[of_file[part]].astype(np.float32)))
        )
        assert labels[:, 0].tolist() == y[of_file[part]].tolist()
        assert abs(labels.mean().item() - y.mean()) < 0.02  # stratified
    train, of_train = parts["train"]
    every = sorted(torch.cat([train[:], of_train], dim=1).tolist())
    for seed in (0, None):
        batches = TrainingBatches(train, of_train, 16, seed, steps_at_once=2)
        seen = torch.cat([torch.cat([rows, own], dim=1) for steps in batches for rows, own, _ in steps])
        assert sorted(seen.tolist()) == every  # each with its own label


@pytest.mark.parametrize("suffix", [".parquet", ".arrow"])
@pytest.mark.parametrize("many", ["refuse", "embed"])
def test_tables_are_encoded_as_in_memory(tmp_path: Path, suffix: str, many: str) -> None:
    path = table_file(tmp_path / f"t{suffix}")
    options = {"target": "bought", "categorical": ["code"], "many_categories": many}
    options |= {"max_categories": 10 if many == "refuse" else 2}
    data = module({"source": "table", "path": str(path), **options})
    whole = frame()
    names = [name for name in whole.columns if name != "bought"]
    every: dict[str, np.ndarray] = {}
    for part in PARTS:
        x, y = data.part(part)
        rows = x.to_dense() if isinstance(x, SparseRows) else x[:]
        assert isinstance(rows, torch.Tensor)
        dates = (
            rows[:, data.feature_names.index("since")] * data.encoder.scale[data.feature_names.index("since")]
            + data.encoder.mean[data.feature_names.index("since")]
        )
        every[part] = (dates.round() - 18262).long().numpy()  # days since 2020 began: the row in the file
        assert [["no", "yes"][int(label)] for label in y[:, 0]] == whole["bought"][every[part]].tolist()
        encoder = FeatureEncoder.fit(
            whole.iloc[every["train"]].astype({"code": "category"}),
            names,
            standardize=True,
            max_categories=options["max_categories"],
            many_categories=many,
        )
        expected = encoder.transform(whole.iloc[every[part]])
        assert data.encoder.feature_names == encoder.feature_names
        dense = expected.to_dense() if isinstance(expected, SparseRows) else torch.from_numpy(expected)
        torch.testing.assert_close(rows, dense, rtol=1e-5, atol=1e-5)
    assert sorted(np.concatenate(list(every.values()))) == list(range(len(whole)))


def test_a_disk_without_room_leaves_rows_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    path = table_file(tmp_path / "t.parquet")
    expected = module({"source": "table", "path": str(path), "target": "bought"}).part("test")[0][:]
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    found = module({"source": "table", "path": str(path), "target": "bought"}).part("test")[0]
    assert isinstance(found, torch.Tensor)
    assert torch.equal(found, expected[:])


def test_every_command_takes_arrays_on_disk(train: Train, call: Call, tmp_path: Path) -> None:
    x, y = arrays(tmp_path)
    data = ("data=arrays", "data.path=x.npy", "data.labels=y.npy", "optimizer.lr=0.5")
    run = train(*data, "trainer.max_epochs=30", "model.init=xavier")
    assert run.summary["metrics"]["test/accuracy"] > 0.8
    assert call("evaluate", "run=run").code == 0
    assert call("explain", "run=run", "row=3").code == 0
    assert call("diagnose", "run=run").code == 0
    assert call("predict", "run=run", "input=x.npy", "output=p.csv").code == 0
    refused = call("predict", "run=run", "input=y.npy", "output=q.csv")
    assert refused.code == 2
    assert "y.npy: is [200]; allowed: [n, features]" in refused.err
    labels = pd.read_csv(tmp_path / "p.csv")["label"].to_numpy()
    assert (labels == y).mean() > 0.8
    other = call("evaluate", "run=run", "+data={source: arrays, path: x.npy, labels: y.npy}")
    assert other.code == 0, other.err
    assert f"{len(x)} rows" in other.out

    half = train(*data, "trainer.max_epochs=2", "model.init=xavier", "trainer.max_epochs=15", folder="half")
    assert half.summary["epochs"] == 15
    resumed = call("train", "resume=half", "trainer.max_epochs=30")
    assert resumed.code == 0, resumed.err
    weights = [
        torch.load(tmp_path / folder / "checkpoints/last.ckpt", weights_only=True)["state_dict"]
        for folder in ("run", "half")
    ]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_sweeps_take_tables_on_disk(call: Call, tmp_path: Path) -> None:
    table_file(tmp_path / "t.parquet")
    sweep = ("data=table", "data.path=t.parquet", "data.target=bought", "trainer.max_epochs=1")
    assert call("train", "-m", *sweep, "optimizer.lr=0.1,0.2", "hydra.sweep.dir=sweep").code == 0
    assert len(list(tmp_path.glob("sweep/*/summary.json"))) == 2


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (lambda at: np.save(at / "x.npy", np.array([[1.0], [np.nan], [2.0]])), "row 2 holds a value"),
        (lambda at: np.save(at / "x.npy", np.zeros((4, 2))), "4 rows and 3 labels"),
        (lambda at: np.save(at / "x.npy", np.zeros(3)), "allowed: [n, features] of numbers"),
        (lambda at: np.save(at / "x.npy", np.array([["a"]] * 3)), "allowed: [n, features] of numbers"),
        (lambda at: (at / "x.npy").write_bytes(b"nonsense"), "cannot be read as a .npy file"),
        (lambda at: (at / "x.npy").unlink(), "no such file"),
        (lambda at: np.save(at / "y.npy", np.zeros(3)), "every row is of class"),
        (lambda at: np.save(at / "y.npy", np.array([0.5, 1, 2])), "labels must be one whole number"),
        (lambda at: np.savez(at / "x.npz", x=np.zeros((3, 1))), ""),
    ],
)
def test_wrong_arrays_are_refused(tmp_path: Path, spoil: Callable[[Path], object], sentence: str) -> None:
    np.save(tmp_path / "x.npy", np.arange(3.0)[:, None])
    np.save(tmp_path / "y.npy", np.array([0, 1, 1]))
    spoil(tmp_path)
    node = {"source": "arrays", "path": str(tmp_path / "x.npy"), "labels": str(tmp_path / "y.npy")}
    if not sentence:  # without its labels
        node, sentence = {"source": "arrays", "path": str(tmp_path / "x.npz")}, "holds no array of labels"
    with pytest.raises(BacklightError) as refused:
        module(node)
    assert sentence in str(refused.value)


def test_labels_beside_a_file_are_needed(tmp_path: Path) -> None:
    arrays(tmp_path)
    with pytest.raises(BacklightError, match=r"data\.labels"):
        module({"source": "arrays", "path": str(tmp_path / "x.npy")})


def test_a_file_that_goes_away_is_named(tmp_path: Path) -> None:
    arrays(tmp_path)
    rows = StoredRows(tmp_path / "x.npy", np.arange(5))
    assert rows.shape == (5, 4)
    (tmp_path / "x.npy").unlink()
    with pytest.raises(BacklightError, match=r"x\.npy: was read before"):
        rows[:2]


def test_a_table_that_is_damaged_further_on_is_named(tmp_path: Path) -> None:
    path = table_file(tmp_path / "t.parquet")
    found = stored_table(path)
    assert isinstance(found, StoredTable)
    content = bytearray(path.read_bytes())
    content[4:400] = b"\xff" * 396
    path.write_bytes(content)
    with pytest.raises(BacklightError, match="not a readable table"):
        found["age"]
