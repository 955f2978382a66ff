"""A sweep does not wait for those that learn nothing."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from backlight.callbacks import stop_sick
from backlight.callbacks.stop_sick import Course, StopSick, why_sick
from backlight.classifier import Classifier
from backlight.loss import BinaryCrossEntropy
from backlight.population import sick
from backlight.population.member import Member
from backlight.population.sick import StopSick as StopSickMembers
from tests.conftest import Call
from tests.sweep.test_population import table


@pytest.mark.parametrize("together", ["population", "sequential"])
def test_hopeless_trials_end_and_the_others_do_not_notice(call: Call, tmp_path: Path, together: str) -> None:
    command = ["train", "-m", "data=moons", "optimizer.lr=0.3,1e-6,0.1,1e-5", "trainer.max_epochs=20"]
    command += [f"sweep={together}", "callbacks.decision_boundary=null", "callbacks.evaluation_plots=null"]
    assert call(*command, "hydra.sweep.dir=all").code == 0
    result = call(*command, "sweep.stop_sick=true", "hydra.sweep.dir=some")
    assert result.code == 0 and "ended early  2 of 4; why is in each train.log" in result.out
    whole, some = (table(tmp_path / name / "leaderboard.csv") for name in ("all", "some"))
    assert [(row["epochs"], row["max_epochs"]) for row in some] == [("20", "20"), ("5", "20")] * 2
    facts = [
        (tmp_path / name / "report.html").read_text().partition("<script>")[0] for name in ("all", "some")
    ]
    assert ["ended early" in fact for fact in facts] == [False, True]
    for number in (0, 2):
        assert float(some[number]["test/loss"]) == pytest.approx(float(whole[number]["test/loss"]), rel=1e-4)
    assert some[1]["verdict"].startswith("learning rate too low")
    assert "(sweep.stop_sick)" in (tmp_path / "some/1/train.log").read_text()


def test_a_loss_that_leaps_up_once_ends_nothing() -> None:
    base = 0.7
    assert why_sick(Course([0.7] * 10), base, 40) is not None
    assert why_sick(Course([0.7] * 4), base, 20) is None, "too early"
    assert why_sick(Course([0.7] * 7), base, 40) is None, "too early"
    assert why_sick(Course([0.7, 0.7, 0.3, 0.2, 0.1, 0.1, 2.0]), base, 25) is None, "it leapt up"
    assert why_sick(Course([0.7, 0.698, 0.696, 0.694, 0.692]), base, 25) is None, (
        "at this pace it will be far below"
    )
    assert why_sick(Course([1.5, 1.49, 1.48, 1.47, 1.46]), base, 25) is not None, "at this pace it will not"
    assert why_sick(Course([0.1, *[2.0] * 5]), base, 25) is not None, "what it once knew is lost"


def test_a_trial_far_behind_another_ends() -> None:
    base, slow = 0.7, [0.69, 0.678, 0.667, 0.658, 0.65]
    assert why_sick(Course(slow, best=0.14), base, 10) is None, "at the end it will have a seventh"
    assert why_sick(Course(slow, best=0.145), base, 10) is not None
    ends = why_sick(Course(slow, best=0.9), base, 10)
    assert "not on the way to the 0.07 of another trial" in str(ends)
    assert why_sick(Course(slow, best=0.35), base, 25) is None, "so early it will have 0.357"
    fast = Course([0.9, 0.65, 0.55, 0.5, 0.46, 0.44], best=0.9)
    assert why_sick(fast, base, 18) is None, "at this pace it comes there"


def test_a_trial_that_leads_goes_on_if_it_knows_something() -> None:
    base, slow = 0.7, [0.69, 0.678, 0.667, 0.658, 0.65]
    assert why_sick(Course(slow, best=0.9), base, 10, val=Course(slow, best=0.9, leads=True)) is None
    assert why_sick(Course(slow, best=0.9, leads=True), base, 10) is None, "no rows are held out"
    assert why_sick(Course([0.7] * 5, best=0.9, leads=True), base, 10) is not None


@pytest.mark.parametrize(("others", "leads"), [(1, False), (2, True)])
def test_a_share_of_all_that_began_leads(
    monkeypatch: pytest.MonkeyPatch, others: int, *, leads: bool
) -> None:
    monkeypatch.setattr(sick, "base_loss", lambda *_: 0.7)
    data = Rows()
    best = Runner(data, [0.3, 0.2, 0.1, 0.05, 0.05, 0.05])
    second = Runner(data, [0.69, 0.65, 0.62, 0.61, 0.61, 0.61])
    rest = [Runner(data, [0.8] * 6) for _ in range(others)]
    judge = StopSickMembers()
    for epochs in range(1, 7):
        members = [runner for runner in (best, second, *rest) if runner.stopped is None]
        for runner in members:
            runner.history = runner.whole[:epochs]
        judge.lagging(members)
    assert best.stopped is None
    assert (second.stopped is None) == leads, "three tenths of three are one, of four two"
    assert all(runner.stopped is not None for runner in rest)


class Rows:
    """Some that are the same for all."""


class Runner(Member):
    """A member of which only the losses count."""

    def __init__(self, data: Any, losses: list[float]) -> None:
        self.data = data
        self.max_epochs = 10
        self.stopped = None
        self.loss = BinaryCrossEntropy()
        self.whole = [{"train/loss": np.float32(loss), "val/loss": np.float32(loss)} for loss in losses]


def test_a_trial_that_only_does_not_learn_its_rows_by_heart_goes_on() -> None:
    base, slow = 0.7, [0.69, 0.678, 0.667, 0.658, 0.65]
    train = Course(slow, best=0.9)
    assert why_sick(train, base, 10, val=Course(slow, best=0.14)) is None, (
        "no other knows more of rows held out"
    )
    assert why_sick(train, base, 10, val=Course(slow, best=0.9)) is not None


def test_a_trial_that_has_come_no_lower_ends_where_another_knows_more() -> None:
    base, train = 1.0, Course([0.5, 0.4, 0.3, 0.2, *[0.1] * 8], best=0.9)
    risen = [0.6, 0.5, 0.4, 0.35, 0.3, 0.31, 0.32, 0.33, 0.34, 0.36, 0.38]
    ends = why_sick(train, base, 30, val=Course(risen, best=0.8))
    assert str(ends).startswith(
        "stopped after epoch 12: val/loss has been no lower than 0.3 for 6 epochs, and that of another trial is 0.2"
    )
    assert why_sick(train, base, 35, val=Course(risen, best=0.8)) is None, "seven epochs is a fifth of them"
    assert why_sick(train, base, 30, val=Course(risen, best=0.76)) is None, (
        "0.3 is less than 1.1 × 0.24 + 0.04"
    )
    assert why_sick(train, base, 30, val=Course(risen)) is None, "nobody else is known"
    assert why_sick(train, base, 30, val=Course([*risen[:-1], 0.29], best=0.8)) is None, "it has come lower"


def test_a_trial_that_leaves_a_plateau_goes_on() -> None:
    base, known = 0.7, Course([0.71, *[0.6995] * 8, 0.699], best=0.9)
    leaving = [0.6999, 0.6998, 0.6996, 0.6993, 0.6985]
    assert why_sick(known, base, 40, val=Course(leaving)) is None, "it falls faster and faster"
    assert why_sick(Course(leaving, best=0.9), base, 20) is None, "of the training rows where no others are"
    for losses in (
        leaving[::-1],  # it rises
        [0.75, 0.73, 0.715, 0.707, 0.701],  # it comes down from above to the base rate
        [0.6, *leaving],  # it knew more once
        [loss + 0.01 for loss in leaving],  # it knows less than the class shares
    ):
        assert why_sick(known, base, 40, val=Course(losses)) is not None


@pytest.mark.parametrize(
    ("trials", "epochs"),
    [
        ("data=moons optimizer.lr=0.001,0.05", [5, 12]),
        ("data=moons optimizer.lr=0.001,0.0011", [12, 12]),
        ("data=xor,spirals optimizer.lr=0.05", [12, 12]),  # spirals take longer than other rows
    ],
)
def test_trials_are_compared_with_those_on_the_same_rows(
    call: Call, tmp_path: Path, trials: str, epochs: list[int]
) -> None:
    command = ["train", "-m", "optimizer=adam", "trainer.max_epochs=12", *trials.split()]
    command += ["callbacks.decision_boundary=null", "callbacks.evaluation_plots=null", "sweep.stop_sick=true"]
    assert call(*command, "hydra.sweep.dir=some").code == 0
    summaries = [tmp_path / "some" / str(number) / "summary.json" for number in range(2)]
    assert [json.loads(summary.read_text())["epochs"] for summary in summaries] == epochs


@pytest.mark.parametrize(("val_fraction", "goes_on"), [(0.3, True), (0, False)])
def test_who_does_not_learn_noise_by_heart_goes_on_where_rows_are_held_out(
    call: Call, tmp_path: Path, val_fraction: float, *, goes_on: bool
) -> None:
    command = ["train", "-m", "optimizer=adam", "optimizer.lr=0.001,0.03", "trainer.max_epochs=40"]
    command += ["model.hidden=[64]", "data.n_samples=200", "data.n_features=40", "data.flip_y=0.3"]
    command += ["callbacks.decision_boundary=null", "callbacks.evaluation_plots=null", "sweep.stop_sick=true"]
    assert call(*command, f"data.val_fraction={val_fraction}", "hydra.sweep.dir=some").code == 0
    slow, fast = (table(tmp_path / "some" / str(number) / "metrics.csv") for number in range(2))
    assert float(fast[-1]["train/loss"]) < 0.1 < float(slow[-1]["train/loss"])
    assert (len(fast), len(slow) == 40) == (40, goes_on)


def test_who_learns_by_heart_early_ends_in_a_sweep_too(call: Call, tmp_path: Path) -> None:
    command = ["train", "-m", "optimizer=adam", "optimizer.lr=0.003,0.1", "trainer.max_epochs=40"]
    command += ["model.hidden=[64]", "model.activation=relu"]
    command += ["data.n_samples=400", "data.n_features=20", "data.flip_y=0.1", "sweep.stop_sick=true"]
    command += ["callbacks.decision_boundary=null", "callbacks.evaluation_plots=null"]
    assert call(*command, "hydra.sweep.dir=some").code == 0
    slow, fast = (
        json.loads((tmp_path / "some" / str(number) / "summary.json").read_text())["epochs"]
        for number in range(2)
    )
    assert slow == 40 > fast
    assert "val/loss has been no lower than" in (tmp_path / "some/1/train.log").read_text()


@pytest.mark.parametrize("resumes", [False, True])
@pytest.mark.parametrize(
    ("val", "ends"), [([0.6999, 0.6998, 0.6996, 0.6993, 0.6985], False), ([0.7] * 5, True)]
)
def test_a_trial_alone_goes_on_where_its_validation_loss_gathers_pace(
    monkeypatch: pytest.MonkeyPatch, val: list[float], *, ends: bool, resumes: bool
) -> None:
    monkeypatch.setattr(stop_sick, "base_loss", lambda *_: 0.7)
    monkeypatch.setattr(stop_sick, "data_of", lambda _: None)
    model = nn.Linear(2, 1)
    classifier = Classifier(model, torch.optim.SGD(model.parameters(), 0.1), backward="autograd")
    trainer: Any = SimpleNamespace(max_epochs=25, should_stop=False, is_global_zero=True)
    callback = StopSick()
    for epoch, loss in enumerate(val):
        if resumes and epoch == 3:
            written = callback.state_dict()
            callback = StopSick()
            callback.load_state_dict(written)
        trainer.callback_metrics = {"train/loss": torch.tensor(0.7), "val/loss": torch.tensor(loss)}
        callback.on_train_epoch_end(trainer, classifier)
    assert trainer.should_stop is ends
