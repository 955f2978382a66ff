"""How the loss and the learning rate of a run moved from epoch to epoch."""

import math
from dataclasses import replace
from typing import Final, Literal

import numpy as np

from backlight.diagnosis.knowledge import BELOW, HARDLY_LEARNED, has_learned, is_unknowable, missing
from backlight.diagnosis.observations import Floats, Observations

PARTS: Final = ("train", "val")

FADED = 0.1
"""Of its highest value, the mean rate of the second half of the epochs at which a schedule has ended training; half a cosine
has 0.18. Of 77 random runs of which it is the main finding 58 come further at a constant rate, and 36 are healthy there."""

FLAT = 0.01
"""Change of the loss, relative to the base-rate loss, that is no change: a fifth of HARDLY_LEARNED, and a fiftieth of
what a run that has learned moved by."""

SHORT = 10
"""Epochs below which nothing is said of where the loss settles: a fifth of them is then a single one."""

TURNS = 0.3
"""Share of the changes that undo the one before: a loss that falls has none, a random walk a half."""


def has_faded(seen: Observations) -> bool:
    """Whether a schedule has brought the rate down before the network knew what can be known."""
    knows = has_learned(seen) and missing(seen) < BELOW
    return late_rate(seen) < FADED and not knows and not is_unknowable(seen)


def late_rate(seen: Observations) -> float:
    """The mean learning rate of the second half of the epochs, over the highest; 1 where none is known."""
    rates = seen.rates
    return float(rates[len(rates) // 2 :].mean() / rates.max()) if len(rates) and rates.max() > 0 else 1.0


def epochs_of_steps(seen: Observations) -> int:
    """The epochs until the rate was below a third of its highest value for good."""
    return int(np.flatnonzero(seen.rates >= seen.rates.max() / 3)[-1]) + 1


def is_cut_short(seen: Observations) -> bool:
    """Whether it has done so while the loss still fell, or before anybody could tell."""
    if not has_faded(seen):
        return False
    epochs = epochs_of_steps(seen)
    until_then = replace(seen, series={**seen.series, "train/loss": seen.loss("train")[:epochs]})
    return epochs < SHORT or 5 * late_fall(until_then) >= FLAT * seen.base_loss


def jump(loss: Floats) -> float:
    """The mean change of the loss in the second half of the epochs, but for what it falls in all; 0 if it does not turn.

    A fall that lasts is none of it, as where a network leaves a plateau late.
    """
    change = np.diff(loss[len(loss) // 2 :])
    way = np.sign(change)  # the product of two changes may overflow
    if len(change) < 3 or np.mean(way[1:] * way[:-1] < 0) < TURNS:
        return 0.0
    return float(2 * np.mean(change.clip(min=0)))


def jitter(loss: Floats) -> float:
    """How far the loss jumps about its own course in the second half of the epochs; 0 of too few.

    From its second differences, which a smooth course hardly has. Values that are independent about it differ so much
    from one to the next in the mean.
    """
    changes = np.diff(loss[len(loss) // 2 :], 2)
    return float(np.abs(changes).mean() / math.sqrt(3)) if len(changes) > 1 else 0.0


def first_rise(seen: Observations, least: float) -> int:
    """The end of the first epoch whose loss is higher by so much of the base-rate loss, or as much as any."""
    change = np.diff(seen.loss("train")) / seen.base_loss
    return (int(np.argmax(change >= min(least, change.max()))) + 2) * seen.steps_per_epoch


def flat_since(seen: Observations, within: float) -> int:
    """The end of the epoch from which on the loss changes no more than by so much of the base-rate loss."""
    backwards = seen.loss("train")[::-1]
    spread = np.maximum.accumulate(backwards) - np.minimum.accumulate(backwards)
    return int(len(spread) + 1 - np.count_nonzero(spread <= within * seen.base_loss)) * seen.steps_per_epoch


def last_step(seen: Observations) -> int:
    """Of the optimizer, at the end of the last epoch."""
    return len(seen.series.get("train/loss", ())) * seen.steps_per_epoch


def late_share(seen: Observations) -> float:
    """The share of the loss's whole fall that falls in the last fifth of the epochs."""
    whole = whole_fall(seen)
    return float(late_fall(seen) / whole) if whole > 0 else 0.0


def whole_fall(seen: Observations) -> float:
    """By how much the loss fell; of a run that hardly knows more than the class shares without the fall to these.

    That comes soon, and is all there is where nobody can know more.
    """
    loss = seen.loss("train")
    has_more_to_learn = -FLAT < seen.progress() < HARDLY_LEARNED and not is_unknowable(seen)
    return float((min(loss[0], seen.base_loss) if has_more_to_learn else loss[0]) - loss[-1])


def late_fall(seen: Observations, part: Literal["train", "val"] = "train") -> float:
    """By how much the loss fell in the last fifth of the epochs, at the pace of whole epochs; 0 where there is none."""
    loss = seen.loss(part)
    if not len(loss):
        return 0.0
    epochs = max(1, len(loss) // 5)
    before = loss[-1 - epochs] if len(loss) > 1 else seen.start_loss
    return float(before - loss[-1]) / epochs * len(loss) / 5
