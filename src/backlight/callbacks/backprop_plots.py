"""Pictures of the error contributions of every neuron.

Each is one matplotlib axes: an axes per layer would cost more time than a short training.
"""

import math
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
HIGHEST_BAND, GAP = 90, 6  # pixels of a layer's band in the heat map, and between two
FAINTEST = 0.08  # of the strongest weight: thinner edges cannot be seen
MOST_EDGES = 60  # between two layers: of more, the eye follows none


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

    @property
    def shown(self) -> list[int]:
        """How many features and how many neurons of every layer."""
        return [self.weights[0].shape[1], *(len(weight) for weight in self.weights)]


def heat_map(steps: Sequence[int], layers: Sequence[tuple[str, Floats]]) -> "Figure | None":
    """Mean |delta| of every neuron over time: one band per layer, on one colour scale, the output on top.

    Args:
        steps: of the columns, ascending.
        layers: name and values `[neurons, columns]`, first layer first.

    Returns None where no layer has any error.
    """
    from matplotlib import colormaps
    from matplotlib.figure import Figure

    norm = _scale([values for _, values in layers])
    if norm is None:
        return None
    bands, centres, top = [], [], 0
    band = min(HIGHEST_BAND, max(36, 400 // len(layers)))
    for _, values in reversed(layers):
        rows = np.arange(band) * len(values) // band  # the first neuron on top
        bands += [colormaps["magma"](norm(np.nan_to_num(values)))[rows], np.ones((GAP, len(steps), 4))]
        centres.append(top + band / 2)
        top += band + GAP
    height = 0.9 + top / 100
    figure = Figure(figsize=(8, height), dpi=100)
    axes = figure.add_axes((0.14, 0.55 / height, 0.72, 1 - 0.9 / height))
    axes.imshow(np.concatenate(bands[:-1]), aspect="auto", interpolation="nearest")
    axes.set_yticks(centres, [f"{name}\n{_neurons(len(values))}" for name, values in reversed(layers)])
    columns = np.unique(np.linspace(0, len(steps) - 1, 7).round().astype(int))
    axes.set_xticks(columns, [f"{steps[column]:,}" for column in columns])
    axes.set(xlabel="step", title="error contribution of every neuron")
    axes.spines[:].set_visible(False)
    _colour_bar(axes, norm, "magma")
    return figure


def network(moments: Sequence[Moment], names: Sequence[str], sizes: Sequence[int]) -> "Figure | None":
    """The network, drawn once per moment: neurons coloured by mean |delta|, edges by weight.

    Args:
        moments: in time, with the same neurons.
        names: of the columns: the features and every layer.
        sizes: how many neurons each column has, shown or not.

    Returns None where no neuron has any error.
    """
    from matplotlib.figure import Figure

    norm = _scale([values.numpy() for moment in moments for values in moment.mean_abs_delta])
    if norm is None:
        return None
    across = len(names) <= 5  # a deep network is wide itself: its moments stand below each other
    shown = moments[0].shown
    wide, high = len(names) + 0.3, max(shown) + 3.5
    columns, rows = (len(moments), 1) if across else (1, len(moments))
    size = (1.2 + 1.1 * wide * columns, 0.5 + max(2.2, 0.3 * high) * rows)
    figure = Figure(figsize=size, dpi=100)
    axes = figure.add_axes((0.01, 0.01, 1 - 1.2 / size[0], 1 - 0.4 / size[1]))
    for index, moment in enumerate(moments):
        right, down = (index * wide, 0.0) if across else (0.0, index * high)
        _draw(axes, moment, norm, right, down)
        axes.text(
            right + (len(names) - 1) / 2, down - max(shown) / 2 - 0.8, f"step {moment.step:,}", ha="center"
        )
        for column, (name, drawn, every) in enumerate(zip(names, shown, sizes, strict=True)):
            label = name if drawn == every else f"{name}\n{drawn} of {every:,}"
            axes.text(
                right + column, down + max(shown) / 2 + 0.2, label, ha="center", va="top", fontsize="small"
            )
    axes.set(
        xlim=(-0.6, columns * wide - 0.7), ylim=(rows * high - max(shown) / 2 - 1.5, -max(shown) / 2 - 1.2)
    )
    axes.set_axis_off()
    axes.set_title("neurons: error contribution · edges: weight (red > 0 > blue)", fontsize="medium")
    _colour_bar(axes, norm, "viridis")
    return figure


def _draw(axes: "Axes", moment: Moment, norm: "LogNorm", right: float, down: float) -> None:
    from matplotlib.collections import LineCollection

    heights = [down + np.arange(count) - (count - 1) / 2 for count in moment.shown]
    for column, weight in enumerate(moment.weights):
        weights = weight.numpy()
        strength = np.abs(weights) / max(float(np.abs(weights).max()), np.finfo(np.float32).tiny)
        nth = np.sort(strength, axis=None)[-min(MOST_EDGES, strength.size)]
        to, source = np.nonzero(strength >= max(FAINTEST, nth))
        strength = strength[to, source]
        x = np.full(len(to), right + column)
        ends = np.stack([x, heights[column][source], x + 1, heights[column + 1][to]], axis=1)
        colours = np.where(weights[to, source][:, None] > 0, (0.8, 0.1, 0.1), (0.1, 0.2, 0.8))
        axes.add_collection(
            LineCollection(
                list(ends.reshape(-1, 2, 2)),
                colors=np.concatenate([colours, 0.1 + 0.8 * strength[:, None]], axis=1),
                linewidths=list(0.3 + 1.7 * strength),
                zorder=1,
            ),
            autolim=False,
        )
    neurons = np.concatenate([values.numpy() for values in moment.mean_abs_delta])
    axes.scatter(
        np.repeat(right + np.arange(1, len(heights)), moment.shown[1:]),
        np.concatenate(heights[1:]),
        c=np.nan_to_num(neurons),
        norm=norm,
        cmap="viridis",
        s=80,
        edgecolors="black",
        linewidths=0.6,
        zorder=2,
    )
    axes.scatter(
        np.full(len(heights[0]), right),
        heights[0],
        s=35,
        marker="s",
        color="lightgrey",
        edgecolors="black",
        zorder=2,
    )


def _colour_bar(axes: "Axes", norm: "LogNorm", cmap: str) -> None:
    from matplotlib.cm import ScalarMappable
    from matplotlib.ticker import FixedLocator

    figure = axes.get_figure(root=True)
    assert figure is not None
    box, width = axes.get_position(), figure.get_figwidth()
    place = figure.add_axes((1 - 0.9 / width, box.y0 + 0.02, 0.15 / width, box.height - 0.04))
    # Powers of ten in plain text: matplotlib's own log ticks take as long as all the rest of a picture.
    powers = range(math.ceil(math.log10(norm.vmin or 1)), math.floor(math.log10(norm.vmax or 1)) + 1)
    ticks = [10.0**power for power in powers] or [norm.vmin or 1]
    bar = figure.colorbar(ScalarMappable(norm, cmap), cax=place, ticks=FixedLocator(ticks), format="%.0e")
    bar.ax.minorticks_off()
    bar.set_label("mean |delta|", fontsize="small")
    place.tick_params(labelsize="small")


def _neurons(count: int) -> str:
    return "1 neuron" if count == 1 else f"{count} neurons"


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
