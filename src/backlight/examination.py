"""From a run to what the diagnosis looks at."""

import csv
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor

from backlight.assemble import Node, build_loss, build_network, early_stopping
from backlight.backprop.activations import ACTIVATIONS
from backlight.backprop.sparse import Rows
from backlight.backprop.trace import Trace
from backlight.base_loss import base_loss
from backlight.checkpoint import TrainedNetwork
from backlight.config import build
from backlight.data.module import ClassificationData
from backlight.data.source import PARTS
from backlight.diagnosis.measure import (
    Networks,
    batch_signal,
    best_steps,
    contradicted,
    data_state,
    first_non_finite,
    layer_states,
    output_signal,
    perfect_loss,
)
from backlight.diagnosis.observations import DataState, Floats, LayerState, Observations, Settings, Start
from backlight.errors import BacklightError, printable
from backlight.loss import BinaryCrossEntropy, stacked_weights
from backlight.model import SigmoidMLP
from backlight.probabilities import labels_of, predicted, probabilities
from backlight.processes import forked_map
from backlight.run_folder import RunFolder

GROUPS = ("data", "model", "loss", "optimizer", "trainer")
MOST_ROWS, FEWEST_ROWS = 2048, 256
"""On which layers are measured: their statistics move by 1/√2048, about 2 %, from sample to sample; 6 % with 256."""
WORTH_ALL_ROWS = 2**27
"""Multiply-adds of a pass: of larger networks fewer rows are measured, so that it takes no time to speak of."""

HASTY_EPOCHS, HASTY_STEPS = 5, 100
"""Of patience, and in all, below which chance may have ended a run."""

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
        started: weight and bias of every layer before the first step, where they are known; the config gives the same.
        start: what was measured of these before, if it was.
    """

    overrides: Sequence[str]
    series: dict[str, Floats]
    ended: SigmoidMLP | None
    error: str | None = None
    started: Sequence[Tensor] | None = None
    start: Start | None = None

    @classmethod
    def of(cls, folder: RunFolder, error: str | None = None, start: Start | None = None) -> "Evidence":
        """Read a run folder.

        Raises:
            BacklightError: the last checkpoint or the metrics cannot be read.
        """
        last = folder.checkpoint("last")
        ended = TrainedNetwork.load(last).model if last.exists() else None
        return cls(folder.read_overrides(), read_series(folder.metrics), ended, error, start=start)


Run = tuple[Node, Evidence, ClassificationData]
"""The config of a run, resolved, what it left behind, and its data, set up."""


@torch.no_grad()
def examine_kin(runs: Sequence[Run]) -> list[Observations]:
    """Measure runs on their training rows, all at once.

    Args:
        runs: of networks of one shape, on as many rows each; if these are sparse, only one.

    Raises:
        BacklightError: a config cannot be used.
    """
    config, _, data = runs[0]
    came_to = [
        _began(config, evidence, data) if evidence.ended is None else list(evidence.ended.parameters())
        for config, evidence, data in runs
    ]
    weights = sum(parameter.numel() for parameter in came_to[0])
    losses = [build(build_loss, config["loss"], "loss", data=data) for config, _, data in runs]
    x, y, class_weight = _rows(runs, losses, min(MOST_ROWS, max(FEWEST_ROWS, WORTH_ALL_ROWS // weights)))
    activation = ACTIVATIONS[config["model"]["activation"]]
    end = Networks.of(came_to, activation)
    after = end.trace(x, y, class_weight)
    kept = [_kept_by_clipping(config, after[number]) for number, (config, _, _) in enumerate(runs)]
    of_each = zip(runs, kept, strict=True)
    rates = torch.stack(
        [_rates(config["optimizer"], evidence.series, share) for (config, evidence, _), share in of_each]
    )
    at_end = layer_states(end, after)
    starts = [evidence.start for _, evidence, _ in runs if evidence.start is not None]
    if all(evidence.ended is None for _, evidence, _ in runs):
        starts = _starts(after, at_end)
    elif len(starts) < len(runs):
        began = Networks.of([_began(*run) for run in runs], activation)
        before = began.trace(x, y, class_weight)
        starts = _starts(before, layer_states(began, before))
    longer_steps = cache(partial(best_steps, end, after, x, y, class_weight, rates))
    measured = zip(
        runs,
        [base_loss(data, loss) for (_, _, data), loss in zip(runs, losses, strict=True)],
        perfect_loss(y, class_weight).tolist(),
        starts,
        at_end,
        batch_signal(after, data.rows_per_step).tolist(),
        output_signal(after).tolist(),
        strict=True,
    )
    return [
        Observations(
            _settings(config, evidence, data, kept[number]),
            evidence.series,
            data.steps_per_epoch,
            base,
            floor,
            start.loss,
            start.layers,
            last,
            lambda number=number: longer_steps()[number],  # type: ignore[misc]  # it takes none
            partial(_contradicted, end[number], data),
            of_batch,
            of_output,
            _data_state(data),
            evidence.error,
            None
            if evidence.error is None
            else first_non_finite(end[number], after[number], x[number], rates[number]),
            partial(_balanced_accuracy, end[number], data),
        )
        for number, (
            (config, evidence, data),
            base,
            floor,
            start,
            last,
            of_batch,
            of_output,
        ) in enumerate(measured)
    ]


def _began(config: Node, evidence: Evidence, data: ClassificationData) -> Sequence[Tensor]:
    return evidence.started or list(build_network(config["model"], data).parameters())


def _starts(record: Trace, layers: Sequence[list[LayerState]]) -> list[Start]:
    return list(map(Start, record.loss.tolist(), layers))


def _rows(
    runs: Sequence[Run], losses: Sequence[BinaryCrossEntropy], at_most: int
) -> tuple[Rows, Tensor, Tensor | None]:
    """X and the targets y of the rows to measure on, `[runs, rows, ·]`, and the class weights `[runs, 1, classes]`."""
    inputs, targets = [], []
    for (_, _, data), loss in zip(runs, losses, strict=True):
        x, y = data.part("train")
        inputs.append(x[:at_most])
        targets.append(loss.targets(y[:at_most]))
    tensors = [x for x in inputs if isinstance(x, Tensor)]
    class_weight = stacked_weights(losses, len(runs[0][2].class_names))
    return torch.stack(tensors) if tensors else inputs[0][None], torch.stack(targets), class_weight


@torch.no_grad()
def _contradicted(network: Networks, data: ClassificationData) -> float:
    x, y = data.part("val" if data.has("val") else "train")
    (logits,) = network.logits(x[:MOST_ROWS][None])
    return contradicted(probabilities(logits), labels_of(y[:MOST_ROWS]))


@torch.no_grad()
def _balanced_accuracy(network: Networks, data: ClassificationData) -> float:
    """Of training rows."""
    x, y = data.part("train")
    (logits,) = network.logits(x[:MOST_ROWS][None])
    labels = labels_of(y[:MOST_ROWS])
    rows = labels.bincount()
    found = labels.bincount((predicted(probabilities(logits)) == labels).double())
    return float((found / rows)[rows > 0].mean())


def _kept_by_clipping(config: Node, record: Trace) -> float:
    """The share of a step of SGD that clipping leaves; the others make as long ones of what it leaves."""
    clip = config["trainer"].get("gradient_clip_val")
    if clip is None or config["optimizer"]["name"] != "sgd":
        return 1.0
    gradients = [
        gradient for layer in record.layers for gradient in (layer.weight_gradient, layer.bias_gradient)
    ]
    norm = torch.nn.utils.get_total_norm(gradients).item()
    return clip / norm if norm > clip else 1.0


def _settings(config: Node, evidence: Evidence, data: ClassificationData, kept: float) -> Settings:
    name = config["optimizer"]["name"]
    return Settings(
        optimizer=name,
        switchable=not any(map(_fixes_optimizer, evidence.overrides)),
        overrides=_as_it_is(config),
        lr=config["optimizer"]["lr"],
        activation=config["model"]["activation"],
        hidden=config["model"]["hidden"],
        max_epochs=config["trainer"]["max_epochs"],
        batch_size=data.rows_per_step,
        standardizes=bool(data.standardize),
        momentum=config["optimizer"].get("momentum", 0.0),
        weight_decay=config["optimizer"].get("weight_decay", 0.0),
        weighs_classes=config["loss"].get("class_weight") is not None,
        stopped_hastily=_stopped_hastily(config, evidence.series, data.steps_per_epoch),
        kept_by_clipping=kept,
        constant_rate=_constant_rate(config, evidence.overrides),
    )


def _constant_rate(config: Node, overrides: Sequence[str]) -> str:
    """What keeps the rate what it is; options of the schedule that were set by hand would not fit another one."""
    keys = [override.partition("=")[0].lstrip("+") for override in overrides]
    if not any(key == "experiment" or key.startswith("scheduler.") for key in keys):
        return "scheduler=constant"
    unchanging = {
        "cosine": "scheduler.warmup_epochs=0 scheduler.final_fraction=1.0",
        "plateau": f"scheduler.patience={config['trainer']['max_epochs']}",
    }
    return unchanging.get(config["scheduler"]["name"], "scheduler.factor=1.0")


def _as_it_is(config: Node) -> set[str]:
    """The overrides that would change nothing."""
    stopping = config["callbacks"].get("early_stopping")
    nodes = {**{group: config[group] for group in GROUPS}, "callbacks.early_stopping": stopping or {}}
    return {
        f"optimizer={config['optimizer']['name']}",
        *(["callbacks=early_stopping"] if stopping else []),
        *(
            f"{group}.{key}={value}".replace(", ", ",")
            for group, node in nodes.items()
            for key, value in node.items()
        ),
    }


def _stopped_hastily(config: Node, series: Mapping[str, Floats], steps_per_epoch: int) -> bool:
    """Whether early stopping ended a run with little patience, after few steps, or while the loss still fell a little."""
    node = config["callbacks"].get("early_stopping")
    if node is None:
        return False
    stopping = build(early_stopping, node, "callbacks.early_stopping")
    losses = series.get(stopping.monitor, np.empty(0))
    if not 0 < len(losses) < config["trainer"]["max_epochs"]:
        return False
    best, waited = math.inf, 0
    for loss in losses:
        best, waited = (loss, 0) if loss + abs(stopping.min_delta) < best else (best, waited + 1)
    is_its_end = waited >= max(1, stopping.patience)
    is_soon = stopping.patience < HASTY_EPOCHS or len(losses) * steps_per_epoch < HASTY_STEPS
    return is_its_end and bool(is_soon or losses[-1] == losses.min())


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
            {part: data.part(part) for part in PARTS if data.has(part)},
            list(map(printable, data.feature_names)),
            shares.numpy(),
            of_columns=data.has_columns,
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


def best_epoch(series: Mapping[str, Floats]) -> int:
    """The index of the epoch that `best.ckpt` keeps, in what `read_series` returns: that of the lowest validation loss, or
    the last where none is known.
    """
    losses = series.get("val/loss", np.empty(0))
    return int(np.nanargmin(losses)) if np.isfinite(losses).any() else len(next(iter(series.values()))) - 1


def _rates(optimizer: Node, series: dict[str, Floats], kept: float) -> Tensor:
    """`[2]`: what the optimizer's last steps multiplied gradients, and their signs, with."""
    rates = series.get("lr", np.empty(0))
    lr = float(rates[-1]) if len(rates) else float(optimizer["lr"])
    if optimizer["name"] == "sgd":
        return torch.tensor([kept * lr / (1 - optimizer.get("momentum", 0.0)), 0.0])
    return torch.tensor([0.0, lr])


def _fixes_optimizer(override: str) -> bool:
    """Whether an override may set an option that only this optimizer has."""
    key = override.partition("=")[0].lstrip("+")
    return key == "experiment" or (key.startswith("optimizer.") and key != "optimizer.lr")
