"""From a run to what the diagnosis looks at."""

import csv
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor

from backlight.assemble import Node, build_loss, build_network
from backlight.backprop.trace import trace
from backlight.checkpoint import TrainedNetwork
from backlight.config import build
from backlight.data.module import ClassificationData
from backlight.data.source import PARTS
from backlight.diagnosis.measure import (
    batch_signal,
    best_step,
    constant_loss,
    data_state,
    first_non_finite,
    layer_states,
    perfect_loss,
)
from backlight.diagnosis.observations import DataState, Floats, Observations, Settings
from backlight.errors import BacklightError
from backlight.model import SigmoidMLP
from backlight.probabilities import labels_of
from backlight.processes import forked_map
from backlight.run_folder import RunFolder

GROUPS = ("data", "model", "loss", "optimizer", "trainer")
MOST_ROWS = 2048
"""On which layers are measured: their statistics move by 1/√2048, about 2 %, from sample to sample."""

WORTH_FORKING = 16  # sets of rows to measure
_data_states: WeakKeyDictionary[ClassificationData, DataState] = WeakKeyDictionary()


@dataclass(frozen=True)
class Evidence:
    """What a run has left behind.

    Attributes:
        overrides: of the command line that started it.
        series: every column of `metrics.csv`, `[epochs]`.
        ended: the network of its last checkpoint; None where there is none yet.
        error: how it failed, or None.
    """

    overrides: Sequence[str]
    series: dict[str, Floats]
    ended: SigmoidMLP | None
    error: str | None = None

    @classmethod
    def of(cls, folder: RunFolder, error: str | None = None) -> "Evidence":
        """Read a run folder.

        Raises:
            BacklightError: the last checkpoint or the metrics cannot be read.
        """
        last = folder.checkpoint("last")
        ended = TrainedNetwork.load(last).model if last.exists() else None
        return cls(folder.read_overrides(), read_series(folder.metrics), ended, error)


def examine(config: Node, evidence: Evidence, data: ClassificationData) -> Observations:
    """Measure a run on its training rows.

    Args:
        config: of the run, resolved.
        evidence: what it left behind.
        data: of the run, set up.

    Raises:
        BacklightError: the config cannot be used.
    """
    started = build_network(config["model"], data)
    ended = evidence.ended or started
    loss = build(build_loss, config["loss"], "loss", data=data)
    x, y = data.part("train")
    x, y = x[:MOST_ROWS], loss.targets(y[:MOST_ROWS])
    before, after = (trace(model, x, y, loss.positive_weight) for model in (started, ended))
    series = evidence.series
    rates = _rates(config["optimizer"], series)
    return Observations(
        Settings(
            optimizer=config["optimizer"]["name"],
            switchable=not any(map(_fixes_optimizer, evidence.overrides)),
            overrides={
                f"optimizer={config['optimizer']['name']}",
                *(f"{group}.{key}={value}" for group in GROUPS for key, value in config[group].items()),
            },
            lr=config["optimizer"]["lr"],
            activation=config["model"]["activation"],
            hidden=config["model"]["hidden"],
            max_epochs=config["trainer"]["max_epochs"],
            batch_size=data.rows_per_step,
            standardizes=data.standardize,
        ),
        series,
        data.steps_per_epoch,
        constant_loss(y, loss.positive_weight),
        perfect_loss(y, loss.positive_weight),
        float(before.loss),
        layer_states(before, started),
        layer_states(after, ended),
        *best_step(ended, after, x, y, loss.positive_weight, rates),
        batch_signal(after, data.rows_per_step),
        _data_state(data),
        evidence.error,
        None if evidence.error is None else first_non_finite(ended, after, x, rates),
    )


def measure_rows(sets: Iterable[ClassificationData]) -> None:
    """Measure the rows of these sets now, so that processes that are forked later need not."""
    missing = [data for data in dict.fromkeys(sets) if data not in _data_states]
    _data_states.update(zip(missing, forked_map(_data_state, missing, WORTH_FORKING), strict=True))


def _data_state(data: ClassificationData) -> DataState:
    """The state of the rows, which the trials of a sweep share."""
    if data not in _data_states:
        y = data.part("train")[1]
        shares = torch.bincount(labels_of(y), minlength=len(data.class_names)).double() / len(y)
        _data_states[data] = data_state(
            {part: data.part(part) for part in PARTS if data.has(part)}, data.feature_names, shares.numpy()
        )
    return _data_states[data]


def read_series(path: Path) -> dict[str, Floats]:
    """Every column of `metrics.csv`, `[epochs]`; no columns where there is no file yet.

    Raises:
        BacklightError: it holds what is not a number.
    """
    if not path.exists():
        return {}
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        return {
            name: np.array([float(row[name] or "nan") for row in rows]) for name in (rows[0] if rows else {})
        }
    except (ValueError, TypeError, csv.Error) as error:
        raise BacklightError(f"{path}: not the metrics of a run: {error}") from error


def _rates(optimizer: Node, series: dict[str, Floats]) -> Tensor:
    """`[2]`: what the optimizer's last steps multiplied gradients, and their signs, with."""
    rates = series.get("lr", np.empty(0))
    lr = float(rates[-1]) if len(rates) else float(optimizer["lr"])
    if optimizer["name"] == "sgd":
        return torch.tensor([lr / (1 - optimizer.get("momentum", 0.0)), 0.0])
    return torch.tensor([0.0, lr])


def _fixes_optimizer(override: str) -> bool:
    """Whether an override may set an option that only this optimizer has."""
    key = override.partition("=")[0].lstrip("+")
    return key == "experiment" or (key.startswith("optimizer.") and key != "optimizer.lr")
