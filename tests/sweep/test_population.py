"""A trial trained with others is the run it would be alone."""

import csv
import errno
import json
import os
import re
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from yaml import safe_load

from backlight.callbacks.backprop import FIGURES
from backlight.population.member import Member
from backlight.population.training import Population
from backlight.sweep import record, trials
from backlight.sweep.trials import TrialRunner
from tests.conftest import Call, TrainedRun

Train = Callable[..., TrainedRun]

ROUNDED_ALIKE = ["trainer=cpu"]
"""For learning rates that make much of a last bit: a GPU rounds the products of many matrices in another way."""
SWEEPS = [
    (["data=moons", "optimizer=sgd", "optimizer.momentum=0.9", "optimizer.nesterov=true"], "optimizer.lr=0.05,0.3"),
    (["data=iris", "optimizer=adam", "optimizer.weight_decay=0.01", "scheduler=cosine"], "seed=0,5"),
    (["data=wine", "optimizer=adamw", "scheduler=step", "scheduler.every_n_epochs=2"],
     "loss.class_weight=[1,2,1],[2.0,1,0.5]"),
    (["data=moons", "optimizer=rmsprop", "optimizer.momentum=0.5"], "optimizer.alpha=0.9,0.99"),
    (["data=circles", "data.batch_size=full", "optimizer=adam"], "model.init=xavier,normal"),
    (["data=xor", "trainer.gradient_clip_val=0.05", "data.seed=1", "name='of_${seed}'"], "seed=0,1"),
    (["data=breast_cancer", "model.hidden=[12,7]", "model.activation=relu", "optimizer=rmsprop", "seed=99",
      "trainer.gradient_clip_val=0.5", *ROUNDED_ALIKE], "optimizer.lr=0.001,0.1"),
    (["data=moons", "loss.class_weight=balanced", "data.imbalance=0.4"], "loss.label_smoothing=0,0.2"),
    (["data=iris", "data.val_fraction=0", "model.hidden=[6,4]", "model.activation=tanh"], "model.init_scale=1,2"),
    (["data=moons", "model.activation=gelu", "scheduler=plateau", "scheduler.patience=0", *ROUNDED_ALIKE],
     "optimizer.lr=0.3,1"),
    (["data=iris", "model.backward=autograd", "optimizer=adam", "trainer.gradient_clip_val=1"], "seed=0,1"),
    (["data=moons", "callbacks=early_stopping", "callbacks.early_stopping.patience=1", *ROUNDED_ALIKE],
     "optimizer.lr=1,30,0.1"),
]  # fmt: skip


def table(path: Path) -> list[dict[str, str]]:
    with path.open() as file:
        return list(csv.DictReader(file))


def assert_same_numbers(ours: dict[str, float], theirs: dict[str, float]) -> None:
    assert ours.keys() == theirs.keys()
    for name, value in theirs.items():
        assert ours[name] == pytest.approx(value, rel=1e-4, abs=1e-6), name


def scalars(run: Path) -> dict[str, dict[int, float]]:
    """By tag and step."""
    reader = EventAccumulator(str(run / "tensorboard"), size_guidance={"scalars": 0}).Reload()
    return {
        tag: {event.step: event.value for event in reader.Scalars(tag)} for tag in reader.Tags()["scalars"]
    }


def assert_same_record(ours: dict[str, dict[int, float]], theirs: dict[str, dict[int, float]]) -> None:
    """What back-propagation computed for every layer; gradient norms are shown at other steps."""
    for figure in (*FIGURES, "gradient_norm"):
        tags = {tag for tag in theirs if tag.startswith(f"{figure}/")}
        assert tags
        assert {tag for tag in ours if tag.startswith(f"{figure}/")} == tags
        for tag in tags:
            steps = ours[tag].keys()
            if figure == "gradient_norm":
                assert ours["rms_delta/layers.0"].keys() == steps
                steps &= theirs[tag].keys()
            else:
                assert theirs[tag].keys() == steps
            assert steps
            for step in steps:
                assert ours[tag][step] == pytest.approx(theirs[tag][step], rel=1e-3, abs=1e-7), (tag, step)


@pytest.mark.parametrize(("shared", "swept"), SWEEPS, ids=str)
def test_member_is_its_single_run(
    call: Call, train: Train, tmp_path: Path, shared: list[str], swept: str
) -> None:
    result = call("train", "-m", *shared, swept, "trainer.max_epochs=6", "hydra.sweep.dir=sweep")
    assert result.code == 0, result.err
    key, _, values = swept.partition("=")
    for number, value in enumerate(re.split(r",(?![^[]*\])", values)):
        trial = tmp_path / "sweep" / str(number)
        alone = train(
            *shared, f"{key}={value}", "trainer.max_epochs=6", folder=f"alone{number}", pictures=True
        )
        summary = json.loads((trial / "summary.json").read_text())

        assert "backlight.population" in (trial / "train.log").read_text()
        assert summary.keys() == alone.summary.keys()
        for name in ("status", "error", "seed", "steps", "epochs", "config_hash", "threads", "versions"):
            assert summary[name] == alone.summary[name], name
        assert_same_numbers(summary["metrics"], alone.summary["metrics"])
        found = [finding["symptom"] for finding in summary["diagnosis"]]
        assert found == [finding["symptom"] for finding in alone.summary["diagnosis"]]
        ours, theirs = table(trial / "metrics.csv"), table(alone.path / "metrics.csv")
        assert len(ours) == len(theirs)
        for row, other in zip(ours, theirs, strict=True):
            assert list(row) == list(other)
            assert_same_numbers(
                {k: float(v) for k, v in row.items()}, {k: float(v) for k, v in other.items()}
            )
        assert (trial / ".hydra/config.yaml").read_text() == (alone.path / ".hydra/config.yaml").read_text()
        overrides = safe_load((trial / ".hydra/overrides.yaml").read_text())
        assert [override.lower() for override in overrides] == [
            *shared,
            f"{key}={value}",
            "trainer.max_epochs=6",
        ]
        assert_same_record(scalars(trial), scalars(alone.path))


def test_members_of_a_seed_share_batches_with_each_other_only(
    call: Call, train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    groups, order = [], Population._order

    def ordered(population: Population) -> tuple[torch.Tensor, torch.Tensor | None]:
        places, sharing = order(population)
        groups.append(None if sharing is None else sharing.tolist())
        return places, sharing

    monkeypatch.setattr(Population, "_order", ordered)
    options = ["data=moons", "data.seed=0", "trainer.max_epochs=3", "trainer=cpu"]
    assert (
        call("train", "-m", *options, "seed=0,1", "optimizer.lr=0.1,0.3,0.5", "hydra.sweep.dir=sweep").code
        == 0
    )
    assert groups == [[0, 0, 0, 1, 1, 1]] * 3
    for number, seed in ((1, 0), (4, 1)):
        alone = train(*options, f"seed={seed}", "optimizer.lr=0.3", folder=f"alone{seed}", pictures=True)
        summary = json.loads((tmp_path / f"sweep/{number}/summary.json").read_text())
        assert_same_numbers(summary["metrics"], alone.summary["metrics"])


def test_a_member_can_be_used_like_any_run(call: Call, train: Train, tmp_path: Path) -> None:
    options = ["data=moons", "optimizer=adam", "scheduler=exponential", "callbacks=early_stopping"]
    swept = call("train", "-m", *options, "seed=3,4", "trainer.max_epochs=4", "hydra.sweep.dir=sweep")
    assert swept.code == 0, swept.err
    best, last = (tmp_path / f"sweep/0/checkpoints/{name}.ckpt" for name in ("best", "last"))
    assert best.stat().st_size <= last.stat().st_size, "without the weights of others"
    for command in ("evaluate", "explain", "diagnose"):
        result = call(command, "run=sweep/0", *(["row=3"] if command == "explain" else []))
        assert result.code == 0, result.err

    assert call("train", "resume=sweep/0", "trainer.max_epochs=7").code == 0
    alone = train(*options, "seed=3", "trainer.max_epochs=7", folder="alone", pictures=True)
    resumed = json.loads((tmp_path / "sweep/0/summary.json").read_text())
    assert (resumed["epochs"], resumed["steps"]) == (7, alone.summary["steps"])
    assert_same_numbers(resumed["metrics"], alone.summary["metrics"])
    checkpoints = [
        torch.load(folder / "checkpoints/last.ckpt", weights_only=True)
        for folder in (tmp_path / "sweep/0", alone.path)
    ]
    assert checkpoints[0]["loops"] == checkpoints[1]["loops"]
    for name, weight in checkpoints[1]["state_dict"].items():
        torch.testing.assert_close(checkpoints[0]["state_dict"][name], weight, rtol=1e-4, atol=1e-5)

    reader = EventAccumulator(str(tmp_path / "sweep/1/tensorboard")).Reload()
    steps = [event.step for event in reader.Scalars("val/loss")]
    reader_alone = EventAccumulator(str(alone.path / "tensorboard")).Reload()
    assert steps == [event.step for event in reader_alone.Scalars("val/loss")][:4]
    assert {"config/text_summary", "diagnosis/text_summary"} <= set(reader.Tags()["tensors"])


def test_failures_stay_with_those_that_fail(call: Call, tmp_path: Path) -> None:
    result = call(
        "train", "-m", "data=moons", "model.activation=relu", "model.hidden=[50,50]",
        "optimizer.lr=0.1,1e8,-1,0.2", "trainer.max_epochs=3", "hydra.sweep.dir=sweep",
    )  # fmt: skip
    assert result.code == 3
    rows = table(tmp_path / "sweep" / "leaderboard.csv")
    assert [row["status"] for row in rows] == ["completed", "failed", "failed", "completed"]
    errors = [
        json.loads((tmp_path / "sweep" / str(n) / "summary.json").read_text())["error"] for n in range(4)
    ]
    assert errors[0] is errors[3] is None
    assert "training diverged; lower optimizer.lr (now 100000000.0)" in errors[1]
    assert errors[2] == "optimizer.lr=-1: must be greater than 0"
    for error in errors[1:3]:
        assert error in result.err
    assert rows[1]["verdict"] == "non finite"
    assert "failed       2 of 4" in result.out


def test_members_stop_when_they_would_alone(call: Call, train: Train, tmp_path: Path) -> None:
    early = ["callbacks=early_stopping", "callbacks.early_stopping.patience=1", "optimizer.lr=10,0.1"]
    hopeless = ["callbacks.stop_hopeless.patience=2", "model.init_scale=30", "optimizer.lr=100,0.1"]
    for name, options in (("early", early), ("hopeless", hopeless)):
        *shared, rates = ["data=moons", "trainer.max_epochs=25", *options]
        assert call("train", "-m", *shared, rates, f"hydra.sweep.dir={name}").code == 0
        alone = [
            train(*shared, f"optimizer.lr={lr}", folder=f"{name}{lr}")
            for lr in rates.partition("=")[2].split(",")
        ]
        epochs = [len(table(tmp_path / name / str(n) / "metrics.csv")) for n in range(2)]
        assert epochs == [run.summary["epochs"] for run in alone]
        assert min(epochs) < 25, "one must stop, or nothing is tested"


def test_what_has_ended_stays_and_the_rest_is_shown(
    call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = ["train", "-m", "data=moons", "trainer.max_epochs=2,6", "seed=0,1", "hydra.sweep.dir=sweep"]
    monkeypatch.setattr(record, "SECONDS_BETWEEN_WRITING", 0)
    monkeypatch.setattr(record, "MOST_TIME", 1e9)
    epoch, epochs = Population._epoch, iter(range(100))

    def interrupted(population: Population) -> list[Member]:
        if next(epochs) == 4:
            raise KeyboardInterrupt
        return epoch(population)

    with monkeypatch.context() as patch:
        patch.setattr(Population, "_epoch", interrupted)
        stopped = call(*command)
    assert stopped.code == 130
    assert "the same command with sweep.resume=sweep" in stopped.out
    folders = [tmp_path / "sweep" / str(number) for number in range(4)]
    assert [(folder / "summary.json").exists() for folder in folders] == [True, True, False, False]
    for folder in folders[2:]:
        shown = EventAccumulator(str(folder / "tensorboard")).Reload().Scalars("train/loss")
        assert [event.step for event in shown] == [21, 43, 65, 87][: len(shown)]
        assert len(shown) >= 2

    again = call(*command, "sweep.resume=sweep")
    assert again.code == 0, again.err
    assert "2 of 4 trials are there already" in again.out
    for folder, count in zip(folders, (2, 2, 6, 6), strict=True):
        assert json.loads((folder / "summary.json").read_text())["epochs"] == count
        events = EventAccumulator(str(folder / "tensorboard")).Reload()
        assert len(events.Scalars("train/loss")) == len(table(folder / "metrics.csv")) == count


def test_a_population_may_be_trained_in_parts(call: Call, tmp_path: Path) -> None:
    command = ["train", "-m", "data=moons", "seed=0,1,2,3,4", "trainer.max_epochs=2"]
    assert call(*command, "hydra.sweep.dir=whole").code == 0
    assert call(*command, "sweep.max_members=2", "hydra.sweep.dir=parts").code == 0
    logs = [(tmp_path / "parts" / str(n) / "train.log").read_text() for n in range(5)]
    assert all("backlight.population" in text for text in logs)
    whole, parts = (table(tmp_path / name / "leaderboard.csv") for name in ("whole", "parts"))
    for ours, theirs in zip(parts, whole, strict=True):
        assert float(ours["test/loss"]) == pytest.approx(float(theirs["test/loss"]), rel=1e-4)


def test_what_cannot_be_stacked_is_trained_alone(call: Call, tmp_path: Path) -> None:
    result = call(
        "train", "-m", "data=moons", "data.batch_size=full", "optimizer=lbfgs,sgd", "model.hidden=[3],[4]", "seed=0,1",
        "trainer.max_epochs=2", "hydra.sweep.dir=sweep",
    )  # fmt: skip
    assert result.code == 0, result.err
    together = [
        "backlight.population" in (tmp_path / "sweep" / str(n) / "train.log").read_text() for n in range(8)
    ]
    assert together == [False] * 4 + [True] * 4
    rows = table(tmp_path / "sweep" / "leaderboard.csv")
    first = ["trial", "status", "epochs", "max_epochs", "optimizer", "model.hidden", "seed"]
    assert list(rows[0])[: len(first)] == first
    assert [row["status"] for row in rows] == ["completed"] * 8


def test_sequential_is_the_same_sweep(call: Call, tmp_path: Path) -> None:
    command = ["train", "-m", "data=moons", "seed=0,1", "trainer.max_epochs=2"]
    assert call(*command, "hydra.sweep.dir=a").code == 0
    assert call(*command, "sweep=sequential", "hydra.sweep.dir=b").code == 0
    a, b = (table(tmp_path / name / "leaderboard.csv") for name in "ab")
    assert len(a) == len(b) == 2
    for ours, theirs in zip(a, b, strict=True):
        assert list(ours) == list(theirs)
        assert float(ours["test/loss"]) == pytest.approx(float(theirs["test/loss"]), rel=1e-4)
    assert (tmp_path / "b/0/backprop.png").exists()


def test_a_sweep_goes_on_where_it_was(call: Call, tmp_path: Path) -> None:
    command = ["train", "-m", "data=moons", "optimizer.lr=0.1,0.2,-1", "seed=0,1", "trainer.max_epochs=2"]
    assert call(*command, "hydra.sweep.dir=sweep").code == 3
    kept = (tmp_path / "sweep/0/summary.json").stat().st_mtime_ns
    before = table(tmp_path / "sweep/leaderboard.csv")
    for number in (1, 2):  # as a kill leaves them
        (tmp_path / f"sweep/{number}/summary.json").unlink()
    shutil.rmtree(tmp_path / "sweep/2/checkpoints")

    result = call(*command, "sweep.resume=sweep")

    assert result.code == 3
    assert "4 of 6 trials are there already" in result.out
    assert (tmp_path / "sweep/0/summary.json").stat().st_mtime_ns == kept
    for ours, theirs in zip(table(tmp_path / "sweep/leaderboard.csv"), before, strict=True):
        assert (ours["status"], ours["verdict"]) == (theirs["status"], theirs["verdict"])
        if ours["status"] == "completed":
            assert float(ours["test/loss"]) == pytest.approx(float(theirs["test/loss"]), rel=1e-4)

    other = call(
        "train", "-m", "data=moons", "optimizer.lr=0.1,0.3", "trainer.max_epochs=2", "sweep.resume=sweep"
    )
    assert other.code == 2
    assert "holds the trial" in other.err
    alone = call("train", "data=moons", "sweep.resume=sweep")
    assert alone.err == "ERROR: sweep.resume: needs the command of the sweep, with -m and all its values\n"
    assert call(*command, "sweep.resume=nowhere").err.startswith(
        "ERROR: sweep.resume=nowhere: not a sweep folder"
    )


def test_a_trial_that_was_interrupted_goes_on_from_its_checkpoint(
    call: Call, train: Train, tmp_path: Path
) -> None:
    command = [
        "train",
        "-m",
        "data=moons",
        "optimizer=lbfgs",
        "optimizer.max_iter=2",
        "seed=0,1",
        "trainer.max_epochs=4",
    ]
    assert call(*command, "hydra.sweep.dir=sweep").code == 0
    expected = table(tmp_path / "sweep/leaderboard.csv")
    trial = tmp_path / "sweep/1"
    shorter = train(
        "data=moons",
        "optimizer=lbfgs",
        "optimizer.max_iter=2",
        "seed=1",
        "trainer.max_epochs=2",
        folder="shorter",
    )
    shutil.copytree(shorter.path / "checkpoints", trial / "checkpoints", dirs_exist_ok=True)
    (trial / "summary.json").unlink()

    result = call(*command, "sweep.resume=sweep")

    assert result.code == 0, result.err
    assert "1 of 2 trials are there already" in result.out
    assert table(tmp_path / "sweep/leaderboard.csv") == expected
    assert "epoch 1/4" not in result.out
    assert "epoch 3/4" in result.out


def test_memory_that_does_not_suffice_is_no_end(
    call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("not enough memory")

    monkeypatch.setattr(Population, "train", fail)
    result = call("train", "-m", "data=moons", "seed=0,1", "trainer.max_epochs=1", "hydra.sweep.dir=sweep")
    assert result.code == 0, result.err
    assert "2 trials are trained one by one, for together: not enough memory" in result.err
    assert [row["status"] for row in table(tmp_path / "sweep/leaderboard.csv")] == ["completed"] * 2


def test_batches_of_a_sweep_share_a_leaderboard(call: Call, tmp_path: Path) -> None:
    options = ["data=moons", "seed=0,1,2,3", "trainer.max_epochs=1", "hydra.sweeper.max_batch_size=2"]
    assert call("train", "-m", *options, "hydra.sweep.dir=sweep").code == 0
    assert [row["trial"] for row in table(tmp_path / "sweep/leaderboard.csv")] == ["0", "1", "2", "3"]


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("sweep.max_members=1", "sweep.max_members=1: must be at least 2"),
        ("sweep.metric=val/acuracy", "sweep.metric=val/acuracy: no such metric; did you mean 'val/accuracy'?"),
        ("sweep.metrics=x", "sweep.metrics: no such key; did you mean 'metric'?"),
        ("optimizer.momentun=0,1", "optimizer.momentun: no such key; did you mean 'momentum'?"),
        ("optimizer=sdg,adam", "optimizer=sdg: no such option; did you mean 'sgd'?"),
        ("resume=run", "resume: a sweep cannot go on with a run; sweep.resume goes on with a sweep"),
    ],
)  # fmt: skip
def test_mistakes_in_a_sweep_are_one_sentence(
    call: Call, argument: str, message: str, tmp_path: Path
) -> None:
    (tmp_path / "run/.hydra").mkdir(parents=True)
    (tmp_path / "run/.hydra/config.yaml").touch()
    result = call("train", "-m", "seed=0,1", argument, "hydra.sweep.dir=sweep")
    assert result.code == 2
    assert result.err == f"ERROR: {message}\n"
    assert not (tmp_path / "sweep/0").exists()


@pytest.mark.usefixtures("two_threads")
def test_several_processes_write_what_one_writes(
    call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = ["train", "-m", "data=moons", "seed=0,1,2,3,4", "trainer.max_epochs=2"]
    assert call(*command, "hydra.sweep.dir=one").code == 0
    monkeypatch.setattr(record, "WORTH_FORKING", 2)
    assert call(*command, "hydra.sweep.dir=several").code == 0
    assert_same(tmp_path / "several", tmp_path / "one")


def assert_same(sweep: Path, expected: Path) -> None:
    ours, theirs = (table(path / "leaderboard.csv") for path in (sweep, expected))
    for one, other in zip(ours, theirs, strict=True):
        assert one["status"] == other["status"]
        if one["status"] == "completed":
            assert float(one["test/loss"]) == pytest.approx(float(other["test/loss"]), rel=1e-4)
            assert (sweep / one["run"] / "checkpoints/best.ckpt").exists()


@pytest.mark.usefixtures("two_threads")
@pytest.mark.parametrize("is_killed", [False, True])
def test_several_processes_train_what_one_trains(
    call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_killed: bool
) -> None:
    # Two kinds of networks, a trial that fails, and one that has no kin.
    command = ["train", "-m", "data=moons", "seed=0,1,2", "model.hidden=[3],[4]", "optimizer.lr=0.1,-1"]
    command += ["trainer.max_epochs=2", "trainer=cpu"]
    assert call(*command, "hydra.sweep.dir=one").code == 3
    here, plan = os.getpid(), TrialRunner._plan
    shares = tmp_path / "shares"

    def planned(runner: TrialRunner, share: Any) -> Any:
        with shares.open("a") as file:
            file.write(f"{os.getpid() != here} {len(share)}\n")
        if is_killed and os.getpid() != here and share[0].node["seed"] == 0:
            while shares.read_text().count("True") < 2:  # or the other may never begin
                time.sleep(0.01)
            os.kill(os.getpid(), signal.SIGKILL)
        return plan(runner, share)

    monkeypatch.setattr(TrialRunner, "_plan", planned)
    monkeypatch.setattr(trials, "WORTH_A_PROCESS", 2)
    assert call(*command, "hydra.sweep.dir=several").code == 3
    assert shares.read_text().splitlines()[:2] == ["True 6", "True 6"]
    assert_same(tmp_path / "several", tmp_path / "one")


def test_a_trial_that_ended_amid_its_checkpoints_is_trained_again(
    call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    command = ["train", "-m", "data=moons", "seed=0,1", "trainer.max_epochs=2"]
    with monkeypatch.context() as patched:
        patched.setattr(record, "write_whole", interrupt)
        assert call(*command, "hydra.sweep.dir=sweep").code == 130
    left = {path.name for path in tmp_path.glob("sweep/*/checkpoints/*")}
    assert left == {"best.ckpt"}, "who finds the last one goes on from it, and needs the best"
    result = call(*command, "sweep.resume=sweep")
    assert result.code == 0, result.err
    assert {row["status"] for row in table(tmp_path / "sweep/leaderboard.csv")} == {"completed"}


def test_a_full_disk_is_named(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(record, "_write_metrics", full)
    result = call("train", "-m", "data=moons", "seed=0,1", "trainer.max_epochs=1", "hydra.sweep.dir=sweep")
    assert result.code == 2
    assert re.fullmatch(r"ERROR: .*sweep/[01]: No space left on device\n", result.err)
