"""What a symptom looks at, measured on networks and rows."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from backlight.backprop.activations import Activation
from backlight.backprop.contributions import contributions
from backlight.backprop.equations import binary_cross_entropies, forward, weight_of_class
from backlight.backprop.sparse import Rows, SparseRows, affine, outer, squared_norms
from backlight.backprop.trace import Trace, trace_many
from backlight.diagnosis.neighbourhoods import neighbourhoods
from backlight.diagnosis.observations import DataState, Floats, LayerState

ROWS_AT_ONCE = 8192
ROWS_IN_CACHE, INTEGERS_IN_CACHE = 512, 2**17
"""What is computed of so many rows, or of numbers as integers, stays in the cache, and takes up to a tenth of the time."""
ENTRIES_IN_CACHE = 2**18  # of weights that are moved: of more it costs too to keep as many for every length
NORMAL_MIDDLE = 1.349  # in deviations, how wide the middle half of a normal distribution is
USUAL_ROWS = 2048  # of which half have a column's usual value: a sample is off by 1/√2048, about 2 %
STEP_LENGTHS = (1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1e3, 1e4, 1e5, 1e6)


@dataclass(frozen=True)
class Networks:
    """Some of one shape, stacked.

    Attributes:
        weights: `[n, out, in]` of each layer.
        biases: `[n, 1, out]` of each layer.
        activation: of the hidden layers.
    """

    weights: list[Tensor]
    biases: list[Tensor]
    activation: Activation

    @classmethod
    def of(cls, parameters: Sequence[Sequence[Tensor]], activation: Activation) -> "Networks":
        """From the weight and the bias of every layer of each, in turn."""
        stacked = [torch.stack(same) for same in zip(*parameters, strict=True)]
        return cls(stacked[::2], [bias[:, None] for bias in stacked[1::2]], activation)

    def __getitem__(self, number: int) -> "Networks":
        """One of them, still stacked."""
        only = slice(number, number + 1)
        return Networks(
            [weight[only] for weight in self.weights], [bias[only] for bias in self.biases], self.activation
        )

    def logits(self, x: Rows) -> Tensor:
        """`[n, rows, outputs]` of x `[n, rows, features]`."""
        return forward(x, self.weights, self.biases, self.activation).logits

    def trace(self, x: Rows, y: Tensor, class_weight: Tensor | None) -> Trace:
        """See `trace_many`."""
        return trace_many(self.weights, self.biases, self.activation, x, y, class_weight)


def layer_states(networks: Networks, record: Trace) -> list[list[LayerState]]:
    """Every layer of each network in a record of all."""
    layers = []
    for layer, figures, bias in zip(
        record.layers, contributions(record.layers), networks.biases, strict=True
    ):
        silent = (layer.slope == 0).all(dim=-2).numpy()
        saturation, weight, own_bias = _numbers(figures.saturation), layer.weight.numpy(), bias[:, 0].numpy()
        of_each = zip(figures.rms_delta.tolist(), saturation, silent, weight, own_bias, strict=True)
        layers.append([LayerState(layer.name, *numbers) for numbers in of_each])
    return [list(states) for states in zip(*layers, strict=True)]


@torch.no_grad()
def best_steps(
    networks: Networks, record: Trace, x: Rows, y: Tensor, class_weight: Tensor | None, rates: Tensor
) -> list[tuple[float, float]]:
    """Of how many learning rates a good step along the gradient is, at most a million; by how much it lowers the loss.

    Good is the shortest that gains half of what any gains.

    Args:
        networks: of the record; they are not changed.
        record: of x and y.
        x, y, class_weight: as for `trace_many`.
        rates: `[n, 2]`: what the optimizer multiplies the gradient with, and its sign with (Adam and its kin
            take steps of about the same size in every weight).
    """
    steps = [
        (_step(layer.weight_gradient, rates), _step(layer.bias_gradient[:, None], rates))
        for layer in record.layers
    ]
    # The first layer, which may be wide, moves in proportion: a step of each length is not computed anew.
    first = record.layers[0]
    starts = [first.pre_activation, *networks.weights[1:], *networks.biases[1:]]
    ways = [affine(x, *steps[0]), *(weight for weight, _ in steps[1:]), *(bias for _, bias in steps[1:])]
    at_once = len(STEP_LENGTHS) if sum(way.numel() for way in ways) < ENTRIES_IN_CACHE else 1
    # Memory that is written to for the first time costs a large network as much as the products.
    rooms = [start.new_empty(start.shape[0], at_once, *start.shape[1:]) for start in starts]
    weight = None if class_weight is None else class_weight.repeat_interleave(at_once, dim=0)
    targets = y.repeat_interleave(at_once, dim=0)
    losses, passed = [], None
    for lengths in torch.tensor(STEP_LENGTHS).reshape(-1, 1, 1).split(at_once):
        for start, way, room in zip(starts, ways, rooms, strict=True):
            torch.addcmul(start[:, None], lengths, way[:, None], value=-1, out=room)
        z, *moved = (room.flatten(0, 1) for room in rooms)
        weights, biases = moved[: len(moved) // 2], moved[len(moved) // 2 :]
        passed = forward(networks.activation.function(z), weights, biases, networks.activation, passed)
        losses.append(binary_cross_entropies(passed.logits, targets, weight).view(-1, at_once))
    after = torch.cat(losses, dim=1).nan_to_num(nan=math.inf, posinf=math.inf)
    return [_shortest(gains) for gains in _numbers(record.loss[:, None] - after)]


def _shortest(gains: Floats) -> tuple[float, float]:
    """The least length that gains half of the most, and its gain."""
    if not gains.max() > 0:
        return 0.0, 0.0
    # On a parabola half the gain is at three tenths of the best length: where it is flat, shorter is safer.
    chosen = int(np.argmax(gains >= gains.max() / 2))
    return STEP_LENGTHS[chosen], float(gains[chosen])


@torch.no_grad()
def first_non_finite(network: Networks, record: Trace, x: Rows, rates: Tensor) -> tuple[str, str] | None:
    """The layer and the first tensor of it that one more step along the gradient makes infinite or NaN.

    In the order in which they are computed: what the last pass had, then each new weight, then the
    pre-activations. None if all stay finite.

    Args:
        network: a single one.
        record: of its pass over the rows x, which do not have the leading axis of many.
        rates: `[2]`, as for `best_steps`.
    """
    for layer in record.layers:
        for name in ("weight", "pre_activation", "weight_gradient"):
            if not getattr(layer, name).isfinite().all():
                return layer.name, name
    weights, biases = [], []
    for weight, bias, layer in zip(network.weights, network.biases, record.layers, strict=True):
        weights.append(weight - _step(layer.weight_gradient, rates))
        biases.append(bias - _step(layer.bias_gradient, rates))
        if not (weights[-1].isfinite().all() and biases[-1].isfinite().all()):
            return layer.name, "weight"
    passed = forward(x[None], weights, biases, network.activation)
    for layer, value in zip(record.layers, passed.pre_activations, strict=True):
        if not value.isfinite().all():
            return layer.name, "pre_activation"
    return None


def constant_loss(y: Tensor, class_weight: Tensor | None) -> Tensor:
    """The BCE `[…]` of the best prediction that is the same for every row of y `[…, rows, outputs]`.

    It is the entropy of the shares that the classes have of the rows, by weight, times the mean weight.
    """
    y, weight = _weighed(y, class_weight)
    mean = weight.mean(dim=-2, keepdim=True)
    share = (weight * y).mean(dim=-2, keepdim=True) / mean
    return (mean * _entropy(share)).mean(dim=(-2, -1))


def perfect_loss(y: Tensor, class_weight: Tensor | None) -> Tensor:
    """The BCE `[…]` of predicting every target of y `[…, rows, outputs]` itself: 0 unless labels are smoothed."""
    y, weight = _weighed(y, class_weight)
    return (weight * _entropy(y)).mean(dim=(-2, -1))


def _weighed(y: Tensor, class_weight: Tensor | None) -> tuple[Tensor, Tensor]:
    """The targets, and the weight `[…, rows, 1]` of each row."""
    y = y.double()
    if class_weight is None:
        return y, torch.ones_like(y[..., :1])
    return y, weight_of_class(y, class_weight.double())


def _entropy(q: Tensor) -> Tensor:
    """Of each share of positives."""
    return -(torch.xlogy(q, q) + torch.xlogy(1 - q, 1 - q))


class RowsOnDisk(Protocol):
    """`[rows, features]` that are read when they are asked for, a sample of all being the first."""

    @property
    def shape(self) -> tuple[int, int]: ...
    def __len__(self) -> int: ...
    def __getitem__(self, rows: slice) -> Tensor: ...
    def split(self, size: int) -> Iterator[Tensor]: ...


def data_state(
    parts: Mapping[str, tuple[Rows | RowsOnDisk, Tensor]],
    feature_names: list[str],
    class_shares: Floats,
    *,
    of_columns: bool = False,
) -> DataState:
    """What the symptoms look at of the rows.

    Args:
        parts: `x [rows, features]` and `y [rows, outputs]` of `train` and of every part held out.
        feature_names: of the columns.
        class_shares: `[classes]` of the training rows.
        of_columns: whether each feature is a column of a table, or of its own unit as these are.
    """
    every_x, every_y = parts["train"]
    x = every_x if isinstance(every_x, Tensor | SparseRows) else every_x[:ROWS_AT_ONCE]
    y = every_y[: len(x)]
    some_x, some_y = x[:ROWS_AT_ONCE], y[:ROWS_AT_ONCE]
    # Rows with a continuous feature do not come twice by chance.
    continuous = distinct_column(some_x, len(np.unique(row_keys(some_x, some_y))) / 2)
    every_key = cache(lambda: np.sort(row_keys(every_x, every_y)))

    def repeats(held_out: Rows | RowsOnDisk, labels: Tensor) -> int:
        """Rows held out that are training rows too."""
        if continuous is None or not (isinstance(every_x, Tensor) and isinstance(held_out, Tensor)):
            return _count_known(row_keys(held_out, labels), every_key())
        # Rows that are the same have the same value in that column, which few others have.
        values, own = every_x[:, continuous], held_out[:, continuous]
        known, some = torch.isin(values, own), torch.isin(own, values)
        keys = np.sort(row_keys(every_x[known], every_y[known]))
        return _count_known(row_keys(held_out[some], labels[some]), keys)

    repeated = {}
    for name, part in parts.items():
        if name != "train":
            known = repeats(*part)
            repeated[name] = (known, known / len(part[1]))
    means, deviations = map(_numbers, location_and_spread(x))
    return DataState(
        class_shares,
        feature_names,
        means,
        deviations,
        middle_halves(x) if of_columns and isinstance(x, Tensor) else np.empty(0),
        repeated=_share_of_repeated(every_key()) if continuous is None else 0.0,
        repeated_in=repeated,
        neighbourhoods=neighbourhoods(x, y.argmax(dim=1) if y.shape[1] > 1 else y[:, 0].long())
        if isinstance(x, Tensor)
        else None,
        rows={name: len(part[0]) for name, part in parts.items()},
    )


def _count_known(keys: NDArray[np.int64], known: NDArray[np.int64]) -> int:
    """How many are among these, which are sorted."""
    keys = np.sort(keys)
    return int((np.searchsorted(known, keys, "right") > np.searchsorted(known, keys)).sum())


def _share_of_repeated(known: NDArray[np.int64]) -> float:
    """Of sorted numbers, those that come more than once."""
    is_next_same = known[1:] == known[:-1]
    return float((np.append(is_next_same, False) | np.append(False, is_next_same)).mean())


def distinct_column(x: Rows, more_than: float) -> int | None:
    """A column with more different values than that, or None; of sparse rows those that are not 0 count."""
    if isinstance(x, Tensor):
        return next((number for number, column in enumerate(x.T) if len(column.unique()) > more_than), None)
    is_full = x.columns.bincount(minlength=x.num_features) > more_than  # few are, and only these are sorted
    of_full = is_full[x.columns]
    pairs = torch.stack([x.columns[of_full].double(), x.values[of_full].double()], dim=1).unique(dim=0)
    distinct = pairs[:, 0].long().bincount(minlength=x.num_features)
    return int(distinct.argmax()) if distinct.max() > more_than else None


def middle_halves(x: Tensor) -> Floats:
    """`[features]` how wide the middle half of the rows `[rows, features]` lies, over that of a standard normal one.

    0 of a feature with one value in most rows, as pixels and indicators have: that is rare, not spread by a few values.
    """
    rows = x[:: -(-len(x) // USUAL_ROWS)].numpy()  # in whatever order they lie
    low, middle, high = (quarter * len(rows) // 4 for quarter in (1, 2, 3))
    in_place = np.partition(rows, [low, middle, high], axis=0)
    width: Floats = np.subtract(in_place[high], in_place[low], dtype=np.float64)
    is_usual = np.mean(rows == in_place[middle], axis=0) > 0.5
    return np.where(is_usual, 0, width / NORMAL_MIDDLE)


def location_and_spread(x: Rows) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation `[features]` of each column.

    Of a column that has one value in most rows, as pixels and indicators have, the root mean square distance of
    the others from it: it is rare, not small. Of sparse rows that value is 0, and so is the mean that is given.
    """
    if isinstance(x, Tensor):
        mean = x.mean(dim=0)
        middle = (min(len(x), USUAL_ROWS) - 1) // 2
        # The median, in a third of PyTorch's time.
        usual = torch.from_numpy(np.partition(x[:USUAL_ROWS].numpy(), middle, axis=0)[middle])
        others, squares = torch.zeros_like(usual), torch.zeros_like(usual)
        memory = torch.empty_like(x[:ROWS_IN_CACHE])
        for rows in x.split(ROWS_IN_CACHE):
            room = memory[: len(rows)]
            # As numbers at once: sums of booleans take twice as long.
            others += torch.ne(rows, usual, out=room).sum(dim=0)
            squares += torch.sub(rows, mean, out=room).square_().sum(dim=0)
        deviation = (squares / len(x)).sqrt()
        # About the usual value the squares are those about the mean and the distance of the two.
        distance = (len(x) * (deviation.square() + (mean - usual).square()) / others.clamp(min=1)).sqrt()
        return mean, torch.where((others > 0) & (2 * others < len(x)), distance, deviation)
    zeros = x.values.new_zeros(x.num_features)
    of_others = zeros.index_add(0, x.columns, x.values.square())
    return zeros, (of_others / x.columns.bincount(minlength=x.num_features).clamp(min=1)).sqrt()


def contradicted(probability: Tensor, labels: Tensor) -> float:
    """The share of labels that a network contradicts where it is surest, in the third of the rows that it is surest of.

    Classes that overlap make it unsure; labels that are wrong lie anywhere (confident learning: Northcutt, Jiang & Chuang
    2021, arXiv:1911.00068).

    Args:
        probability: `[rows]` of the positive class, or `[rows, classes]`; best of rows that the network was not trained
            on: what it knows by heart it contradicts nowhere.
        labels: `[rows]` int64, the class of each.
    """
    of_classes = torch.stack([1 - probability, probability], dim=1) if probability.ndim == 1 else probability
    sureness, named = of_classes.max(dim=1)
    surest = sureness.topk(max(1, len(labels) // 3)).indices
    return float((named[surest] != labels[surest]).double().mean())


def batch_signal(record: Trace, batch_size: int) -> Tensor:
    """The squared norm of a gradient over the variance of a batch's estimate of it, `[…]` as the loss of the record.

    `b·‖E g‖² / (E‖g‖² − ‖E g‖²)` over all weights and biases: the inverse of the simple noise scale, in
    batches (McCandlish et al. 2018, arXiv:1812.06162). Infinite where all rows agree.

    Args:
        record: of one pass over many rows.
        batch_size: b, rows of a batch.
    """
    signal = power = torch.zeros(record.loss.shape, dtype=torch.float64)
    for layer in record.layers:
        signal = signal + layer.weight_gradient.double().square().sum(dim=(-2, -1))
        signal = signal + layer.bias_gradient.double().square().sum(dim=-1)
        power = power + _power(layer.delta.double(), 1 + squared_norms(layer.input.double()))
    return batch_size * _signal_over_noise(signal, power)


def output_signal(record: Trace) -> Tensor:
    """As `batch_signal`, of the output weights and all rows, once the mean error is taken out of the errors.

    What is left of the gradient when class shares, which the bias can learn alone, explain what they can. Below 1 the
    last hidden layer tells no classes apart.
    """
    last = record.layers[-1]
    error, inputs = last.delta.double(), last.input.double()
    error = error - error.mean(dim=-2, keepdim=True)
    signal = outer(error, inputs).square().sum(dim=(-2, -1))
    return error.shape[-2] * _signal_over_noise(signal, _power(error, squared_norms(inputs)))


def _power(delta: Tensor, squares: Tensor) -> Tensor:
    """`n² E‖g‖² […]` of the gradients of n rows, the squared norms of their inputs being `[…, n]`."""
    return delta.shape[-2] * (delta.square().sum(dim=-1) * squares).sum(dim=-1)


def _signal_over_noise(signal: Tensor, power: Tensor) -> Tensor:
    noise = power - signal
    return torch.where(noise > 0, signal / noise, math.inf)


def row_keys(x: Rows | RowsOnDisk, y: Tensor) -> NDArray[np.int64]:
    """One number per row `[rows]`, sparse or not: the same for rows that are equal in every bit (but −0 is 0), and
    by chance for others with a probability of 2⁻⁶³: the sum of their bits as integers, each column with a weight of its own.
    """
    draw = np.random.default_rng(0).integers(-(2**63), 2**63, x.shape[1] + y.shape[1], dtype=np.int64)
    weights = torch.from_numpy(draw | 1)
    keys = torch.empty(len(y), dtype=torch.int64)
    for some, rows, labels in zip(
        keys.split(ROWS_AT_ONCE), x.split(ROWS_AT_ONCE), y.split(ROWS_AT_ONCE), strict=True
    ):
        torch.sum(_bits(labels) * weights[x.shape[1] :], dim=1, out=some)
        if isinstance(rows, SparseRows):
            some.index_add_(0, rows.row_of_entry, _bits(rows.values) * weights[rows.columns])
        else:
            in_cache = max(1, INTEGERS_IN_CACHE // x.shape[1])
            for few, own in zip(some.split(in_cache), rows.split(in_cache), strict=True):
                few += (_bits(own) * weights[: x.shape[1]]).sum(dim=1)
    return keys.numpy()


def _bits(numbers: Tensor) -> Tensor:
    """Of float32, as int64; −0 as 0."""
    return (numbers + 0.0).view(torch.int32).to(torch.int64)


def _step(gradient: Tensor, rates: Tensor) -> Tensor:
    """Of one network, or of many and rates `[n, 2]`."""
    of_gradient, of_sign = rates[..., 0], rates[..., 1]
    if rates.ndim > 1:
        of_gradient, of_sign = of_gradient[:, None, None], of_sign[:, None, None]
    return of_gradient * gradient + of_sign * gradient.sign()


def _numbers(tensor: Tensor) -> Floats:
    return tensor.double().numpy()
