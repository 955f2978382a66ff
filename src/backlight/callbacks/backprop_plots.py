"""Pictures of the error contributions of every neuron."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import LogNorm
    from matplotlib.figure import Figure

Floats = NDArray[np.float32]

DECADES = 8  # of the colour scale at most: what is smaller looks like nothing


@dataclass(frozen=True)
class Moment:
    """Some neurons of every layer at one step.

    Attributes:
        step: before which it was.
        weights: per layer `[out, in]`, of the neurons shown.
        mean_abs_delta: per layer `[out]`.
    """

    step: int
    weights: list[Tensor]
    mean_abs_delta: list[Tensor]


def heat_map(
    steps: Sequence[int], layers: Sequence[tuple[str, Floats]], *, log_time: bool
) -> "Figure | None":
    """Mean |delta| of every neuron over time, one panel per layer on one colour scale, the output on top.

    Args:
        steps: of the columns, ascending.
        layers: name and values `[neurons, columns]`, first layer first.
        log_time: whether the steps are spaced evenly on a log scale.

    Returns None where no layer has any error.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import FixedLocator, MaxNLocator

    norm = _scale([values for _, values in layers])
    if norm is None:
        return None
    figure = Figure(figsize=(8, 1.2 + 1.3 * len(layers)), dpi=100, layout="constrained")
    panels = np.atleast_1d(figure.subplots(len(layers), sharex=True))
    first, last = steps[0] + log_time, steps[-1] + log_time
    edges = np.array([*(step + log_time for step in steps), last + max(1, (last - first) / len(steps))])
    for axes, (name, values) in zip(panels, reversed(layers), strict=True):
        rows = np.arange(len(values) + 1) - 0.5
        image = axes.pcolormesh(edges, rows, values, norm=norm, cmap="magma", rasterized=True)
        axes.set(ylabel=f"{name}\nneuron")
        axes.yaxis.set_major_locator(
            MaxNLocator("auto", integer=True) if len(values) > 1 else FixedLocator([0])
        )
        if log_time:
            axes.set_xscale("log")
    panels[-1].set(xlabel="step + 1" if log_time else "step")
    figure.suptitle("error contribution of every neuron")
    figure.colorbar(image, ax=list(panels), label="mean |delta|")
    return figure


def network(moments: Sequence[Moment], names: Sequence[str], sizes: Sequence[int]) -> "Figure | None":
    """The network, drawn once per moment: neurons coloured by mean |delta|, edges by weight.

    Args:
        moments: in time, with the same neurons.
        names: of the columns: the features and every layer.
        sizes: how many neurons each column has, shown or not.

    Returns None where no neuron has any error.
    """
    from matplotlib.cm import ScalarMappable
    from matplotlib.figure import Figure

    norm = _scale([values.numpy() for moment in moments for values in moment.mean_abs_delta])
    if norm is None:
        return None
    tallest = max(moments[0].weights[0].shape[1], *(len(weights) for weights in moments[0].weights))
    width, height = max(3.0, 1.1 * len(names)), max(2.0, 0.32 * tallest)
    across = len(names) <= 5  # a deep network is wide itself: its moments stand below each other
    rows, columns = (1, len(moments)) if across else (len(moments), 1)
    size = (1.2 + width * columns, 0.5 + (height + 0.6) * rows)
    figure = Figure(figsize=size, dpi=100, layout="constrained")
    panels = np.atleast_1d(figure.subplots(rows, columns))
    for axes, moment in zip(panels, moments, strict=True):
        _draw(axes, moment, norm)
        axes.set_title(f"step {moment.step:,}")
        shown = [moment.weights[0].shape[1], *(len(weights) for weights in moment.weights)]
        labels = [
            name if drawn == size else f"{name}\n{drawn} of {size:,}"
            for name, drawn, size in zip(names, shown, sizes, strict=True)
        ]
        axes.set_xticks(range(len(names)), labels, fontsize="small")
    figure.colorbar(ScalarMappable(norm, "viridis"), ax=list(panels), label="mean |delta|")
    figure.suptitle("neurons: error contribution · edges: weight (red > 0 > blue)", fontsize="medium")
    return figure


def _draw(axes: "Axes", moment: Moment, norm: "LogNorm") -> None:
    from matplotlib.collections import LineCollection

    counts = [moment.weights[0].shape[1], *(len(weights) for weights in moment.weights)]
    heights = [np.arange(count) - (count - 1) / 2 for count in counts]
    for column, weight in enumerate(moment.weights):
        weights = weight.numpy()
        left, right = np.meshgrid(heights[column], heights[column + 1])
        ends = np.stack([np.stack([np.full_like(left, column), left], -1),
                         np.stack([np.full_like(right, column + 1), right], -1)], axis=-2)  # fmt: skip
        strength = np.abs(weights) / max(float(np.abs(weights).max()), np.finfo(np.float32).tiny)
        colours = np.where(weights[..., None] > 0, (0.8, 0.1, 0.1), (0.1, 0.2, 0.8))
        rgba = np.concatenate([colours, 0.1 + 0.8 * strength[..., None]], axis=-1)
        axes.add_collection(
            LineCollection(
                list(ends.reshape(-1, 2, 2)),
                colors=list(rgba.reshape(-1, 4)),
                linewidths=list(0.3 + 1.7 * strength.ravel()),
                zorder=1,
            )
        )
        axes.scatter(
            np.full(counts[column + 1], column + 1),
            heights[column + 1],
            c=np.maximum(moment.mean_abs_delta[column].numpy(), norm.vmin or 0),
            norm=norm,
            cmap="viridis",
            s=90,
            edgecolors="black",
            linewidths=0.6,
            zorder=2,
        )
    axes.scatter(
        np.zeros(counts[0]), heights[0], s=40, marker="s", color="lightgrey", edgecolors="black", zorder=2
    )
    axes.set(xlim=(-0.4, len(counts) - 0.6), yticks=[])
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)


def _scale(values: Sequence[Floats]) -> "LogNorm | None":
    """One log scale for all values; None where none is above 0."""
    from matplotlib.colors import LogNorm

    everything = np.concatenate([array.ravel() for array in values])
    positive = everything[np.isfinite(everything) & (everything > 0)]
    if not len(positive):
        return None
    largest = float(positive.max())
    smallest = max(float(positive.min()), largest * 10.0**-DECADES)
    return LogNorm(smallest if smallest < largest else largest / 10, largest, clip=True)
