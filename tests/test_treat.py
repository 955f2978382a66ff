"""Remedies are tried, and what helps is kept and can be said again."""

import json
import re
from collections.abc import Callable
from dataclasses import replace
from itertools import count
from pathlib import Path

import numpy as np
import pytest
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra

from backlight.command import config_folder
from backlight.diagnose import Diagnosis
from backlight.diagnosis.finding import Finding
from backlight.examination import read_series
from backlight.recipe import Recipe, compose, together
from backlight.run_folder import RunFolder
from backlight.treat import Patient
from tests.conftest import Call, TrainedRun
from tests.diagnosis.observed import observed, with_a_rare_class

Train = Callable[..., TrainedRun]

QUICK = [
    f"callbacks.{name}=null" for name in ("backprop", "gradients", "evaluation_plots", "decision_boundary")
]


def test_a_sick_run_is_cured_and_says_how(train: Train, call: Call, tmp_path: Path) -> None:
    train(*QUICK, "experiment=reference", "trainer.max_epochs=100", folder="sick")
    result = call("treat", "run=sick", "folder=attempts")
    assert result.code == 0, result.err
    lines = dict(re.findall(r"^(\w+(?: \w+)?) {2,}(.*)$", result.out, re.MULTILINE))
    assert lines["before"].startswith("learning rate too low, base rate, loss 0.7")
    assert lines["outcome"] == "healthy, in 1 of 8 attempts and 4 trainings"
    assert lines["after"].startswith("healthy")
    cured = json.loads((tmp_path / lines["run folder"] / "summary.json").read_text())
    assert cured["diagnosis"] == []

    command = lines["command"].removeprefix("python train.py ").split()
    again = call("train", *command, "hydra.run.dir=again")
    assert again.code == 0, again.err
    metrics = json.loads((tmp_path / "again/summary.json").read_text())["metrics"]
    assert metrics["train/loss"] == pytest.approx(cured["metrics"]["train/loss"], rel=1e-4)
    assert call("treat", "run=again", "folder=none").out.count("\n") == 4, "nothing to do"


def test_the_loss_of_soft_targets_is_said_beside_the_lowest_there_is(train: Train, call: Call) -> None:
    for smoothing, at_best in ((0, ""), (0.2, r" \(0.3251 at best\)")):
        train(*QUICK, "data=moons", f"loss.label_smoothing={smoothing}", folder=f"run{smoothing}")
        said = call("treat", f"run=run{smoothing}", f"folder=attempts{smoothing}", "max_attempts=1").out
        assert re.search(rf"^before .*, loss 0\.\d+{at_best}, accuracy", said, re.MULTILINE), said


def test_no_more_is_tried_than_allowed(train: Train, call: Call, tmp_path: Path) -> None:
    train(*QUICK, "data=moons", "data.label_noise=0.5", "optimizer=adam", folder="sick")
    result = call("treat", "run=sick", "folder=attempts", "max_attempts=2")
    trainings = result.out.count("tried  ")
    assert 2 < trainings <= 8
    assert f"in 2 of 2 attempts and {trainings} trainings" in result.out
    assert sorted(path.name for path in (tmp_path / "attempts").iterdir()) == ["0", "1"]
    assert len(list((tmp_path / "attempts").glob("*/*/summary.json"))) == trainings


def test_where_nothing_helps_the_next_best_run_is_gone_on_with(
    train: Train, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    is_better_than, rounds = Patient.is_better_than, count()
    monkeypatch.setattr(
        Patient, "is_better_than", lambda one, other: next(rounds) > 0 and is_better_than(one, other)
    )
    train(
        *QUICK, "data=spirals", "optimizer=rmsprop", "optimizer.lr=1", "model.hidden=[16]", "trainer.max_epochs=30",
        folder="sick",
    )  # fmt: skip
    said = call("treat", "run=sick", "folder=attempts", "max_attempts=2").out
    first, _, rest = said.partition("back to")
    assert "kept" not in first and "kept" in rest
    losses = {
        name: float(loss) for name, loss in re.findall(r"^tried +(.*)\n.* loss ([\d.]+)", first, re.MULTILINE)
    }
    gone_on_with, _, _ = rest.strip().partition("\n")
    assert losses[gone_on_with] == min(losses.values())


def test_a_sick_run_that_knows_more_than_the_healthy_one_is_treated_on(
    train: Train, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which remedy cures at once is a matter of rounding, which processors do each in its way: here it helps little."""
    loss, cured_at_once = Patient.loss.fget, set[str]()
    assert loss is not None

    def little(patient: Patient) -> float:
        if patient.is_healthy and len(patient.changes) == 1:
            cured_at_once.update(patient.changes)
        return loss(patient) + (1 if cured_at_once.intersection(patient.changes[:1]) else 0)

    monkeypatch.setattr(Patient, "loss", property(little))
    train(*QUICK, "data=iris", "optimizer.lr=0.003", "trainer.max_epochs=30", folder="sick")
    before, _, after = call("treat", "run=sick", "folder=attempts").out.partition("back to")
    assert "\ntried        callbacks=early_stopping" in before, "so there was a healthy one"
    gone_on_with, _, rest = after.strip().partition("\n")
    known = re.search(rf"^tried +{re.escape(gone_on_with)}\n(.*), loss", before, re.MULTILINE)
    assert known is not None
    assert known[1].strip() != "healthy"
    cured = re.search(r"^after +healthy, loss ([\d.]+)", rest, re.MULTILINE)
    assert cured is not None
    assert float(cured[1]) < 1
    changed = re.search(r"^changed +(.+)", rest, re.MULTILINE)
    assert changed is not None
    assert set(gone_on_with.split()) <= set(changed[1].split())


def test_a_run_is_worth_what_its_best_checkpoint_is(train: Train, call: Call, tmp_path: Path) -> None:
    train(
        *QUICK, "data=moons", "data.noise=0.5", "optimizer=adam", "optimizer.lr=0.3", "trainer.max_epochs=20"
    )
    said = call("treat", "run=run", "folder=attempts", "max_attempts=1").out
    before = re.search(r"^before .*, loss (.*), accuracy (.*)$", said, re.MULTILINE)
    assert before is not None
    best = dict(re.findall(r"(\w+) +│ +([\d.]+)", call("evaluate", "run=run", "part=val").out))
    assert [float(value) for value in before.groups()] == [float(best[name]) for name in ("loss", "accuracy")]
    last = read_series(tmp_path / "run/metrics.csv")["val/loss"][-1]
    assert last > float(best["loss"]) + 0.01


def test_who_no_longer_misses_a_rare_class_is_kept_though_its_weighted_loss_looks_worse(
    train: Train, call: Call
) -> None:
    rare = ["data=hastie", "data.imbalance=0.04", "data.n_samples=5000", "seed=104"]
    network = ["model.hidden=[8]", "model.activation=tanh", "optimizer=rmsprop", "optimizer.lr=0.002"]
    train(*QUICK, *rare, *network, "trainer.max_epochs=6", folder="sick")
    out = call("treat", "run=sick", "folder=attempts", "max_attempts=1").out
    states = dict(re.findall(r"^tried +(\S.*)\n +(.*)$", out, re.MULTILINE))
    kept = re.search(r"^kept +(loss.class_weight=balanced.*)$", out, re.MULTILINE)
    assert kept is not None
    weighed = states[kept[1]]
    (longer,) = (state for change, state in states.items() if change.startswith("trainer.max_epochs=60"))
    assert weighed.startswith("learning rate too low")
    assert ", balanced accuracy 0." in weighed, "accuracy alone looks worse"
    assert longer.startswith("class imbalance")
    assert float(weighed.split("loss ")[1][:4]) > 2 * float(longer.split("loss ")[1][:4])


def test_of_a_rare_class_more_is_known_by_who_finds_more_of_each_class(tmp_path: Path) -> None:
    def patient(val_loss: float, balanced: float, error: str | None = None) -> Patient:
        run = observed(0.5, 0.4)
        held_out = {"val/loss": np.array([2.0, val_loss]), "val/balanced_accuracy": np.array([0.9, balanced])}
        data = with_a_rare_class(run, 100, None)
        seen = replace(run, series=run.series | held_out, data=data, error=error)
        finding = Finding("overfitting", "serious", 0, {})
        recipe = Recipe({}, {}, [])
        return Patient(RunFolder(tmp_path), recipe, Diagnosis([finding], seen))

    missed, found = patient(0.1, 0.5), patient(0.6, 0.8)
    assert missed.missing == pytest.approx(1)
    assert found.missing == pytest.approx(0.4), "of the epoch with the lowest loss"
    assert found.is_better_than(missed) and not missed.is_better_than(found)
    assert not patient(0.05, 0.501).is_better_than(missed), "by chance"
    assert not patient(0.05, 0.9, "train/loss is nan at step 3").is_better_than(missed)


def test_a_sick_run_that_knows_as_much_as_the_healthy_one_is_treated_on(train: Train, call: Call) -> None:
    network = ["model.init=constant", "model.init_scale=0.02", "model.activation=gelu", "model.hidden=[50]"]
    train(*QUICK, "data.n_features=18", *network, "trainer.max_epochs=8", "seed=104", folder="sick")
    out = call("treat", "run=sick", "folder=attempts", "max_attempts=3").out
    first, longer, *further = re.findall(r"^tried .*\n +(.*), loss ([\d.]+),", out, re.MULTILINE)
    assert (first[0], longer[0]) == ("healthy", "overfitting")
    assert first[1] == longer[1], "best.ckpt of both is of the same epoch"
    assert further


def test_an_outcome_of_wrong_labels_is_not_called_healthy(train: Train, call: Call) -> None:
    train(
        *QUICK, "data=moons", "data.n_samples=200", "data.label_noise=0.3", "optimizer.lr=0.001",
        "trainer.max_epochs=20",
    )  # fmt: skip
    said = call("treat", "run=run", "folder=attempts").out
    assert re.search("^outcome +what is left lies in the data, in ", said, re.MULTILINE)
    assert re.search("^after +label noise, ", said, re.MULTILINE)


def test_a_failed_run_is_treated(train: Train, call: Call) -> None:
    assert (
        call("train", "data=moons", "model.activation=relu", "optimizer.lr=1e38", "hydra.run.dir=run").code
        == 2
    )
    result = call("treat", "run=run", "folder=attempts")
    assert "before       non finite, failed" in result.out
    assert "optimizer.lr=0.1\n             healthy" in result.out


def test_what_is_no_run_is_refused(call: Call, tmp_path: Path, train: Train) -> None:
    assert "not a run folder" in call("treat", "run=nowhere").err
    run = train("data=moons")
    (run.path / ".hydra/hydra.yaml").write_text("hydra: {}")
    result = call("treat", "run=run", "folder=attempts")
    assert result.code == 2
    assert result.err.endswith("hydra.yaml: does not say which options the run was started with\n")


def test_metrics_that_lack_a_column_do(call: Call, train: Train) -> None:
    metrics = train(*QUICK, "data=moons", "optimizer.lr=1e-5").path / "metrics.csv"
    metrics.write_text(metrics.read_text().replace("val/accuracy", "val/other", 1))
    result = call("treat", "run=run", "folder=attempts", "max_attempts=1")
    assert result.code == 0, result.err
    assert re.search(r"^before .* loss [\d.]+$", result.out, re.MULTILINE)


def test_a_foreign_run_folder_runs_no_code(call: Call, train: Train, tmp_path: Path) -> None:
    run = train(*QUICK, "data=moons", "optimizer.lr=1e-6")
    overrides = run.path / ".hydra/overrides.yaml"
    overrides.write_text(overrides.read_text() + "- +hydra.job_logging.filters.x={'()':os.mkdir,path:made}\n")
    result = call("treat", "run=run", "folder=attempts")
    assert result.code == 2
    assert "options of Hydra itself" in result.err
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize(
    ("command", "change"),
    [
        ("experiment=reference", "optimizer=adam optimizer.lr=0.01"),
        ("data=moons optimizer.momentum=0.5 optimizer.nesterov=true", "optimizer=adamw optimizer.weight_decay=0.1"),
        ("experiment=solved loss.class_weight=balanced", "callbacks=early_stopping model.hidden=[8,8]"),
        ("data=digits data.label_noise=0.1 callbacks.backprop=null", "optimizer=rmsprop"),
        ("data=table data.path=rows.csv data.target=y optimizer.momentum=0.5", "optimizer=adam optimizer.lr=0.01"),
        ("data=moons callbacks.backprop=null +callbacks.early_stopping.patience=9", "callbacks=early_stopping"),
        ("experiment=solved callbacks.early_stopping=null", "callbacks=early_stopping callbacks.early_stopping.patience=5"),
        ("data=moons 'name=it''s'", "data.batch_size=full trainer.gradient_clip_val=1.0"),
    ],
)  # fmt: skip
def test_a_changed_recipe_composes_to_what_is_wanted(
    train: Train, command: str, change: str, tmp_path: Path
) -> None:
    (tmp_path / "rows.csv").write_text("a,b,y\n" + "0.5,1,no\n-1,2,yes\n" * 30)
    overrides = ["data=moons", r"name='it\'s'"] if "it''s" in command else command.split()
    train(*QUICK, *overrides, "trainer.max_epochs=1")
    with initialize_config_dir(str(config_folder()), version_base="1.3"):
        loader = GlobalHydra.instance().config_loader()
        recipe = Recipe.of(RunFolder(tmp_path / "run"))
        changed = recipe.changed(change, loader)
        assert compose(loader, changed.overrides) == changed.node
        for part, key in {"data": "batch_size", "callbacks": "early_stopping"}.items():
            assert changed.node[part] | {key: 0} == recipe.node[part] | {key: 0}
        twice = changed.changed("optimizer=sgd optimizer.lr=0.5 seed=3", loader)
        assert compose(loader, twice.overrides) == twice.node
        assert (twice.node["optimizer"]["lr"], twice.node["seed"]) == (0.5, 3)
        assert twice.command.startswith("python train.py ")
        again = together([*change.split(), "optimizer=sgd", "optimizer.lr=0.1", "optimizer.lr=0.5", "seed=3"])
        assert recipe.changed(" ".join(again), loader).node == twice.node
        assert len({override.partition("=")[0] for override in again}) == len(again)
