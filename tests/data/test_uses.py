"""Every kind of data from raw files to predictions for new raw files."""

import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from backlight.assemble import build_data
from backlight.checkpoint import TrainedNetwork
from backlight.data.ratings import LIKED, SEEN, PairEncoder
from tests.conftest import Call, TrainedRun
from tests.data import files

Train = Callable[..., TrainedRun]
LEARNER = ("model.hidden=[8]", "optimizer=adam", "optimizer.lr=0.03", "data.batch_size=16")


@dataclass(frozen=True)
class Kind:
    """Files to train on and new ones, by functions of a path; the overrides, and the true class of each new row."""

    train: Callable[[Path], Path]
    new: Callable[[Path], Path]
    options: tuple[str, ...]
    truth: Callable[[pd.DataFrame, Path], "pd.Series[str] | np.ndarray"]


def of_folder(predictions: pd.DataFrame, _: Path) -> "pd.Series[str]":
    return predictions["file"].map(lambda file: Path(file).parent.name)


KINDS = {
    "images": Kind(
        lambda at: files.images(at / "images"),
        lambda at: files.images(at / "new", 5, size=8, mode="RGB", seed=1),
        ("data=images", "data.size=8"),
        of_folder,
    ),
    "text": Kind(
        lambda at: files.texts(at / "texts.csv"),
        lambda at: files.texts(at / "new.csv", 20, seed=1),
        ("data=text",),
        lambda predictions, path: pd.read_csv(path)["label"],
    ),
    "tagging": Kind(
        lambda at: files.sentences(at / "train.conllu"),
        lambda at: files.sentences(at / "new.conllu", 8, seed=1, tags=False),
        ("data=tagging",),
        lambda predictions, path: np.where(predictions["token"].str.endswith("ung"), "NOUN", "VERB"),
    ),
    "audio": Kind(
        lambda at: files.recordings(at / "sounds"),
        lambda at: files.recordings(at / "new", 5, seed=1),
        ("data=audio", "data.rate=8000", "data.segments=2", "data.coefficients=13"),
        of_folder,
    ),
    "ratings": Kind(
        lambda at: files.ratings(at / "ratings.csv"),
        lambda at: files.ratings(at / "new.csv", seed=1),
        ("data=ratings", "data.user_columns=[age]", "model.activation=square", "model.init=normal",
         "model.init_scale=0.3"),
        lambda predictions, path: np.where(pd.read_csv(path)["rating"] > 3, "4 or more", "below 4"),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", KINDS)
def test_learns_from_files_and_predicts_new_ones(train: Train, call: Call, tmp_path: Path, name: str) -> None:
    kind = KINDS[name]
    path, new = kind.train(tmp_path), kind.new(tmp_path)

    run = train(*kind.options, f"data.path={path}", *LEARNER, "trainer.max_epochs=25")
    assert run.summary["metrics"]["test/accuracy"] > 0.9

    evaluated = call("evaluate", "run=run")
    assert evaluated.code == 0, evaluated.err
    for metric, value in run.summary["metrics"].items():
        if metric.startswith("test/"):
            assert f" {value:.4f} " in evaluated.out, metric

    predicted = call("predict", "run=run", f"input={new}", "output=predictions.csv", "rows_per_chunk=7")
    assert predicted.code == 0, predicted.err
    predictions = pd.read_csv("predictions.csv", keep_default_na=False)
    truth = kind.truth(predictions, new)
    assert len(truth) == len(predictions)
    assert np.mean(np.asarray(truth) == predictions["label"]) > 0.9

    label = np.asarray(truth)[3]
    explained = call("explain", "run=run", f"input={new}", "row=3", f"label='{label}'")
    assert explained.code == 0, explained.err
    assert f"class '{label}'" in " ".join(explained.out.split())


@pytest.mark.parametrize("name", ["images", "text", "audio", "ratings"])
def test_other_labelled_files_are_evaluated(train: Train, call: Call, tmp_path: Path, name: str) -> None:
    kind = KINDS[name]
    path, new = kind.train(tmp_path), kind.new(tmp_path)
    train(*kind.options, f"data.path={path}", *LEARNER, "trainer.max_epochs=25")
    result = call("evaluate", "run=run", kind.options[0], f"data.path={new}")
    assert result.code == 0, result.err
    accuracy = next(line for line in result.out.splitlines() if line.startswith("│ accuracy"))
    assert float(accuracy.split()[3]) > 0.9


@pytest.mark.parametrize("name", ["text", "audio", "ratings"])
def test_sweeps_resumes_and_diagnoses(train: Train, call: Call, tmp_path: Path, name: str) -> None:
    kind = KINDS[name]
    path = kind.train(tmp_path)
    common = (*kind.options, f"data.path={path}", *LEARNER)
    swept = call("train", "-m", *common, "trainer.max_epochs=2", "seed=1,2", "hydra.sweep.dir=sweep")
    assert swept.code == 0, swept.err
    board = pd.read_csv("sweep/leaderboard.csv")
    assert (board["status"] == "completed").all()
    alone = train(*common, "seed=2", "trainer.max_epochs=2").summary["metrics"]
    assert board["val/loss"][1] == pytest.approx(alone["val/loss"], rel=1e-4)

    resumed = call("train", "resume=run", "trainer.max_epochs=4")
    assert resumed.code == 0, resumed.err
    whole = train(*common, "seed=2", "trainer.max_epochs=4", folder="whole").summary["metrics"]
    assert TrainedRun(tmp_path / "run", resumed).summary["metrics"] == whole
    diagnosed = call("diagnose", "run=run")
    assert diagnosed.code == 0, diagnosed.err
    found = TrainedRun(tmp_path / "run", resumed).summary["diagnosis"]
    assert ("healthy" in diagnosed.out) == (not found)
    assert call("gradcheck", "run=run", "rows=20").code == 0


def test_ranking_of_clicks(train: Train, call: Call, tmp_path: Path) -> None:
    path = files.ratings(tmp_path / "ratings.csv", users=40, items=30)
    liked = pd.read_csv(path).query("rating > 3").drop(columns="rating")
    liked.to_csv(path, index=False)
    run = train(
        "data=ratings", f"data.path={path}", "data.rating=null", "data.time=time", "data.candidates=20",
        "model.activation=square", "model.init=normal", "model.init_scale=0.3", *LEARNER, "trainer.max_epochs=30",
    )  # fmt: skip
    metrics = run.summary["metrics"]
    # An item of the right taste is one of the ten wrong ones' betters: by chance half of the users hit.
    assert metrics["test/hit_rate_10"] > 0.8
    assert 0 < metrics["test/ndcg_10"] < metrics["test/hit_rate_10"]
    assert f" {metrics['test/ndcg_10']:.4f} " in call("evaluate", "run=run").out

    pd.DataFrame({"user": ["u1", "u2", "nobody"]}).to_csv("users.csv", index=False)
    result = call("predict", "run=run", "input=users.csv", "output=top.csv", "top=5")
    assert result.code == 0, result.err
    top = pd.read_csv("top.csv")
    assert top["user"].tolist() == ["u1"] * 5 + ["u2"] * 5 + ["nobody"] * 5
    assert all(rows["p_yes"].is_monotonic_decreasing for _, rows in top.groupby("user", sort=False))
    last = liked.sort_values("time").groupby("user").tail(2)  # held out: never seen in training
    seen = set(map(tuple, liked.drop(last.index)[["user", "item"]].to_numpy()))
    assert not seen & set(map(tuple, top[["user", "item"]].to_numpy()))


def test_top_is_for_files_of_users(train: Train, call: Call, tmp_path: Path) -> None:
    path = files.ratings(tmp_path / "ratings.csv")
    train("data=ratings", f"data.path={path}", "trainer.max_epochs=1")
    for content, options, message in (
        ("user,item\nu1,film 1\n", ["top=3"], "with top= it must have a column 'user' and none 'item'"),
        (
            "user\nu1\n",
            [],
            "has no column 'item'; give one, or ask for the best items of its users with top=10",
        ),
    ):
        (tmp_path / "new.csv").write_text(content)
        result = call("predict", "run=run", "input=new.csv", "output=p.csv", *options)
        assert result.code == 2
        assert message in result.err
    files.texts(tmp_path / "texts.csv")
    train("data=text", "data.path=texts.csv", folder="text")
    result = call("predict", "run=text", "input=texts.csv", "output=p.csv", "top=3")
    assert result.code == 2
    assert "top=3: this run has no users and items" in result.err


def test_histories_leave_out_the_pair_itself() -> None:
    rows = pd.DataFrame(
        {
            "user": ["a", "a", "a", "b"],
            "item": ["x", "y", "z", "x"],
            SEEN: [True] * 4,
            LIKED: [True, True, False, False],
        }
    )
    encoder = PairEncoder.fit(
        rows, standardize=True, user="user", item="item", user_columns=[], item_columns=[], history=True
    )
    names = encoder.feature_names
    new = pd.DataFrame({"user": ["a", "a", "b", "c"], "item": ["x", "z", "y", "x"]})
    found = [
        {names[column]: round(float(value), 4) for column, value in enumerate(row) if value}
        for row in encoder.transform(new).to_dense()
    ]
    half = 0.7071
    assert found == [
        {"user=a": 1, "item=x": 1, "likes y": 1, "dislikes z": 1},
        {"user=a": 1, "item=z": 1, "likes x": half, "likes y": half},
        {"user=b": 1, "item=y": 1, "dislikes x": 1},
        {"item=x": 1},
    ]
    assert PairEncoder.from_state_dict(encoder.state_dict()).is_close(encoder)


def test_groups_of_recordings_stay_together(train: Train, tmp_path: Path) -> None:
    files.recordings(tmp_path / "sounds")
    data = build_data(
        {"source": "audio", "path": str(tmp_path / "sounds"), "rate": 8000, "group": r"/s(\d)_", "seed": 3},
        run_seed=0,
    )
    data.setup()
    held = [set(data.groups(part)) for part in ("train", "val", "test")]  # type: ignore[arg-type]
    assert sum(map(len, held)) == 4
    assert all(held)


@pytest.mark.slow
def test_many_texts_train_in_little_memory(tmp_path: Path) -> None:
    """20,000 documents of 200,000 features in less than 2 GB, measured in a process of its own."""
    random = np.random.default_rng(0)
    words = np.array([f"w{number}" for number in range(120_000)])
    lines = [" ".join(random.choice(words, 30)) for _ in range(20_000)]
    labels = np.array(["a", "b"])[np.arange(20_000) % 2]
    pd.DataFrame({"text": lines, "label": labels}).to_csv(tmp_path / "texts.csv", index=False)
    # Its own peak: `ru_maxrss` begins with that of the process which started it.
    program = (
        "from pathlib import Path; from backlight.command import train\n"
        "try: train()\n"
        "finally: print('peak', Path('/proc/self/status').read_text().split('VmHWM:')[1].split()[0])"
    )
    options = [
        "data=text", "data.path=texts.csv", "data.min_documents=1", "model.hidden=[16]", "optimizer=adam",
        "data.batch_size=128", "trainer.max_epochs=1", "hydra.run.dir=run",
    ]  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-c", program, *options], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    network = TrainedNetwork.load(tmp_path / "run" / "checkpoints" / "best.ckpt")
    assert network.model.architecture["num_features"] == 200_000
    assert int(done.stdout.rsplit("peak", 1)[1]) < 2e6  # kB
