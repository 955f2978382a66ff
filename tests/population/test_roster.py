"""Members are looked at when the population changes, and know all that came of them when they leave."""

import time
from collections.abc import Callable, Sequence
from functools import partial
from itertools import count
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir

from backlight.command import config_folder
from backlight.config import plain, task_of
from backlight.population import training
from backlight.population.member import Member
from backlight.population.training import Judge, Population
from backlight.sweep.members import MemberBuilder

SETTINGS = ["data=moons", "data.n_samples=200", "optimizer.lr=0.3"]


def members(*own: list[str]) -> list[Member]:
    builder = MemberBuilder()
    with initialize_config_dir(str(config_folder()), version_base="1.3"):
        nodes = [plain(task_of(compose("train", [*SETTINGS, *overrides]))) for overrides in own]
    found = [builder.member(node) for node in nodes]
    assert all(found)
    return [member for member in found if member is not None]


def trained(
    some: list[Member],
    places: int = 10,
    judges: Sequence[Judge] = (),
    ask: Callable[[Sequence[Member]], None] | None = None,
) -> list[Member]:
    """In the order in which they left."""
    population = Population(torch.device("cpu"), places, judges)

    def after_epoch(_: int) -> None:
        if ask is not None:
            ask(population.members())

    return [member for left in population.train(some, after_epoch) for member in left]


def varied() -> list[Member]:
    return members(
        ["trainer.max_epochs=5"],
        ["trainer.max_epochs=3", "scheduler=exponential", "scheduler.factor=0.5"],
        ["trainer.max_epochs=5", "seed=7"],
        ["trainer.max_epochs=4", "callbacks.backprop.cadence=epoch", "seed=7"],
    )


def test_members_know_their_history_whoever_asks() -> None:
    unasked, asked = varied(), varied()
    started = time.monotonic()
    assert {id(member) for member in trained(unasked, places=3)} == set(map(id, unasked))
    took = time.monotonic() - started
    lengths: dict[int, list[int]] = {}

    def ask(in_training: Sequence[Member]) -> None:
        for member in in_training:
            lengths.setdefault(id(member), []).append(len(member.history))

    trained(asked, places=3, ask=ask)
    assert all(counts == list(range(1, 1 + len(counts))) for counts in lengths.values())
    for member, same, epochs in zip(unasked, asked, (5, 3, 5, 4), strict=True):
        assert len(member.history) == epochs
        assert member.history == same.history
        losses = [metrics["val/loss"] for metrics in member.history]
        assert member.best_epoch == same.best_epoch == int(np.argmin(losses))
        assert member.best_loss == same.best_loss == min(losses)
        assert [step for step, _ in member.records] == [step for step, _ in same.records]
        assert member.seconds > 0
    assert sum(member.seconds for member in unasked) <= took
    assert [metrics["lr"] for metrics in unasked[1].history] == pytest.approx([0.3, 0.15, 0.075])
    steps = unasked[3].data.steps_per_epoch
    assert [step for step, _ in unasked[3].records] == [epoch * steps for epoch in range(4)]


def test_who_shares_rows_trains_as_if_alone() -> None:
    """Groups of one seed stand in a row and are as large as each other, until one of them has come to its end."""
    own = [
        [f"optimizer.lr={lr}", f"seed={seed}", f"trainer.max_epochs={epochs}", "model.hidden=[8,3]"]
        for lr, epochs in ((0.3, 4), (3, 4), (1, 2))
        for seed in range(3)
    ]
    own[-1][2] = "trainer.max_epochs=3"
    together, alone = members(*own), members(*own)
    trained(together)
    for member, same in zip(together, alone, strict=True):
        trained([same])
        assert member.history == same.history
        assert member.test_metrics == same.test_metrics
        assert [step for step, _ in member.records] == [step for step, _ in same.records]
        for (_, ours), (_, theirs) in zip(member.records, same.records, strict=True):
            np.testing.assert_array_equal(ours, theirs)
        for ours, theirs in zip(member.parameters, same.parameters, strict=True):
            assert torch.equal(ours, theirs)


def test_who_fails_keeps_what_went_well() -> None:
    model = [
        "model.activation=relu",
        "model.hidden=[20,20]",
        "trainer.max_epochs=30",
        "callbacks.stop_hopeless=null",
    ]
    failing, well = members(
        [*model, "scheduler=exponential", "scheduler.factor=1e3"],
        [*model, "scheduler=exponential", "scheduler.factor=1"],
    )  # fmt: skip
    first, second = trained([failing, well])
    assert (first, second) == (failing, well)
    assert failing.error is not None
    assert "diverged" in failing.error
    assert 1 <= len(failing.history) < 30
    assert f"after epoch {len(failing.history) + 1}:" in failing.error
    assert all(np.isfinite(metrics["train/loss"]) for metrics in failing.history)
    assert 0 <= failing.best_epoch < len(failing.history)
    assert well.error is None
    assert len(well.history) == 30


def test_judges_see_every_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    class Third:
        """Ends the second of them after its third epoch."""

        def lagging(self, members: Sequence[Member]) -> list[int]:
            seen.append([len(member.history) for member in members])
            return [1] if seen[-1] == [3, 3] else []

    seen: list[list[int]] = []
    # An epoch takes a second, which the members share.
    monkeypatch.setattr(training, "time", SimpleNamespace(monotonic=partial(next, count())))
    stays, leaves = members(["trainer.max_epochs=5"], ["trainer.max_epochs=5", "seed=1"])
    assert trained([stays, leaves], judges=[Third()]) == [leaves, stays]
    assert seen == [[1, 1], [2, 2], [3, 3], [4], []]
    assert (len(stays.history), len(leaves.history)) == (5, 3)
    assert (stays.seconds, leaves.seconds) == (3.5, 1.5)
    assert leaves.test_metrics
