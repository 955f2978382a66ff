"""What a population knows of its members without looking at each."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from backlight.classifier import diverged
from backlight.population.member import Member

Floats = NDArray[np.float32]

LOSSES = ("train/loss", "val/loss")


class Outcome(NamedTuple):
    """Of an epoch, the positions of members: who has failed, who was never better, and who has come to an end."""

    failed: list[int]
    best: list[int]
    ended: list[int]


class Roster:
    """What epochs ask of every member, and leave for it, side by side; until the population changes.

    Members lie far apart in memory: to look at each after every epoch takes a fifth of the time of training small ones.

    Args:
        members: in training.
        data_sets: the number of each one's data set.
    """

    def __init__(self, members: Sequence[Member], data_sets: Sequence[int]) -> None:
        self._members = members
        self.rates = [member.rate for member in members]
        """The learning rate of each."""
        self._before = np.array([len(member.history) for member in members])
        self._made = 0
        """Epochs, after these."""
        groups: dict[tuple[int, int | None, int], int] = {}
        keys = zip(data_sets, (member.shuffle_seed for member in members), self._before.tolist(), strict=True)
        self.group = torch.tensor([groups.setdefault(key, len(groups)) for key in keys])
        """The number of each member's group: those of one data set and seed share the order of their rows."""
        self.is_in_order = are_in_order(self.group, len(groups))
        self._groups = list(groups)
        self._last = np.array([member.max_epochs for member in members])
        self._limits = np.array([_limit(member) for member in members])
        self._asks_always = np.array([_asks_always(member) for member in members])
        self._was_above = np.full(len(members), True)
        self._best_loss = np.array([member.best_loss for member in members])
        self._best_epoch = np.array([member.best_epoch for member in members])
        self._failed: set[int] = set()
        self._epochs: list[Mapping[str, Floats]] = []
        """That members were not told of."""
        self._seconds = 0.0

    @property
    def orders(self) -> list[tuple[int, int | None, int]]:
        """Of each group the data set, and the seed and the epoch that give the order of its rows."""
        return [(data_set, seed, epoch + self._made) for data_set, seed, epoch in self._groups]

    def record(self, metrics: Mapping[str, Floats]) -> Outcome:
        """Take what an epoch came to.

        Args:
            metrics: `[members]` each.
        """
        losses = [metrics[name] for name in LOSSES if name in metrics]
        is_sick = ~np.isfinite(losses).all(axis=0)
        if is_sick.any():
            self.tell()
            self._failed = set(np.flatnonzero(is_sick).tolist())
        metrics = {"lr": np.asarray(self.rates, np.float32), **metrics}
        epochs = self._before + self._made
        self._epochs.append(metrics)
        self._made += 1
        is_best = ~is_sick
        if "val/loss" in metrics:  # without validation rows the last epoch is the best
            is_best &= metrics["val/loss"] < self._best_loss
            self._best_loss[is_best] = metrics["val/loss"][is_best]
        self._best_epoch[is_best] = epochs[is_best]
        is_above = metrics["train/loss"] > self._limits
        must_ask = self._asks_always | is_above | self._was_above | (epochs + 1 == self._last)
        self._was_above = is_above
        ended = []
        for position in np.flatnonzero(must_ask | is_sick).tolist():
            member, epoch = self._members[position], int(epochs[position])
            own = {name: values[position] for name, values in metrics.items()}
            if position in self._failed:
                sick = next(name for name in LOSSES if not np.isfinite(own[name]))
                member.error = diverged(sick, float(own[sick]), epoch, self.rates[position])
            elif member.ends(epoch, own):
                ended.append(position)
            self.rates[position] = member.rate
        return Outcome(sorted(self._failed), np.flatnonzero(is_best).tolist(), ended)

    def spend(self, seconds: float) -> None:
        """Count what each member's share of an epoch took."""
        self._seconds += seconds

    def tell(self) -> None:
        """Tell the members what came of them; the epoch in which one failed is none of its history."""
        if not (self._epochs or self._seconds):
            return
        names = tuple(self._epochs[0]) if self._epochs else ()
        told = zip(
            self._members,
            self._best_epoch.tolist(),
            self._best_loss.tolist(),
            *(zip(*epoch.values(), strict=True) for epoch in self._epochs),
            strict=True,
        )
        for position, (member, best_epoch, best_loss, *epochs) in enumerate(told):
            member.seconds += self._seconds
            if position not in self._failed:
                member.history += [dict(zip(names, values, strict=True)) for values in epochs]
                member.best_epoch, member.best_loss = best_epoch, best_loss
        self._epochs.clear()
        self._seconds = 0.0


def are_in_order(group: Tensor, groups: int) -> bool:
    """Whether groups `[members]` are as large as each other and stand in their order, the members of each in a row."""
    in_order = torch.arange(groups, device=group.device).repeat_interleave(len(group) // groups)
    return torch.equal(group, in_order)


def _limit(member: Member) -> float:
    """The training loss up to which it is not on its way to be hopeless."""
    return np.inf if member.stop_hopeless is None else member.stop_hopeless.limit


def _asks_always(member: Member) -> bool:
    """Whether it has a say after every epoch, not only when its loss is high."""
    return member.schedule is not None or member.early_stopping is not None
