"""How much of what a metric varies each hyper-parameter accounts for."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

BINS = 8


def main_effects(values: Mapping[str, Sequence[Any]], metric: NDArray[np.float64]) -> dict[str, float]:
    """The share of the variance of a metric that each key accounts for alone, the largest first.

    The functional ANOVA of Hutter, Hoos & Leyton-Brown (ICML 2014) over the trials themselves: the variance
    of the mean over all trials with the same value, over the variance of all. Where the trials are a
    full grid it is exact, and no model of the metric is needed.

    Args:
        values: per key `[trials]`; numbers that hardly occur twice are put into bins.
        metric: `[trials]`
    """
    total = metric.var()
    shares = {}
    for key, column in values.items():
        _, group = np.unique(binned(column), return_inverse=True)
        counts = np.bincount(group)
        means = np.bincount(group, metric) / counts
        between = float(np.sum(counts * (means - metric.mean()) ** 2) / len(metric))
        shares[key] = between / total if total else 0.0
    return dict(sorted(shares.items(), key=lambda item: -item[1]))


def label(value: object) -> str:
    """The name of a value."""
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def binned(column: Sequence[Any]) -> list[str]:
    """The values as names, in whose place bins of about as many trials each where hardly any occurs twice."""
    names = [label(value) for value in column]
    if not all(isinstance(value, int | float) for value in column) or 2 * len(set(names)) <= len(names):
        return names
    edges = np.unique(np.quantile(column, np.linspace(0, 1, BINS + 1)))
    place = np.searchsorted(edges[1:-1], column, side="right")
    return [f"{edges[index]:.3g} … {edges[index + 1]:.3g}" for index in place]


def in_order(column: Sequence[Any]) -> list[str]:
    """The different values of `binned`, numbers by size."""
    names = binned(column)
    first: dict[str, Any] = {}
    for name, value in zip(names, column, strict=True):
        first[name] = min(first.get(name, value), value)
    numbers = all(isinstance(value, int | float) for value in column)
    return sorted(first, key=lambda name: first[name] if numbers else name)
