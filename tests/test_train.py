"""Whole runs through the command line's own function."""

import csv
import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import rich
import torch
from rich.console import Console
from sklearn.datasets import make_classification
from sklearn.model_selection import train_test_split
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn

from backlight.examination import best_epoch
from tests.conftest import Call, TrainedRun

Train = Callable[..., TrainedRun]


def metrics_of(path: Path) -> list[dict[str, float]]:
    with (path / "metrics.csv").open() as file:
        return [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]


def weights_of(path: Path, checkpoint: str = "last") -> dict[str, torch.Tensor]:
    weights: dict[str, torch.Tensor] = torch.load(
        path / "checkpoints" / f"{checkpoint}.ckpt", map_location="cpu", weights_only=True
    )["state_dict"]
    return weights


@pytest.mark.parametrize(("seed", "backward"), [(42, "equations"), (42, "autograd"), (0, "equations")])
def test_reference_is_the_plain_pytorch_program(call: Call, tmp_path: Path, seed: int, backward: str) -> None:
    x, y = make_classification(n_samples=1000, n_features=10, n_classes=2, random_state=seed)
    split = train_test_split(x, y, test_size=0.2, random_state=seed)
    x_train, x_test, y_train, y_test = (torch.tensor(part, dtype=torch.float32) for part in split)
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(10, 5), nn.Sigmoid(), nn.Linear(5, 1), nn.Sigmoid())
    criterion, optimizer = nn.BCELoss(), torch.optim.SGD(model.parameters(), lr=0.01)
    losses = []
    for _ in range(100):
        loss = criterion(model(x_train), y_train[:, None])
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    accuracy = ((model(x_test)[:, 0] > 0.5) == y_test).float().mean().item()

    result = call(
        "train", "experiment=reference", f"seed={seed}", f"model.backward={backward}", "hydra.run.dir=run"
    )

    assert result.code == 0, result.err
    ours = [row["train/loss"] for row in metrics_of(tmp_path / "run")]
    assert ours == pytest.approx(losses, abs=1e-6)
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["metrics"][
        "test/accuracy"
    ] == pytest.approx(accuracy, abs=1e-6)
    printed = [line for line in result.out.splitlines() if line.startswith("epoch")]
    assert [int(line.split()[1].split("/")[0]) for line in printed] == [1, *range(10, 101, 10)]
    assert float(printed[-1].split("train/loss ")[1].split()[0]) == pytest.approx(losses[-1], abs=1e-6)


def test_run_folder(train: Train) -> None:
    run = train("data=moons", "seed=3", "trainer.max_epochs=5")
    files = {str(file.relative_to(run.path)) for file in run.path.rglob("*") if file.is_file()}
    assert {
        ".hydra/config.yaml", ".hydra/overrides.yaml", ".hydra/hydra.yaml", "train.log", "metrics.csv",
        "summary.json", "checkpoints/best.ckpt", "checkpoints/last.ckpt",
    } <= files  # fmt: skip
    summary = run.summary
    assert summary["status"] == "completed"
    assert summary["error"] is None
    assert (summary["seed"], summary["epochs"], summary["steps"]) == (3, 5, 5 * 22)
    assert summary["device"] == ("cuda:0" if torch.cuda.is_available() else "cpu")
    rows = metrics_of(run.path)
    assert [row["epoch"] for row in rows] == [1, 2, 3, 4, 5]
    assert min(row["val/loss"] for row in rows) == summary["metrics"]["val/loss"]
    assert {"test/accuracy", "test/loss", "test/auroc", "train/loss", "val/f1"} <= summary["metrics"].keys()
    assert "tensorboard --logdir 'run'" in run.result.out
    assert f"{summary['metrics']['test/loss']:.4f}" in run.result.out


def test_best_is_the_epoch_of_lowest_validation_loss(train: Train) -> None:
    run = train("data=moons", "data.n_samples=60", "optimizer.lr=3", "trainer.max_epochs=15")
    losses = [row["val/loss"] for row in metrics_of(run.path)]
    best = torch.load(run.path / "checkpoints" / "best.ckpt", weights_only=True)
    assert best["epoch"] == int(np.argmin(losses))
    assert f"metrics      of best.ckpt, of epoch {best['epoch'] + 1} of 15\n" in run.result.out
    assert best["epoch"] < 14
    for name, value in metrics_of(run.path)[best["epoch"]].items():
        assert name in ("epoch", "step") or run.summary["metrics"][name] == value


@pytest.mark.parametrize(
    ("val", "best"),
    [([0.3, 0.2, 0.4], 1), ([0.2, 0.3, 0.2], 0), ([np.nan, 0.5, np.nan], 1), ([np.nan] * 3, 2), (None, 2)],
)
def test_the_last_epoch_stands_for_the_best_where_no_validation_loss_is_known(
    val: list[float] | None, best: int
) -> None:
    series = {"train/loss": np.array([0.6, 0.5, 0.7])} | ({} if val is None else {"val/loss": np.array(val)})
    assert best_epoch(series) == best
    assert best_epoch({"lr": series["train/loss"]}) == 2, "as of a file that lacks columns"


def test_same_config_gives_the_same_bits_and_another_seed_does_not(train: Train) -> None:
    runs = [
        train("data=circles", f"seed={seed}", folder=f"run{index}") for index, seed in enumerate([1, 1, 2])
    ]
    first, again, other = (weights_of(run.path) for run in runs)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not all(torch.equal(first[name], other[name]) for name in first)
    assert (runs[0].path / "metrics.csv").read_bytes() == (runs[1].path / "metrics.csv").read_bytes()


@pytest.mark.parametrize(
    "options",
    [
        ["data=iris", "loss.label_smoothing=0.1", "loss.class_weight=balanced"],
        ["data=digits", "model.activation=tanh", "optimizer=adam", "trainer.gradient_clip_val=0.5"],
        ["model.hidden=[4,3]", "model.activation=relu", "optimizer=rmsprop", "loss.class_weight=[1,2.5]"],
        [
            "model.activation=gelu",
            "optimizer=adamw",
            "optimizer.beta1=0",
            "scheduler=cosine",
            "data.batch_size=full",
        ],
        ["optimizer=lbfgs", "data.batch_size=full", "scheduler=step", "optimizer.max_iter=3"],
    ],
)
def test_equations_and_autograd_train_alike(train: Train, options: list[str]) -> None:
    runs = [
        train(*options, f"model.backward={backward}", folder=backward)
        for backward in ("equations", "autograd")
    ]
    ours, theirs = (weights_of(run.path) for run in runs)
    for name in ours:
        torch.testing.assert_close(ours[name], theirs[name], rtol=1e-3, atol=1e-4)


def test_gradient_clipping_bounds_the_step(train: Train) -> None:
    # One step of plain gradient descent moves the weights by lr · ‖clipped gradient‖.
    options = ["data.batch_size=full", "trainer.max_epochs=1", "optimizer.momentum=0", "optimizer.lr=1"]
    start = torch.cat([p.detach().flatten() for p in _network(0).parameters()])

    def moved(run: TrainedRun) -> float:
        weights = weights_of(run.path)
        end = torch.cat([weights[f"model.{name}"].flatten() for name, _ in _network(0).named_parameters()])
        return float((end - start).norm())

    free = moved(train(*options, folder="free"))
    assert free > 0.02
    assert moved(train(*options, "trainer.gradient_clip_val=0.01", folder="clipped")) == pytest.approx(
        0.01, rel=1e-3
    )


def _network(seed: int) -> nn.Module:
    from backlight.model import SigmoidMLP

    return SigmoidMLP(10, [5], seed=seed)


def test_schedule_changes_the_rate_once_per_epoch(train: Train) -> None:
    run = train("scheduler=exponential", "scheduler.factor=0.5", "optimizer.lr=0.4")
    assert [row["lr"] for row in metrics_of(run.path)] == pytest.approx([0.4, 0.2, 0.1])


def test_plateau_follows_the_validation_loss(train: Train) -> None:
    run = train("scheduler=plateau", "scheduler.patience=0", "optimizer.lr=1e-5", "trainer.max_epochs=4")
    rates = [row["lr"] for row in metrics_of(run.path)]
    assert rates[-1] < rates[0]


def test_early_stopping(train: Train) -> None:
    run = train(
        "callbacks=early_stopping", "callbacks.early_stopping.patience=2", "callbacks.early_stopping.min_delta=10",
        "trainer.max_epochs=50",
    )  # fmt: skip
    assert len(metrics_of(run.path)) == 3
    assert run.summary["status"] == "completed"


@pytest.mark.parametrize(
    ("experiment", "least"), [("solved", 0.85), ("xor", 0.99), ("spirals", 0.99), ("vanishing_gradients", 0)]
)
def test_experiments_do_what_they_say(call: Call, tmp_path: Path, experiment: str, least: float) -> None:
    result = call("train", f"experiment={experiment}", "hydra.run.dir=run")
    assert result.code == 0, result.err
    metrics = json.loads((tmp_path / "run" / "summary.json").read_text())["metrics"]
    assert metrics["test/accuracy"] >= least
    if experiment == "vanishing_gradients":
        assert metrics["train/loss"] > 0.68  # it has not left the base rate
        reader = EventAccumulator(str(tmp_path / "run" / "tensorboard")).Reload()
        norms = [reader.Scalars(f"gradient_norm/layers.{layer}")[0].value for layer in range(9)]
        assert norms[0] < 1e-4 * norms[-1]


def test_own_table_experiment(call: Call, tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    rows = [f"{a},{'red' if b else 'blue'},{'in' if a > 0 or b else 'out'}" for a, b in
            zip(random.normal(size=300), random.integers(0, 2, 300), strict=True)]  # fmt: skip
    (tmp_path / "my.csv").write_text("size,colour,where\n" + "\n".join(rows))
    result = call(
        "train", "experiment=own_table", "data.path=my.csv", "data.target=where", "hydra.run.dir=run",
        "trainer.max_epochs=30",
    )  # fmt: skip
    assert result.code == 0, result.err
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["metrics"]["test/accuracy"] > 0.9


def test_sweep_runs_every_trial_and_tells_of_failures(call: Call, tmp_path: Path) -> None:
    result = call(
        "train", "-m", "optimizer.lr=0.1,-1", "seed=0,1", "trainer.max_epochs=1", "hydra.sweep.dir=sweep"
    )
    assert result.code == 3
    assert "optimizer.lr=-1: must be greater than 0" in result.err
    summaries = [
        json.loads((tmp_path / "sweep" / str(trial) / "summary.json").read_text()) for trial in range(4)
    ]
    assert [summary["status"] for summary in summaries] == ["completed", "completed", "failed", "failed"]
    assert "must be greater than 0" in summaries[2]["error"]


def test_training_that_diverges_is_said_and_keeps_the_last_good_epoch(call: Call, tmp_path: Path) -> None:
    result = call(
        "train", "model.activation=relu", "model.hidden=[50,50]", "optimizer.lr=1e8", "hydra.run.dir=run"
    )
    assert result.code == 2
    assert "training diverged; lower optimizer.lr (now 100000000.0)" in result.err
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["status"] == "failed"
    assert "diverged" in summary["error"]


def test_a_bug_is_one_sentence_with_its_traceback_in_the_log(
    call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("backlight.train.assemble", lambda *_: 1 / 0)
    result = call("train", "hydra.run.dir=run")
    assert result.code == 1
    assert result.err.count("\n") == 1
    assert "ZeroDivisionError" in result.err
    assert "Traceback" in (tmp_path / "run" / "train.log").read_text()


def test_traceback_is_there_when_asked_for(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    from backlight import command
    from backlight.errors import BacklightError

    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    monkeypatch.setattr(sys, "argv", ["train.py", "optimizer.lr=-1"])
    with pytest.raises(BacklightError):
        command.train()


def test_terminal_shows_a_bar_with_loss_and_metric(train: Train, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("backlight.callbacks.progress.SECONDS_BETWEEN_UPDATES", 0.0)
    monkeypatch.setattr(rich, "_console", Console(force_terminal=True, width=120))
    out = train("data=moons").result.out
    assert "epoch 2/3" in out
    assert "━" in out
    assert re.search(r"━.* train/loss 0\.\d+  val/loss 0\.\d+  val/accuracy 0\.\d+", out)
    monkeypatch.setattr(rich, "_console", Console(force_terminal=True, width=120))
    assert (
        "━"
        not in train("data=moons", "callbacks.progress.bar=false", folder="quiet").result.out.split(
            "metrics on"
        )[0]
    )


def test_a_quoted_value_is_a_value(train: Train) -> None:
    assert train("data=moons", "name='two words'").summary["status"] == "completed"
