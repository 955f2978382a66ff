"""Searches with Optuna."""

from pathlib import Path

import optuna
import pytest

from backlight.sweep.search import STUDY
from tests.conftest import Call
from tests.sweep.test_population import table

SPACE = ["data=moons", "optimizer.lr=tag(log,interval(0.001,1))", "model.hidden=[3],[4]", "seed=range(0,3)"]


@pytest.mark.parametrize("sampler", ["tpe", "random"])
def test_a_search_trains_what_is_suggested_and_goes_on_later(
    call: Call, tmp_path: Path, sampler: str
) -> None:
    command = [
        "train", "-m", "sweep=search", f"sweep.sampler={sampler}", "sweep.at_once=3", "trainer.max_epochs=1", *SPACE,
    ]  # fmt: skip
    first = call(*command, "sweep.trials=5", "sweep.metric=val/accuracy", "hydra.sweep.dir=sweep")
    assert first.code == 0, first.err
    assert first.out.count("the best of") == 1
    assert "mattered" in first.out
    storage = f"sqlite:///{tmp_path / 'sweep/study.db'}"
    study = optuna.load_study(study_name=STUDY, storage=storage)
    assert study.direction == optuna.study.StudyDirection.MAXIMIZE
    rows = table(tmp_path / "sweep/leaderboard.csv")
    assert len(rows) == 5
    for row, trial in zip(rows, study.trials, strict=True):
        assert float(row["val/accuracy"]) == trial.value
        assert float(row["optimizer.lr"]) == trial.params["optimizer.lr"]
        assert 0.001 <= float(row["optimizer.lr"]) <= 1
        assert row["model.hidden"] in ("[3]", "[4]")
        assert row["seed"] in ("0", "1", "2")

    lost = study.ask(study.trials[0].distributions)  # as a kill leaves it
    second = call(*command, "sweep.trials=7", "sweep.metric=val/accuracy", "sweep.resume=sweep")
    assert second.code == 0, second.err
    states = [trial.state for trial in optuna.load_study(study_name=STUDY, storage=storage).trials]
    assert states == [optuna.trial.TrialState.COMPLETE] * 7
    assert (tmp_path / "sweep" / str(lost.number) / "summary.json").exists()


def test_a_search_needs_something_to_look_for(call: Call) -> None:
    result = call("train", "-m", "sweep=search", "optimizer.lr=0.1", "hydra.sweep.dir=sweep")
    assert (result.code, result.err.startswith("ERROR: sweep=search: give some keys several values")) == (
        2,
        True,
    )
    result = call("train", "-m", "sweep=search", "seed=0,1", "sweep.sampler=grid", "hydra.sweep.dir=sweep")
    assert result.err == "ERROR: sweep.sampler=grid: must be 'tpe' or 'random'\n"


def test_a_study_of_another_search_is_refused(call: Call, tmp_path: Path) -> None:
    command = ["train", "-m", "data=moons", "sweep=search", "sweep.trials=2", "trainer.max_epochs=1"]
    assert call(*command, "seed=0,1", "hydra.sweep.dir=sweep").code == 0
    for other in (["seed=0,1,2"], ["seed=0,1", "sweep.metric=val/accuracy"]):
        result = call(*command, *other, "sweep.resume=sweep")
        assert (result.code, "study.db: holds a search for another" in result.err) == (2, True), result.err
    (tmp_path / "sweep/study.db").write_bytes(b"no database" * 100)
    result = call(*command, "seed=0,1", "sweep.resume=sweep")
    assert (result.code, "study.db: cannot be read as a study" in result.err) == (2, True), result.err
    result = call(*command, "optimizer.lr=tag(log,interval(-1,1.0))", "hydra.sweep.dir=new")
    assert (result.code, "no values to try" in result.err) == (2, True), result.err


def test_a_trial_that_fails_is_no_end_of_the_search(call: Call, tmp_path: Path) -> None:
    result = call(
        "train", "-m", "data=moons", "sweep=search", "sweep.trials=6", "optimizer.lr=choice(-1,0.1)",
        "trainer.max_epochs=1", "hydra.sweep.dir=sweep",
    )  # fmt: skip
    assert result.code == 3
    assert {row["status"] for row in table(tmp_path / "sweep/leaderboard.csv")} == {"completed", "failed"}
