"""From a run to what the diagnosis looks at."""

import csv
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from backlight.assemble import Node, build_loss, build_network
from backlight.backprop.trace import trace
from backlight.checkpoint import TrainedNetwork
from backlight.config import build
from backlight.data.module import ClassificationData, Part
from backlight.diagnosis.measure import best_step, constant_loss, data_state, layer_states, perfect_loss
from backlight.diagnosis.observations import Floats, Observations, Settings
from backlight.errors import BacklightError
from backlight.metrics import labels_of
from backlight.run_folder import RunFolder

GROUPS = ("data", "model", "loss", "optimizer", "trainer")
MOST_ROWS = 2048
"""On which layers are measured: their statistics move by 1/√2048, about 2 %, from sample to sample."""


def examine(
    config: Node, folder: RunFolder, data: ClassificationData, error: str | None = None
) -> Observations:
    """Measure a run on its training rows.

    Args:
        config: of the run, resolved.
        folder: of the run; its last checkpoint is the network as it ended.
        data: of the run, set up.
        error: how the run failed, if it did.

    Raises:
        BacklightError: the last checkpoint or the config cannot be used.
    """
    started = build_network(config["model"], data)
    last = folder.checkpoint("last")
    ended = TrainedNetwork.load(last).model if last.exists() else started
    loss = build(build_loss, config["loss"], "loss", data=data)
    x, y = data.part("train")
    x, y = x[:MOST_ROWS], loss.targets(y[:MOST_ROWS])
    before, after = (trace(model, x, y, loss.positive_weight) for model in (started, ended))
    series = read_series(folder.metrics)
    batch = data.batch_size
    rows = len(data.part("train")[0])
    parts: tuple[Part, ...] = ("train", "val", "test")
    shares = torch.bincount(labels_of(data.part("train")[1]), minlength=len(data.class_names)).double() / rows
    return Observations(
        Settings(
            optimizer=config["optimizer"]["name"],
            switchable=not any(map(_fixes_optimizer, folder.read_overrides())),
            overrides={
                f"optimizer={config['optimizer']['name']}",
                *(f"{group}.{key}={value}" for group in GROUPS for key, value in config[group].items()),
            },
            lr=config["optimizer"]["lr"],
            activation=config["model"]["activation"],
            hidden=config["model"]["hidden"],
            max_epochs=config["trainer"]["max_epochs"],
            standardizes=data.standardize,
        ),
        series,
        1 if batch == "full" else -(-rows // batch),
        constant_loss(y, loss.positive_weight),
        perfect_loss(y, loss.positive_weight),
        float(before.loss),
        layer_states(before, started),
        layer_states(after, ended),
        *best_step(ended, after, x, y, loss.positive_weight, _rates(config["optimizer"], series)),
        data_state(
            {part: data.part(part) for part in parts if data.has(part)}, data.feature_names, shares.numpy()
        ),
        error,
    )


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
