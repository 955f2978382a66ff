"""Trials that lag behind end early, and the others do not notice."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backlight.population.halving import SuccessiveHalving
from backlight.population.member import Member
from tests.conftest import Call
from tests.sweep.test_population import table


class Runner(Member):
    """A member of which only the history counts."""

    def __init__(self, history: list[dict[str, np.float32]]) -> None:
        self.history = history
        self.stopped = None


def at(epochs: int, value: float) -> Runner:
    return Runner([{"val/loss": np.float32(value), "train/loss": np.float32(0)}] * epochs)


def halving(*, factor: int = 3, min_epochs: int = 2, downwards: bool = True) -> SuccessiveHalving:
    return SuccessiveHalving("val/loss", improves_downwards=downwards, factor=factor, min_epochs=min_epochs)


def test_the_best_third_goes_on() -> None:
    race = halving()
    values = [5.0, 1.0, 3.0, math.nan, 2.0, 4.0]
    assert race.lagging([at(1, value) for value in values]) == [], "no rung yet"
    runners = [at(2, value) for value in values]
    assert race.lagging(runners) == [0, 2, 3, 5]
    assert (
        runners[0].stopped
        == "ended after epoch 2: val/loss is not among the best 1/3 of the 6 trials that came so far"
    )
    assert runners[1].stopped is None
    assert halving(downwards=False).lagging([at(2, value) for value in values]) == [1, 2, 3, 4]


def test_who_comes_later_runs_against_all_who_came() -> None:
    race = halving()
    race.lagging([at(2, value) for value in (1.0, 2.0, 3.0)])
    assert race.lagging([at(2, 2.5), at(3, 9.0), at(2, 0.5)]) == [0], "epoch 3 is no rung"
    assert race.lagging([at(6, 9.0)]) == [], "the first there"
    again = halving()
    for value in (1.0, 2.0, 3.0):
        again.note({"val/loss": np.array([9.0, value, 9.0])})
    assert again.lagging([at(2, 2.5), at(2, 0.5)]) == [0], "also of an earlier start of the sweep"


def test_without_validation_rows_the_training_loss_counts() -> None:
    runners = [Runner([{"train/loss": np.float32(value)}] * 2) for value in (1, 2, 3)]
    assert halving().lagging(runners) == [1, 2]


@given(st.lists(st.floats(0, 1, width=32), min_size=1, max_size=50), st.integers(2, 5))
def test_one_in_factor_goes_on(values: list[float], factor: int) -> None:
    lagging = set(halving(factor=factor).lagging([at(2, value) for value in values]))
    stay = [value for place, value in enumerate(values) if place not in lagging]
    assert max(stay) <= min((values[place] for place in lagging), default=math.inf)
    assert len(set(stay)) <= max(1, len(values) // factor)


def test_a_race_finds_the_best_in_fewer_epochs(call: Call, tmp_path: Path) -> None:
    command = [
        "train", "-m", "data=moons", "optimizer=adam", "optimizer.lr=0.0001,0.001,0.01,0.1", "seed=0,1,2",
        "trainer.max_epochs=9",
    ]  # fmt: skip
    assert call(*command, "hydra.sweep.dir=whole").code == 0
    raced = call(*command, "sweep=halving", "sweep.max_members=5", "hydra.sweep.dir=raced")
    assert raced.code == 0, raced.err

    whole, fewer = (
        [table(tmp_path / name / str(n) / "metrics.csv") for n in range(12)] for name in ("whole", "raced")
    )
    for ours, theirs in zip(fewer, whole, strict=True):
        for row, other in zip(ours, theirs, strict=False):
            assert float(row["val/loss"]) == pytest.approx(float(other["val/loss"]), rel=1e-4)
    epochs = [len(rows) for rows in fewer]
    assert set(epochs) <= {1, 3, 9}
    assert sum(epochs) < 0.6 * 12 * 9
    best = min(range(12), key=lambda n: float(whole[n][-1]["val/loss"]))
    assert epochs[best] == 9
    lagged = tmp_path / "raced" / str(epochs.index(1))
    assert json.loads((lagged / "summary.json").read_text())["status"] == "completed"
    assert "ended after epoch 1: val/loss is not among the best 1/3" in (lagged / "train.log").read_text()

    for number in (0, 11):
        (tmp_path / f"raced/{number}/summary.json").unlink()
        for checkpoint in (tmp_path / f"raced/{number}/checkpoints").iterdir():
            checkpoint.unlink()
    again = call(*command, "sweep=halving", "sweep.resume=raced")
    assert again.code == 0
    assert "10 of 12 trials are there already" in again.out
    assert len(table(tmp_path / "raced/0/metrics.csv")) == 1, "against those that are there"


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("sweep.metric=test/loss", "sweep.metric=test/loss: trials are compared while they train, "
         "which test rows must not know of"),
        ("sweep.population=false", "sweep.factor: needs population=true"),
        ("sweep.factor=1", "sweep.factor=1: must be at least 2"),
    ],
)  # fmt: skip
def test_what_cannot_be_raced_is_refused(call: Call, option: str, message: str) -> None:
    result = call("train", "-m", "seed=0,1", "sweep=halving", option, "hydra.sweep.dir=sweep")
    assert (result.code, result.err) == (2, f"ERROR: {message}\n")
