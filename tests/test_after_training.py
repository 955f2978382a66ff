"""Evaluate, predict and export a trained run."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime
import pandas as pd
import pytest
import torch

from backlight.checkpoint import TrainedNetwork
from backlight.data.sources import SOURCES
from backlight.probabilities import probabilities
from tests.conftest import Call, TrainedRun

Train = Callable[..., TrainedRun]


def table(rows: int, seed: int = 0) -> pd.DataFrame:
    random = np.random.default_rng(seed)
    frame = pd.DataFrame(
        {"size": random.normal(1e3, 10, rows), "colour": random.choice(["red", "blue"], rows)}
    )
    frame.loc[::9, "size"] = np.nan
    frame["kind"] = np.where((frame["size"] > 1e3) ^ (frame["colour"] == "red"), "A", "B")
    frame.loc[1::10, "kind"] = "C"
    return frame


@pytest.fixture
def run(train: Train, tmp_path: Path) -> TrainedRun:
    table(300).to_csv(tmp_path / "train.csv", index=False)
    return train("data=table", "data.path=train.csv", "data.target=kind", "optimizer=adam")


def test_evaluate_says_what_the_summary_says(run: TrainedRun, call: Call) -> None:
    result = call("evaluate", "run=run")
    assert result.code == 0, result.err
    for name, value in run.summary["metrics"].items():
        if name.startswith("test/"):
            assert f"│ {name.removeprefix('test/'):<17} │ {value:.4f} │" in result.out


@pytest.mark.parametrize(
    "source",
    sorted(SOURCES.keys() - {"table", "arrays", "openml", "images", "text", "tagging", "audio", "ratings"}),
)
def test_every_source_trains_and_is_read_back(train: Train, call: Call, source: str) -> None:
    trained = train(f"data={source}", "trainer.max_epochs=1")
    result = call("evaluate", "run=run")
    assert result.code == 0, result.err
    assert f"{trained.summary['metrics']['test/loss']:.4f}" in result.out


def test_evaluate_other_rows(run: TrainedRun, call: Call, tmp_path: Path) -> None:
    rows = table(200, seed=1)
    rows.to_parquet(tmp_path / "new.parquet")
    result = call("evaluate", "run=run", "data=table", "data.path=new.parquet", "data.target=kind")
    assert result.code == 0, result.err
    assert "metrics on 200 rows" in result.out
    call("predict", "run=run", "input=new.parquet", "output=p.csv")
    right = (pd.read_csv(tmp_path / "p.csv")["label"] == rows["kind"]).mean()
    assert f"accuracy          │ {right:.4f}" in result.out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["part=val2"], "part=val2: must be 'train', 'val' or 'test'"),
        (["data=moons"], "data: holds the class '0'; the model knows A, B, C"),
        (["accelerator=tpu"], "accelerator=tpu: must be"),
        (["checkpoint=first"], "checkpoint=first: must be 'best' or 'last'"),
    ],
)
def test_evaluate_refuses(run: TrainedRun, call: Call, arguments: list[str], message: str) -> None:
    result = call("evaluate", "run=run", *arguments)
    assert result.code == 2
    assert message in result.err


def test_evaluate_other_generated_rows(train: Train, call: Call) -> None:
    train("data=moons", "optimizer=adam", "trainer.max_epochs=20", "optimizer.lr=0.1")
    easy = call("evaluate", "run=run", "data=moons", "data.noise=0.05", "seed=5")
    assert easy.code == 0, easy.err
    assert "metrics on 1,000 rows" in easy.out
    other = call("evaluate", "run=run", "data=synthetic")
    assert other.code == 2
    assert "the data has 10 features; the model was trained on 2" in other.err


def test_part_that_the_run_does_not_have(train: Train, call: Call) -> None:
    train("data=moons", "data.test_fraction=0")
    result = call("evaluate", "run=run")
    assert result.code == 2
    assert "part=test: the run has no such rows (data.test_fraction=0)" in result.err


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_predictions_are_those_of_the_network(
    run: TrainedRun, call: Call, tmp_path: Path, suffix: str
) -> None:
    rows = table(250, seed=2).drop(columns="kind").assign(extra=1)
    rows.to_csv(tmp_path / "new.csv", index=False)
    result = call("predict", "run=run", "input=new.csv", f"output=p.{suffix}", "rows_per_chunk=60")
    assert result.code == 0, result.err
    read = pd.read_csv if suffix == "csv" else pd.read_parquet
    predictions = read(tmp_path / f"p.{suffix}")

    network = TrainedNetwork.load(run.path / "checkpoints" / "best.ckpt")
    size = rows["size"].to_numpy()
    encoder = network.encoder
    assert encoder.feature_names == ["size", "size is missing", "colour=blue", "colour=red"]
    features = np.stack(
        [
            (np.where(np.isnan(size), encoder.columns[0].fill, size) - encoder.mean[0]) / encoder.scale[0],
            np.isnan(size),
            rows["colour"] == "blue",
            rows["colour"] == "red",
        ],
        axis=1,
    )
    expected = probabilities(network.model(torch.tensor(features, dtype=torch.float32))).detach().numpy()
    assert predictions[["p_A", "p_B", "p_C"]].to_numpy() == pytest.approx(expected, abs=1e-5)
    assert predictions["label"].tolist() == [["A", "B", "C"][index] for index in expected.argmax(axis=1)]
    assert predictions["probability"].to_numpy() == pytest.approx(expected.max(axis=1), abs=1e-5)


def test_two_classes_have_two_probabilities(train: Train, call: Call, tmp_path: Path) -> None:
    train("data=moons")
    (tmp_path / "new.csv").write_text("x1,x0\n0.5,1\n0,-1\n")  # the order of columns does not matter
    assert call("predict", "run=run", "input=new.csv", "output=p.csv").code == 0
    predictions = pd.read_csv(tmp_path / "p.csv")
    assert (predictions["p_0"] + predictions["p_1"]).tolist() == pytest.approx([1, 1])
    assert predictions["probability"].tolist() == pytest.approx(
        predictions[["p_0", "p_1"]].max(axis=1).tolist()
    )


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("size,colour\n", "holds no rows"),
        ("size\n1\n", "column 'colour' is absent; the model needs size, colour"),
        ("size,colour\n1,red\nbig,red\n", "column 'size' was numeric in training but holds 'big' (row 2)"),
        (None, "no such file"),
    ],
)
def test_predict_refuses_and_keeps_the_old_file(
    run: TrainedRun, call: Call, tmp_path: Path, content: str | None, message: str
) -> None:
    if content is not None:
        (tmp_path / "new.csv").write_text(content)
    (tmp_path / "p.csv").write_text("old")
    result = call("predict", "run=run", "input=new.csv", "output=p.csv", "rows_per_chunk=1")
    assert result.code == 2
    assert message in result.err
    assert (tmp_path / "p.csv").read_text() == "old"
    assert not list(tmp_path.glob(".*p.csv"))


def test_folder_that_is_not_there(run: TrainedRun, call: Call) -> None:
    for result in (
        call("predict", "run=run", "input=train.csv", "output=nowhere/p.csv"),
        call("export", "run=run", "format=torch_export", "output=nowhere/model.pt2"),
    ):
        assert result.code == 2
        assert ": the folder nowhere does not exist" in result.err


def test_input_is_not_written_over(run: TrainedRun, call: Call, tmp_path: Path) -> None:
    before = (tmp_path / "train.csv").read_bytes()
    assert call("predict", "run=run", "input=train.csv", "output=train.csv").code == 2
    assert (tmp_path / "train.csv").read_bytes() == before


def test_missing_value_where_training_had_none(train: Train, call: Call, tmp_path: Path) -> None:
    train("data=moons")
    (tmp_path / "new.csv").write_text("x0,x1\n1,2\n1,\n")
    result = call("predict", "run=run", "input=new.csv", "output=p.csv")
    assert result.code == 2
    assert "column 'x1' has no value (row 2)" in result.err


@pytest.mark.parametrize(("format", "suffix"), [("onnx", "onnx"), ("torch_export", "pt2")])
@pytest.mark.parametrize("data", ["moons", "iris", "iris data.standardize=quantile"])
def test_exported_file_gives_the_probabilities(
    train: Train, call: Call, tmp_path: Path, format: str, suffix: str, data: str
) -> None:
    trained = train(*f"data={data}".split(), "model.activation=gelu")
    result = call("export", "run=run", f"format={format}")
    assert result.code == 0, result.err
    path = trained.path / f"model.{suffix}"
    network = TrainedNetwork.load(trained.path / "checkpoints" / "best.ckpt")
    features = torch.randn(7, len(network.encoder.mean), generator=torch.Generator().manual_seed(0)) * 3
    if format == "onnx":
        (answer,) = onnxruntime.InferenceSession(path).run(None, {"features": features.numpy()})
    else:
        answer = torch.export.load(path).module()(features).numpy()
    x = network.encoder.transform(features.double().numpy())
    assert isinstance(x, np.ndarray)
    expected = probabilities(network.model(torch.from_numpy(x))).detach().numpy()
    expected = np.stack([1 - expected, expected], axis=1) if data == "moons" else expected
    assert answer == pytest.approx(expected, abs=1e-5)


def test_export_that_disagrees_is_not_kept(train: Train, call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    trained = train("data=moons")
    monkeypatch.setattr("backlight.export._run_program", lambda _, rows: torch.zeros(len(rows), 2))
    result = call("export", "run=run", "format=torch_export")
    assert result.code == 2
    assert "differ by" in result.err
    assert not (trained.path / "model.pt2").exists()


def test_summary_is_json_that_other_tools_read(run: TrainedRun) -> None:
    text = (run.path / "summary.json").read_text()
    assert json.loads(text, parse_constant=lambda name: pytest.fail(name))["status"] == "completed"


def test_names_of_a_file_move_no_cursor(train: Train, call: Call, tmp_path: Path) -> None:
    name = "a\n\x1b[2Jb {x}"
    values = np.random.default_rng(0).normal(50, 1, 60)
    rows = {name: values, "y": np.where(values > 50, "yes\x1b[1m", "no")}
    pd.DataFrame(rows).to_csv(tmp_path / "rows.csv", index=False)
    pd.DataFrame({"b": values}).to_csv(tmp_path / "other.csv", index=False)
    table = ("data=table", "data.path=rows.csv", "data.target=y", "data.standardize=false")
    told = train(*table, "optimizer.lr=1e-6").result.out
    assert "The mean of a??[2Jb {x} is 5" in told
    for command, arguments, said in (
        ("diagnose", [], "The mean of a??[2Jb {x} is 5"),
        ("evaluate", [], "accuracy"),
        ("explain", ["input=rows.csv", "row=0"], "a??[2Jb {x}"),
        ("predict", ["input=other.csv", "output=new.csv"], "a??[2Jb {x}"),
    ):
        result = call(command, "run=run", *arguments)
        told += result.out + result.err
        assert said in result.out + result.err
    assert "\x1b" not in told
