"""Pictures of the error contributions of every neuron.

All is put on the figure itself, at pixels: matplotlib's axes would cost more time than a short training.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

if TYPE_CHECKING:
    from matplotlib.colors import LogNorm
    from matplotlib.figure import Figure
    from matplotlib.transforms import Affine2D

Floats = NDArray[np.float32]

DECADES = 8  # of the colour scale at most: what is smaller looks like nothing
DPI = 100
HEAT_MAP_WIDTH, HIGHEST_BAND, GAP = 576, 90, 6  # pixels: of all steps, of a layer's band, between two
FAINTEST = 0.08  # of the strongest weight: thinner edges cannot be seen
MOST_EDGES = 60  # between two layers: of more, the eye follows none
COLUMN, ROW, LOWEST = (
    110,
    30,
    220,
)  # pixels: from layer to layer, from neuron to neuron, of a network at least


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

    norm = _scale([values for _, values in layers])
    if norm is None:
        return None
    left, bottom, above = 112, 55, 35
    band = min(HIGHEST_BAND, max(36, 400 // len(layers)))
    high = len(layers) * (band + GAP) - GAP
    figure = _figure(800, bottom + high + above)
    column = np.arange(HEAT_MAP_WIDTH) * len(steps) // HEAT_MAP_WIDTH
    for number, (name, values) in enumerate(layers):
        low = bottom + number * (band + GAP)
        row = np.arange(band) * len(values) // band  # the first neuron on top
        pixels = colormaps["magma"](norm(np.nan_to_num(values)), bytes=True)[row[:, None], column]
        figure.figimage(pixels, left, low, origin="upper")
        _write(figure, left - 8, low + band / 2, f"{name}\n{_neurons(len(values))}", ha="right", va="center")
    shown = np.unique(np.linspace(0, len(steps) - 1, 7).round().astype(int))
    x = left + (shown + 0.5) * HEAT_MAP_WIDTH / len(steps)
    for place, number in zip(x, shown, strict=True):
        _write(figure, place, bottom - 7, f"{steps[number]:,}", ha="center", va="top")
    _draw_lines(figure, [[(place, bottom - 1), (place, bottom - 5)] for place in x])
    middle = left + HEAT_MAP_WIDTH / 2
    _write(figure, middle, 8, "step", ha="center", va="bottom")
    _write(
        figure, middle, bottom + high + 10, "error contribution of every neuron", ha="center", size="large"
    )
    _colour_bar(figure, norm, "magma", bottom + 8, high - 16)
    return figure


def network(moments: Sequence[Moment], names: Sequence[str], sizes: Sequence[int]) -> "Figure | None":
    """The network, drawn once per moment: neurons coloured by mean |delta|, edges by weight.

    Args:
        moments: in time, with the same neurons.
        names: of the columns: the features and every layer.
        sizes: how many neurons each column has, shown or not.

    Returns None where no neuron has any error.
    """
    from matplotlib.transforms import Affine2D

    norm = _scale([values.numpy() for moment in moments for values in moment.mean_abs_delta])
    if norm is None:
        return None
    across = len(names) <= 5  # a deep network is wide itself: its moments stand below each other
    shown = moments[0].shown
    neurons = max(shown)
    row = max(ROW, LOWEST / (neurons + 3.5))
    wide, high = (len(names) + 0.3) * COLUMN, (neurons + 3.5) * row
    columns, rows = (len(moments), 1) if across else (1, len(moments))
    figure = _figure(int(wide * columns) + 110, int(high * rows) + 40)
    for index, moment in enumerate(moments):
        right, down = (index, 0) if across else (0, index)
        left, top = 76 + right * wide, high * (rows - down)
        # From columns and neurons, whose middle is 0, to pixels.
        place = Affine2D().scale(COLUMN, -row).translate(left, top - 36 - neurons * row / 2)
        _draw(figure, moment, norm, place)
        _write(figure, left + (len(names) - 1) * COLUMN / 2, top - 12, f"step {moment.step:,}", ha="center")
        for column, (name, drawn, every) in enumerate(zip(names, shown, sizes, strict=True)):
            label = name if drawn == every else f"{name}\n{drawn} of {every:,}"
            below = top - 42 - neurons * row
            _write(figure, left + column * COLUMN, below, label, ha="center", va="top", size="small")
    explained = "neurons: error contribution · edges: weight (red > 0 > blue)"
    _write(figure, 10 + wide * columns / 2, high * rows + 18, explained, ha="center", size="medium")
    _colour_bar(figure, norm, "viridis", 24, int(high * rows) - 20)
    return figure


def _draw(figure: "Figure", moment: Moment, norm: "LogNorm", place: "Affine2D") -> None:
    from matplotlib.collections import CircleCollection, LineCollection, RegularPolyCollection

    heights = [np.arange(count) - (count - 1) / 2 for count in moment.shown]
    for column, weight in enumerate(moment.weights):
        weights = weight.numpy()
        strength = np.abs(weights) / max(float(np.abs(weights).max()), np.finfo(np.float32).tiny)
        nth = np.sort(strength, axis=None)[-min(MOST_EDGES, strength.size)]
        to, source = np.nonzero(strength >= max(FAINTEST, nth))
        strength = strength[to, source]
        x = np.full(len(to), column)
        ends = np.stack([x, heights[column][source], x + 1, heights[column + 1][to]], axis=1)
        colours = np.where(weights[to, source][:, None] > 0, (0.8, 0.1, 0.1), (0.1, 0.2, 0.8))
        figure.add_artist(
            LineCollection(
                list(ends.reshape(-1, 2, 2)),
                colors=np.concatenate([colours, 0.1 + 0.8 * strength[:, None]], axis=1),
                linewidths=list(0.3 + 1.7 * strength),
                transform=place,
                zorder=1,
            )
        )
    neurons = CircleCollection(
        [80],
        offsets=np.stack(
            [np.repeat(np.arange(1, len(heights)), moment.shown[1:]), np.concatenate(heights[1:])], axis=1
        ),
        offset_transform=place,
        norm=norm,
        cmap="viridis",
        edgecolors="black",
        linewidths=0.6,
        zorder=2,
    )
    neurons.set_array(np.nan_to_num(np.concatenate([values.numpy() for values in moment.mean_abs_delta])))
    features = RegularPolyCollection(
        4,
        rotation=math.pi / 4,
        sizes=[55],
        offsets=np.stack([np.zeros(len(heights[0])), heights[0]], axis=1),
        offset_transform=place,
        facecolors="lightgrey",
        edgecolors="black",
        zorder=2,
    )
    figure.add_artist(neurons)
    figure.add_artist(features)


def _colour_bar(figure: "Figure", norm: "LogNorm", cmap: str, bottom: int, high: int) -> None:
    from matplotlib import colormaps

    left, wide = int(figure.bbox.width) - 90, 15
    colours = colormaps[cmap](np.linspace(1, 0, high), bytes=True)
    figure.figimage(np.repeat(colours[:, None], wide, axis=1), left, bottom)
    # Powers of ten in plain text: matplotlib's own log ticks take as long as all the rest of a picture.
    powers = range(math.ceil(math.log10(norm.vmin or 1)), math.floor(math.log10(norm.vmax or 1)) + 1)
    ticks = [10.0**power for power in powers] or [norm.vmin or 1]
    heights = [bottom + float(norm(tick)) * high for tick in ticks]
    for tick, height in zip(ticks, heights, strict=True):
        _write(figure, left + wide + 9, height, f"{tick:.0e}", va="center", size="small")
    _draw_lines(figure, [[(left + wide, height), (left + wide + 4, height)] for height in heights])
    _write(
        figure,
        left + 78,
        bottom + high / 2,
        "mean |delta|",
        va="center",
        rotation=90,
        size="small",
        ha="right",
    )


def _figure(wide: int, high: int) -> "Figure":
    """Of so many pixels."""
    from matplotlib.figure import Figure

    return Figure(figsize=(wide / DPI, high / DPI), dpi=DPI)


def _write(figure: "Figure", x: float, y: float, text: str, **how: Any) -> None:
    from matplotlib.transforms import IdentityTransform

    figure.text(x, y, text, transform=IdentityTransform(), **how)


def _draw_lines(figure: "Figure", lines: Sequence[Sequence[tuple[float, float]]]) -> None:
    from matplotlib.collections import LineCollection
    from matplotlib.transforms import IdentityTransform

    figure.add_artist(LineCollection(lines, colors="black", linewidths=0.8, transform=IdentityTransform()))


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
