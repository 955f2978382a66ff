"""Pictures of the error contributions of every neuron, as PNG.

Drawn by Pillow: matplotlib's figures would cost four times as much, which in a short training counts.
"""

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from torch import Tensor

from backlight.callbacks.lettering import font

Floats = NDArray[np.float32]
Colours = NDArray[np.uint8]

DECADES = 8  # of the colour scale at most: what is smaller looks like nothing
SMALL, MEDIUM, LARGE = 12, 14, 17  # pixels: of letters
HEAT_MAP_WIDTH, HIGHEST_BAND, GAP = 576, 90, 6  # pixels: of all steps, of a layer's band, between two
FAINTEST = 0.08  # of the strongest weight: thinner edges cannot be seen
MOST_EDGES = 50  # between two layers: of more, the eye follows none
COLUMN, ROW, LOWEST = 92, 26, 220  # pixels: between layers, between neurons, of a network at least
RADIUS, HALF_SIDE = 7, 4  # pixels: of a neuron, of a feature
EXPLANATION = 450  # pixels: of the line above the network
MARGIN = 10  # pixels: of a neuron's middle from the edge
FINE = 2  # the network is drawn so many times as large, then reduced, which smooths its lines
RUN_LENGTHS = 3  # zlib's Z_RLE: three quarters of the time of its usual way, for what is mostly white
POSITIVE, NEGATIVE = (204, 25, 25), (25, 51, 204)


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

    @property
    def numbers(self) -> Tensor:
        """All weights and deltas in a row, which `of` takes."""
        return torch.cat([tensor.flatten() for tensor in (*self.weights, *self.mean_abs_delta)])

    @classmethod
    def of(cls, step: int, shown: Sequence[int], numbers: Tensor) -> "Moment":
        """From what `shown` and `numbers` gave."""
        shapes = list(zip(shown[1:], shown[:-1], strict=True))
        *weights, deltas = numbers.split([*map(math.prod, shapes), sum(shown[1:])])
        return cls(
            step,
            [weight.view(shape) for weight, shape in zip(weights, shapes, strict=True)],
            list(deltas.split(shown[1:])),
        )


class _Scale(NamedTuple):
    """A log scale of colours."""

    smallest: float
    largest: float
    colours: Colours

    def place(self, values: Floats) -> Floats:
        """Where on the scale values are, from 0 to 1; NaN as the smallest."""
        decades = np.log(np.fmax(values, self.smallest) / self.smallest)
        place: Floats = np.minimum(decades / math.log(self.largest / self.smallest), 1)
        return place

    def __call__(self, values: Floats) -> Colours:
        """The colours of values, `[..., 3]`."""
        colours: Colours = self.colours[np.rint(self.place(values) * (len(self.colours) - 1)).astype(int)]
        return colours


def heat_map(steps: Sequence[int], layers: Sequence[tuple[str, Floats]]) -> bytes | None:
    """Mean |delta| of every neuron over time: one band per layer, on one colour scale, the output on top.

    Args:
        steps: of the columns, ascending.
        layers: name and values `[neurons, columns]`, first layer first.

    Returns None where no layer has any error.
    """
    scale = _scale([values for _, values in layers], "magma")
    if scale is None:
        return None
    left, below, above = 112, 55, 35
    band = min(HIGHEST_BAND, max(36, 400 // len(layers)))
    high = len(layers) * (band + GAP) - GAP
    picture = Image.new("RGB", (800, above + high + below), "white")
    draw = ImageDraw.Draw(picture)
    for number, (name, values) in enumerate(reversed(layers)):
        top = above + number * (band + GAP)
        cells = Image.fromarray(scale(values))  # the first neuron on top
        picture.paste(cells.resize((HEAT_MAP_WIDTH, band), Image.Resampling.NEAREST), (left, top))
        _write(draw, left - 8, top + band / 2, f"{name}\n{_neurons(len(values))}", "rm")
    bottom = above + high
    shown = np.unique(np.linspace(0, len(steps) - 1, 7).round().astype(int))
    for number in shown:
        x = left + (number + 0.5) * HEAT_MAP_WIDTH / len(steps)
        draw.line([(x, bottom + 1), (x, bottom + 5)], "black")
        _write(draw, x, bottom + 8, f"{steps[number]:,}", "ma")
    middle = left + HEAT_MAP_WIDTH / 2
    _write(draw, middle, bottom + 47, "step", "ms")
    _write(draw, middle, above - 11, "error contribution of every neuron", "ms", LARGE)
    _draw_scale(picture, scale, above, high)
    return _png(picture, scale.colours)


def network(moments: Sequence[Moment], names: Sequence[str], sizes: Sequence[int]) -> bytes | None:
    """The network, drawn once per moment: neurons coloured by mean |delta|, edges by weight.

    Args:
        moments: in time, with the same neurons.
        names: of the columns: the features and every layer.
        sizes: how many neurons each column has, shown or not.

    Returns None where no neuron has any error.
    """
    scale = _scale([values.numpy() for moment in moments for values in moment.mean_abs_delta], "viridis")
    if scale is None:
        return None
    across = len(names) <= 5  # a deep network is wide itself: its moments stand below each other
    shown = moments[0].shown
    neurons = max(shown)
    row = max(ROW, LOWEST / (neurons + 3.5))
    wide, high = int((len(names) + 0.3) * COLUMN), int((neurons + 3.5) * row)
    columns, rows = (len(moments), 1) if across else (1, len(moments))
    width = max(wide * columns, EXPLANATION)
    picture = Image.new("RGB", (width + 110, high * rows + 40), "white")
    draw = ImageDraw.Draw(picture)
    for number, moment in enumerate(moments):
        left, top = (76 + wide * number, 40) if across else (76, 40 + high * number)
        picture.paste(_draw(moment, scale, row), (left - MARGIN, top + 36))
        _write(draw, left + (len(names) - 1) * COLUMN / 2, top + 12, f"step {moment.step:,}", "ms")
        for column, (name, drawn, every) in enumerate(zip(names, shown, sizes, strict=True)):
            label = name if drawn == every else f"{name}\n{drawn} of {every:,}"
            _write(draw, left + column * COLUMN, top + 42 + neurons * row, label, "ma", SMALL)
    explained = "neurons: error contribution · edges: weight (red > 0 > blue)"
    _write(draw, 10 + width / 2, 22, explained, "ms")
    _draw_scale(picture, scale, 40, high * rows - 20)
    edges = [_ramp(colour, (255, 255, 255)) for colour in (POSITIVE, NEGATIVE)]
    return _png(picture, np.concatenate([scale.colours, *edges]))


def _draw(moment: Moment, scale: _Scale, row: float) -> Image.Image:
    """The neurons and edges of a moment, neurons so far from each other; the first are `MARGIN` from the left."""
    most = max(moment.shown)
    x = [FINE * (MARGIN + column * COLUMN) for column in range(len(moment.shown))]
    y = [(FINE * row * ((most + 1 - count) / 2 + np.arange(count))).tolist() for count in moment.shown]
    fine = Image.new("RGB", (x[-1] + FINE * MARGIN, int(FINE * row * (most + 1))), "white")
    draw = ImageDraw.Draw(fine)
    for column, weight in enumerate(moment.weights):
        weights = np.nan_to_num(weight.numpy())
        strength = np.abs(weights) / max(float(np.abs(weights).max()), np.finfo(np.float32).tiny)
        ascending = np.argsort(strength, axis=None)  # the strongest are drawn over the others
        faintest = max(FAINTEST, strength.flat[ascending[-min(MOST_EDGES, strength.size)]])
        to, source = np.unravel_index(ascending[strength.flat[ascending] >= faintest], strength.shape)
        strength = strength[to, source][:, None]
        colours = np.where(weights[to, source][:, None] > 0, POSITIVE, NEGATIVE)
        colours = np.rint(255 - (0.1 + 0.8 * strength) * (255 - colours)).astype(int)
        widths = np.rint(FINE * (0.4 + 2.4 * strength[:, 0])).astype(int)
        lines = zip(source.tolist(), to.tolist(), colours.tolist(), widths.tolist(), strict=True)
        for neuron, target, colour, width in lines:
            ends = x[column], y[column][neuron], x[column + 1], y[column + 1][target]
            draw.line(ends, tuple(colour), width)
    for place in y[0]:
        draw.rectangle(_around(x[0], place, HALF_SIDE), "lightgrey", "black", FINE)
    for across, places, deltas in zip(x[1:], y[1:], moment.mean_abs_delta, strict=True):
        for place, colour in zip(places, scale(deltas.numpy()).tolist(), strict=True):
            draw.ellipse(_around(across, place, RADIUS), tuple(colour), "black", FINE)
    return fine.reduce(FINE)


def _around(x: float, y: float, radius: float) -> tuple[float, float, float, float]:
    return x - FINE * radius, y - FINE * radius, x + FINE * radius, y + FINE * radius


def _draw_scale(picture: Image.Image, scale: _Scale, top: int, high: int) -> None:
    """Put the colours and what they mean at the right edge."""
    draw = ImageDraw.Draw(picture)
    left, wide = picture.width - 90, 15
    colours = scale.colours[np.linspace(len(scale.colours) - 1, 0, high).round().astype(int)]
    picture.paste(Image.fromarray(np.repeat(colours[:, None], wide, axis=1)), (left, top))
    powers = range(math.ceil(math.log10(scale.smallest)), math.floor(math.log10(scale.largest)) + 1)
    ticks = np.array([10.0**power for power in powers] or [scale.smallest], np.float32)
    for tick, y in zip(ticks, top + (1 - scale.place(ticks)) * (high - 1), strict=True):
        draw.line([(left + wide, y), (left + wide + 4, y)], "black")
        _write(draw, left + wide + 9, y, f"{tick:.0e}", "lm", SMALL)
    _write(draw, left, top - 9, "mean |delta|", "ls", SMALL)


def _write(draw: ImageDraw.ImageDraw, x: float, y: float, text: str, anchor: str, size: int = MEDIUM) -> None:
    """Write at a place, which is the text's left, middle or right, and its ascender, middle or baseline."""
    draw.text((x, y), text, "black", font(size), anchor, align="right" if anchor[0] == "r" else "center")


@cache
def _colours(name: str) -> Colours:
    from matplotlib import colormaps

    colours: Colours = colormaps[name](np.linspace(0, 1, 160), bytes=True)[:, :3]
    return colours


def _ramp(start: tuple[int, int, int], end: tuple[int, int, int]) -> Colours:
    return np.linspace(start, end, 32).round().astype(np.uint8)


def _png(picture: Image.Image, colours: Colours) -> bytes:
    """Encode with these colours and greys, together 256 at most: a fifth of the time that all colours take."""
    palette = Image.new("P", (1, 1))
    palette.putpalette(np.concatenate([colours, _ramp((0, 0, 0), (255, 255, 255))]).tobytes())
    file = io.BytesIO()
    indexed = picture.quantize(palette=palette, dither=Image.Dither.NONE)
    indexed.save(file, "PNG", compress_level=1, compress_type=RUN_LENGTHS)
    return file.getvalue()


def _neurons(count: int) -> str:
    return "1 neuron" if count == 1 else f"{count} neurons"


def _scale(values: Sequence[Floats], colours: str) -> _Scale | None:
    """One scale for all values; None where none is above 0."""
    everything = np.concatenate([array.ravel() for array in values])
    positive = everything[np.isfinite(everything) & (everything > 0)]
    if not len(positive):
        return None
    largest = float(positive.max())
    smallest = max(float(positive.min()), largest * 10.0**-DECADES)
    return _Scale(smallest if smallest < largest else largest / 10, largest, _colours(colours))
