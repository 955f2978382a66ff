"""Entry point: loss and metrics of a trained run, on its own rows or on other data."""

from dataclasses import replace
from typing import Literal

import numpy as np
import torch
from omegaconf import DictConfig
from rich import get_console
from rich.table import Table

from backlight.accelerator import Accelerator, device_of
from backlight.assemble import Node, build_data, rows_of_run
from backlight.checkpoint import TrainedNetwork
from backlight.config import build, plain
from backlight.data.encoding import tensors
from backlight.data.source import Labelled, Part
from backlight.errors import BacklightError
from backlight.metrics import EpochMetrics, group_metrics, number
from backlight.ranges import Natural
from backlight.run_folder import RunFolder


def run(config: DictConfig) -> dict[str, float]:
    """Print and return the metrics that `conf/evaluate.yaml` asks for.

    Raises:
        BacklightError: the user can mend it.
    """
    return build(evaluate, plain(config), "")


def evaluate(
    *,
    run: str,
    checkpoint: Literal["best", "last"] = "best",
    part: Part = "test",
    data: Node | None = None,
    seed: Natural = 0,
    accelerator: Accelerator = "auto",
) -> dict[str, float]:
    """Loss and every metric of a trained network.

    Args:
        run: its run folder.
        checkpoint: which of its checkpoints.
        part: rows of the run's own data; with `data` all rows are taken.
        data: a `data` node that names other rows, of the same columns and classes.
        seed: for data that is generated.
        accelerator: where to compute.

    Raises:
        BacklightError: the run or the rows cannot be used.
    """
    folder = RunFolder(run)
    network = TrainedNetwork.load(folder.checkpoint(checkpoint))
    device = device_of(accelerator, "accelerator")
    if data is None:
        of_run, x, y = rows_of_run(folder, checkpoint, part)
        groups, judged_by = of_run.groups(part), of_run.judged_by
    else:
        other = _other_rows(data, seed, network)
        (x, y), groups, judged_by = tensors(other, network.encoder), other.groups, other.judged_by
    network.model.to(device)
    logits = network.logits(x)
    metrics = EpochMetrics(network.loss)
    metrics.update(logits, y)
    found = metrics.compute()
    if groups is not None and judged_by is not None:
        found |= group_metrics(logits, y, torch.from_numpy(groups), judged_by)
    values = {name: number(value) for name, value in sorted(found.items())}
    _show(values, len(x))
    return values


def _other_rows(node: Node, seed: int, network: TrainedNetwork) -> Labelled:
    source = build_data(node, run_seed=seed).load()
    unknown = [name for name in source.class_names if name not in network.class_names]
    if unknown:
        raise BacklightError(
            f"data: holds the class '{unknown[0]}'; the model knows {', '.join(network.class_names)}"
        )
    codes = np.array([network.class_names.index(name) for name in source.class_names])
    labels = codes[source.labels]
    if source.kind != network.kind:
        raise BacklightError(
            f"data.source={node.get('source')}: gives {source.kind}; the run learned {network.kind}"
        )
    return replace(source, labels=labels, class_names=network.class_names)


def _show(values: dict[str, float], rows: int) -> None:
    table = Table(title=f"metrics on {rows:,} rows", title_justify="left", show_header=False)
    for name, value in values.items():
        table.add_row(name, f"{value:.4f}")
    get_console().print(table)
