"""Runs as a symptom sees them, made up."""

from dataclasses import replace

import numpy as np

from backlight.diagnosis.observations import (
    DataState,
    LayerState,
    Neighbourhoods,
    Observations,
    Settings,
)


def observed(*losses: float) -> Observations:
    """A run of 10 steps an epoch with these training losses, of two classes, and nothing else about it."""
    settings = Settings("sgd", True, set(), 0.1, "sigmoid", [5], len(losses), 32, True)
    data = DataState(np.array([0.5, 0.5]), ["a"], np.zeros(1), np.ones(1), rows={"train": 320})
    series = {"train/loss": np.array(losses)}
    return Observations(
        settings, series, 10, 1.0, 0.0, 1.0, [], [], lambda: (0.0, 0.0), lambda: 0.0, 1.0, 1.0, data
    )


def with_a_rare_class(run: Observations, held_out: int, balanced: float | None) -> DataState:
    """Its data with a class of 4 %, so many rows held out, and what the neighbours know of each class."""
    nearby = None if balanced is None else Neighbourhoods(0.97, 0.0, balanced)
    rows = {"train": 320, "val": held_out}
    return replace(run.data, class_shares=np.array([0.96, 0.04]), rows=rows, neighbourhoods=nearby)


def moved(by: float) -> dict[str, list[LayerState]]:
    """The start and the end of a run whose weights moved by so much of their size."""
    layer = LayerState(
        "layers.0", 1.0, np.zeros(2), np.zeros(2, bool), np.eye(2, dtype=np.float32), np.ones(2, np.float32)
    )
    return {"start": [layer], "end": [replace(layer, weight=layer.weight * (1 + by))]}
