"""Successive halving: of those that have come so far, the best go on."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import SupportsFloat

import numpy as np
from numpy.typing import NDArray

from backlight.population.member import Member

Floats = NDArray[np.float64]


class SuccessiveHalving:
    """Asynchronous successive halving (ASHA; Li et al., MLSys 2020, arXiv:1810.05934), the variant that stops.

    Rungs are after `min_epochs · factorᵏ` epochs. Whoever comes to one goes on if among the best
    `1/factor` of all that have come to it so far.

    Args:
        metric: that is compared, a column of `metrics.csv`; where it is not known, `train/loss`.
        improves_downwards: whether less of it is better.
        factor: of those that come to a rung, one in so many goes on.
        min_epochs: to the first rung.
    """

    def __init__(self, metric: str, *, improves_downwards: bool, factor: int, min_epochs: int) -> None:
        self.metric = metric
        self.sign = 1 if improves_downwards else -1
        self.factor = factor
        self.min_epochs = min_epochs
        self._rungs: dict[int, list[float]] = {}
        """Of each rung, the values of those that came to it: the less, the better."""

    def note(self, series: Mapping[str, Floats]) -> None:
        """Take into account one that came to its end in an earlier start of the sweep.

        Args:
            series: its metrics, epoch by epoch.
        """
        epochs = len(next(iter(series.values()), ()))
        for rung in self._rungs_until(epochs):
            metrics = {name: values[rung - 1] for name, values in series.items()}
            self._rungs.setdefault(rung, []).append(self._value(metrics))

    def lagging(self, members: Sequence[Member]) -> list[int]:
        """Which of these do not go on after this epoch; they are told why."""
        arrived: dict[int, list[int]] = {}
        for place, member in enumerate(members):
            arrived.setdefault(len(member.history), []).append(place)
        lagging = []
        for epochs, places in arrived.items():
            if epochs not in self._rungs_until(epochs):
                continue
            values = [self._value(members[place].history[-1]) for place in places]
            rung = self._rungs.setdefault(epochs, [])
            rung += values
            worst = sorted(rung)[max(1, len(rung) // self.factor) - 1]
            for place, value in zip(places, values, strict=True):
                if value > worst:
                    members[place].stopped = (
                        f"ended after epoch {epochs}: {self.metric} is not among the best "
                        f"1/{self.factor} of the {len(rung)} trials that came so far"
                    )
                    lagging.append(place)
        return lagging

    def _rungs_until(self, epochs: int) -> Iterable[int]:
        rung = self.min_epochs
        while rung <= epochs:
            yield rung
            rung *= self.factor

    def _value(self, metrics: Mapping[str, SupportsFloat]) -> float:
        if self.metric not in metrics:
            return float(metrics["train/loss"])
        value = self.sign * float(metrics[self.metric])
        return math.inf if math.isnan(value) else value
