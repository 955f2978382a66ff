"""What a symptom looks at, measured on networks and rows."""

import math
from collections.abc import Iterator, Mapping
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from backlight.backprop.contributions import contributions
from backlight.backprop.equations import binary_cross_entropy, forward
from backlight.backprop.sparse import Rows, SparseRows, affine, squared_norms
from backlight.backprop.trace import LayerTrace, Trace
from backlight.diagnosis.observations import DataState, Floats, LayerState, Neighbourhoods
from backlight.model import SigmoidMLP

ROWS_AT_ONCE = 8192
MOST_NEIGHBOURHOOD_ROWS = 2000
NEIGHBOURS = 20
STEP_LENGTHS = (1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1e3, 1e4, 1e5, 1e6)


def layer_states(record: Trace, model: SigmoidMLP) -> list[LayerState]:
    """Every layer of a traced batch."""
    return [
        LayerState(
            layer.name,
            float(figures.rms_delta),
            _numbers(figures.saturation),
            _silent(layer),
            _numbers(layer.weight),
            _numbers(linear.bias.detach()),
        )
        for layer, figures, linear in zip(
            record.layers, contributions(record.layers), model.linear_layers, strict=True
        )
    ]


def best_step(
    model: SigmoidMLP, record: Trace, x: Rows, y: Tensor, positive_weight: Tensor | None, rates: Tensor
) -> tuple[float, float]:
    """Of how many learning rates a good step along the gradient is, at most a million; by how much it lowers the loss.

    Good is the shortest that gains half of what any gains.

    Args:
        model: of the record; it is not changed.
        record: of x and y.
        x, y: the batch.
        positive_weight: of the loss.
        rates: `[2]`: what the optimizer multiplies the gradient with, and its sign with (Adam and its kin
            take steps of about the same size in every weight).
    """
    lengths = torch.tensor(STEP_LENGTHS, device=y.device).reshape(-1, 1, 1)
    weights, biases = [], []
    first, *others = record.layers
    with torch.no_grad():
        # The first layer, which may be wide, moves in proportion: a step of each length is not computed anew.
        moved = affine(x, _step(first.weight_gradient, rates), _step(first.bias_gradient, rates))
        a = model.activation.function(first.pre_activation - lengths * moved)
        for source, layer in zip(model.linear_layers[1:], others, strict=True):
            weights.append(source.weight - lengths * _step(layer.weight_gradient, rates))
            biases.append(source.bias - lengths * _step(layer.bias_gradient, rates))
        # Every length at once: as many networks, stacked.
        stacked = forward(a, weights, biases, model.activation).logits
        losses = [binary_cross_entropy(logits, y, positive_weight).item() for logits in stacked]
    gains = record.loss.item() - np.array([math.inf if math.isnan(loss) else loss for loss in losses])
    if gains.max() <= 0:
        return 0.0, 0.0
    # On a parabola half the gain is at three tenths of the best length: where it is flat, shorter is safer.
    chosen = int(np.argmax(gains >= gains.max() / 2))
    return STEP_LENGTHS[chosen], float(gains[chosen])


@torch.no_grad()
def first_non_finite(model: SigmoidMLP, record: Trace, x: Rows, rates: Tensor) -> tuple[str, str] | None:
    """The layer and the first tensor of it that one more step along the gradient makes infinite or NaN.

    In the order in which they are computed: what the last pass had, then each new weight, then the
    pre-activations. None if all stay finite.

    Args:
        model, record, x, rates: as for `best_step`.
    """
    for layer in record.layers:
        for name in ("weight", "pre_activation", "weight_gradient"):
            if not getattr(layer, name).isfinite().all():
                return layer.name, name
    weights, biases = [], []
    for source, layer in zip(model.linear_layers, record.layers, strict=True):
        weights.append((source.weight - _step(layer.weight_gradient, rates))[None])
        biases.append((source.bias - _step(layer.bias_gradient, rates))[None, None])
        if not (weights[-1].isfinite().all() and biases[-1].isfinite().all()):
            return layer.name, "weight"
    passed = forward(x[None], weights, biases, model.activation)
    for layer, value in zip(record.layers, passed.pre_activations, strict=True):
        if not value.isfinite().all():
            return layer.name, "pre_activation"
    return None


def constant_loss(y: Tensor, positive_weight: Tensor | None) -> float:
    """The BCE of the best prediction that is the same for every row.

    With the share q of positives and their weight p it is the entropy at `pq / (pq + 1 − q)`, weighted.
    """
    q = y.double().mean(dim=0)
    p = torch.ones_like(q) if positive_weight is None else positive_weight.double()
    best = p * q / (p * q + 1 - q)
    return float(-(torch.xlogy(p * q, best) + torch.xlogy(1 - q, 1 - best)).mean())


def perfect_loss(y: Tensor, positive_weight: Tensor | None) -> float:
    """The BCE of predicting every target itself: 0 unless labels are smoothed."""
    targets = y.double()
    p = torch.ones(y.shape[1], dtype=torch.float64) if positive_weight is None else positive_weight.double()
    best = p * targets / (p * targets + 1 - targets)
    return float(-(torch.xlogy(p * targets, best) + torch.xlogy(1 - targets, 1 - best)).mean())


class RowsOnDisk(Protocol):
    """`[rows, features]` that are read when they are asked for, a sample of all being the first."""

    @property
    def shape(self) -> tuple[int, int]: ...
    def __len__(self) -> int: ...
    def __getitem__(self, rows: slice) -> Tensor: ...
    def split(self, size: int) -> Iterator[Tensor]: ...


def data_state(
    parts: Mapping[str, tuple[Rows | RowsOnDisk, Tensor]], feature_names: list[str], class_shares: Floats
) -> DataState:
    """What the symptoms look at of the rows.

    Args:
        parts: `x [rows, features]` and `y [rows, outputs]` of `train` and of every part held out.
        feature_names: of the columns.
        class_shares: `[classes]` of the training rows.
    """
    every_x, every_y = parts["train"]
    x = every_x if isinstance(every_x, Tensor | SparseRows) else every_x[:ROWS_AT_ONCE]
    y = every_y[: len(x)]
    some_x, some_y = x[:ROWS_AT_ONCE], y[:ROWS_AT_ONCE]
    # Rows with a continuous feature do not come twice by chance.
    is_continuous = most_distinct(some_x) > len(np.unique(row_keys(some_x, some_y))) / 2
    known = np.empty(0, dtype=np.int64)
    if len(parts) > 1 or not is_continuous:  # reading all of a file takes a while
        known = np.sort(row_keys(every_x, every_y))
    repeated = {}
    for name, part in parts.items():
        if name != "train":
            keys = np.sort(row_keys(*part))
            is_known = known[np.searchsorted(known, keys).clip(max=len(known) - 1)] == keys
            repeated[name] = (int(is_known.sum()), float(is_known.mean()))
    means, deviations = map(_numbers, location_and_spread(x))
    return DataState(
        class_shares,
        feature_names,
        means,
        deviations,
        0.0 if is_continuous else _share_of_repeated(known),
        repeated,
        neighbourhoods(x, y.argmax(dim=1) if y.shape[1] > 1 else y[:, 0].long())
        if isinstance(x, Tensor)
        else None,
        {name: len(part[0]) for name, part in parts.items()},
    )


def _share_of_repeated(known: NDArray[np.int64]) -> float:
    """Of sorted numbers, those that come more than once."""
    is_next_same = known[1:] == known[:-1]
    return float((np.append(is_next_same, False) | np.append(False, is_next_same)).mean())


def most_distinct(x: Rows) -> int:
    """Of all columns the most different values in one; of sparse rows those that are not 0."""
    if isinstance(x, Tensor):
        return max(len(column.unique()) for column in x.T)
    pairs = torch.stack([x.columns.double(), x.values.double()], dim=1).unique(dim=0)
    return int(pairs[:, 0].long().bincount().max()) if len(pairs) else 0


def location_and_spread(x: Rows) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation `[features]` of each column.

    Of a column that has one value in most rows, as pixels and indicators have, the root mean square distance of
    the others from it: it is rare, not small. Of sparse rows that value is 0, and so is the mean that is given.
    """
    if isinstance(x, Tensor):
        mean, deviation = x.mean(dim=0), x.std(dim=0, correction=0)
        usual = x[:ROWS_AT_ONCE].median(dim=0).values
        others = sum((rows != usual).sum(dim=0) for rows in x.split(ROWS_AT_ONCE))
        # About the usual value the squares are those about the mean and the distance of the two.
        distance = (len(x) * (deviation.square() + (mean - usual).square()) / others.clamp(min=1)).sqrt()
        return mean, torch.where((others > 0) & (2 * others < len(x)), distance, deviation)
    zeros = x.values.new_zeros(x.num_features)
    squares = zeros.index_add(0, x.columns, x.values.square())
    return zeros, (squares / x.columns.bincount(minlength=x.num_features).clamp(min=1)).sqrt()


def neighbourhoods(x: Tensor, y: Tensor) -> Neighbourhoods | None:
    """What the neighbours of rows say of their labels.

    The label of a row is compared with those of its ten nearest others (Cover & Hart 1967), features brought to
    one scale. For the noise, the third of the rows whose nearest ten agree best is taken, and how many
    of the *next* ten have another label is counted: these were not chosen for agreeing. Classes
    that overlap disagree near their border only; labels that are wrong disagree everywhere.

    Args:
        x: `[rows, features]`, of which at most 2,000 are looked at.
        y: `[rows]` int64, the class of each.
    """
    if len(x) < 3 * (NEIGHBOURS + 1):
        return None
    chosen = torch.linspace(0, len(x) - 1, min(len(x), MOST_NEIGHBOURHOOD_ROWS)).long()
    x, y = x[chosen].double(), y[chosen]
    spread = x.std(dim=0, correction=0)
    x = (x / torch.where(spread > 0, spread, 1)).float()
    distance = torch.cdist(x, x).fill_diagonal_(math.inf)
    labels = y[distance.topk(NEIGHBOURS, largest=False).indices]
    classes = int(y.max()) + 1
    half = NEIGHBOURS // 2
    agreed, winner = nn.functional.one_hot(labels[:, :half], classes).sum(dim=1).max(dim=1)
    attainable = (winner == y).double().mean()
    purest = agreed.topk(max(1, len(y) // 3)).indices
    differs = (labels[purest, half:] != winner[purest, None]).double().mean()
    return Neighbourhoods(float(attainable), float(differs))


def batch_signal(record: Trace, batch_size: int) -> float:
    """The squared norm of a gradient over the variance of a batch's estimate of it.

    `b·‖E g‖² / (E‖g‖² − ‖E g‖²)` over all weights and biases: the inverse of the simple noise scale, in
    batches (McCandlish et al. 2018, arXiv:1812.06162). Infinite where all rows agree.

    Args:
        record: of one pass over many rows.
        batch_size: b, rows of a batch.
    """
    signal = power = 0.0
    for layer in record.layers:
        rows = len(layer.delta)
        squares = layer.weight_gradient.double().square().sum() + layer.bias_gradient.double().square().sum()
        signal += float(squares)
        inputs = 1 + squared_norms(layer.input.double())
        power += float(rows * (layer.delta.double().square().sum(dim=-1) * inputs).sum())
    noise = power - signal
    return batch_size * signal / noise if noise > 0 else math.inf


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
            some += (_bits(rows) * weights[: x.shape[1]]).sum(dim=1)
    return keys.numpy()


def _bits(numbers: Tensor) -> Tensor:
    """Of float32, as int64; −0 as 0."""
    return (numbers + 0.0).view(torch.int32).to(torch.int64)


def _step(gradient: Tensor, rates: Tensor) -> Tensor:
    return rates[0] * gradient + rates[1] * gradient.sign()


def _silent(layer: LayerTrace) -> NDArray[np.bool_]:
    return (layer.slope == 0).all(dim=0).numpy()


def _numbers(tensor: Tensor) -> Floats:
    return tensor.double().numpy()
