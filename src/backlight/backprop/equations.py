"""The four equations of back-propagation, stacked over members.

Rumelhart, Hinton & Williams, "Learning representations by back-propagating errors", Nature 323 (1986);
numbered BP1 to BP4 as in Nielsen, *Neural Networks and Deep Learning*, chapter 2.

Every tensor has a leading member axis, so that one call trains one network or a thousand:
weights `W_l [members, out, in]`, biases `b_l [members, 1, out]`, inputs and targets
`[members, batch, ·]`; x may be `SparseRows`. L is the mean binary cross-entropy over the batch and the outputs.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from backlight.backprop.activations import Activation, steady_sigmoid
from backlight.backprop.products import product
from backlight.backprop.sparse import Rows, affine, outer


class ForwardPass(NamedTuple):
    """What the forward pass leaves behind for the backward pass.

    `x [members, batch, features]` went in; `pre_activations[l]` is `z_l = a_{l−1} W_lᵀ + b_l` of layer l and
    `activations[l]` its `a_l = σ(z_l)`, but for the last layer. Both are lists of `[members, batch, neurons]`.
    """

    x: Rows
    activations: list[Tensor]
    pre_activations: list[Tensor]

    @property
    def inputs(self) -> list[Rows]:
        """Of each layer."""
        return [self.x, *self.activations]

    @property
    def logits(self) -> Tensor:
        return self.pre_activations[-1]

    def of_layer(self, hidden: int) -> tuple[Tensor, Tensor]:
        """Z and a of a hidden layer."""
        return self.pre_activations[hidden], self.activations[hidden]


def smooth(y: Tensor, label_smoothing: float) -> Tensor:
    """Targets moved from {0, 1} to {ε/2, 1 − ε/2} (Szegedy et al. 2016, eq. 7, for two outcomes)."""
    return y * (1 - label_smoothing) + label_smoothing / 2 if label_smoothing else y


def binary_cross_entropy(
    logits: Tensor,
    y: Tensor,
    class_weight: Tensor | None = None,
    sample_weight: Tensor | None = None,
    batch_size: float | None = None,
) -> Tensor:
    """Mean BCE over batch and outputs, from logits (the numerically stable form of sigmoid + BCE).

    `class_weight [classes]` multiplies the terms of a row by the weight of its class, of two classes the negative
    one's first; `sample_weight [batch, 1]` those of each row (the mean still divides by the number of rows, as
    PyTorch's `weight` does).
    `batch_size` is the number of rows to divide by where this batch is only a part of the whole
    (default: its own rows). Returns a scalar.
    """
    weight = _row_weight(y, class_weight, sample_weight)
    total = functional.binary_cross_entropy_with_logits(logits, y, weight, reduction="sum")
    return total / _terms(y, batch_size)


def binary_cross_entropies(logits: Tensor, y: Tensor, class_weight: Tensor | None = None) -> Tensor:
    """The mean BCE `[members]` of each member, of logits and targets `[members, batch, outputs]`.

    `class_weight [members, 1, classes]` is as for `binary_cross_entropy`.
    """
    each = functional.binary_cross_entropy_with_logits(
        logits, y, _row_weight(y, class_weight), reduction="none"
    )
    return each.mean(dim=(-2, -1))


def weight_of_class(y: Tensor, class_weight: Tensor) -> Tensor:
    """The weight `[…, rows, 1]` of each row's class, from targets y `[…, rows, outputs]`, smoothed or not."""
    is_class = y > 0.5
    if y.shape[-1] == 1:
        return torch.where(is_class, class_weight[..., 1:], class_weight[..., :1])
    return (is_class * class_weight).sum(dim=-1, keepdim=True)


def _row_weight(y: Tensor, class_weight: Tensor | None, sample_weight: Tensor | None = None) -> Tensor | None:
    """What the terms of each row are multiplied by."""
    if class_weight is None:
        return sample_weight
    of_class = weight_of_class(y, class_weight)
    return of_class if sample_weight is None else of_class * sample_weight


def output_delta(
    logits: Tensor,
    y: Tensor,
    class_weight: Tensor | None = None,
    sample_weight: Tensor | None = None,
    batch_size: float | None = None,
) -> Tensor:
    """BP1: `delta_L = ∂L/∂z_L = (σ(z_L) − y) / (batch·outputs)`, the derivative of `binary_cross_entropy`.

    The weights of a row multiply it.
    """
    error = steady_sigmoid(logits).sub_(y)  # and from here on in place
    weight = _row_weight(y, class_weight, sample_weight)
    if weight is not None:
        error.mul_(weight)
    return error.div_(_terms(y, batch_size))


def _terms(y: Tensor, batch_size: float | None) -> float:
    """The number of terms in the mean: batch·outputs."""
    return (y.shape[-2] if batch_size is None else batch_size) * y.shape[-1]


def forward(
    x: Rows,
    weights: Sequence[Tensor],
    biases: Sequence[Tensor],
    activation: Activation,
    spare: ForwardPass | None = None,
) -> ForwardPass:
    """`z_l = a_{l−1} W_lᵀ + b_l`, `a_l = σ(z_l)`; the last layer stays a logit.

    `spare` is a pass of the same shapes that nobody needs any more: its memory is written to, but for the logits
    and where a large product has its own.
    """
    pre_activations: list[Tensor] = []
    activations: list[Tensor] = []
    fed = x
    last = len(weights) - 1
    for layer, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
        into_z, into_a = (None, None) if spare is None or layer == last else spare.of_layer(layer)
        above = None if layer == last else weights[layer + 1].shape[-2]
        z = affine(fed, weight, bias, into_z, above)
        pre_activations.append(z)
        if layer < last:
            fed = activation.steady(z, out=into_a)
            activations.append(fed)
    return ForwardPass(x, activations, pre_activations)


def deltas(
    passed: ForwardPass,
    weights: Sequence[Tensor],
    delta: Tensor,
    activation: Activation,
    spare: Sequence[Tensor] | None = None,
) -> list[Tensor]:
    """BP2: `delta_l = (delta_{l+1} W_{l+1}) ⊙ σ'(z_l)`, from the output delta back to the first layer.

    Returns one `[members, batch, neurons]` per layer, first layer first: the error contribution of
    every neuron for every row. They take the memory of `spare`, such deltas that nobody needs any more, where no
    large product has its own.
    """
    contributions = [delta]
    for layer in range(len(weights) - 2, -1, -1):
        above, weight = contributions[-1], weights[layer + 1]
        room = None if spare is None else spare[layer]
        is_by_row = passed.pre_activations[layer].is_contiguous()  # the error is to lie in memory as z does
        # Below a single output it is a product of numbers, for which bmm takes far longer.
        if above.shape[-1] > 1:
            if is_by_row:
                error = product(above, weight, spare=room)
            else:
                error = product(weight.mT, above.mT, spare=None if room is None else room.mT).mT
        elif is_by_row or room is not None:
            error = torch.mul(above, weight, out=room)
        else:
            error = torch.mul(weight.mT, above.mT).mT
        contributions.append(
            activation.backward_(error, passed.pre_activations[layer], passed.activations[layer])
        )
    return contributions[::-1]


def gradients(
    passed: ForwardPass,
    layer_deltas: Sequence[Tensor],
    spare: Sequence[tuple[Tensor, Tensor] | tuple[None, None]] | None = None,
) -> Iterator[tuple[Tensor, Tensor]]:
    """BP3 and BP4: `∂L/∂b_l = Σ_batch delta_l`, `∂L/∂W_l = delta_lᵀ a_{l−1}`.

    Yields `(weight gradient [members, out, in], bias gradient [members, 1, out])` per layer, in the memory of
    `spare`, such gradients that nobody needs any more, where no large product has its own.
    """
    rooms = spare or [(None, None)] * len(layer_deltas)
    for delta, fed, (weight, bias) in zip(layer_deltas, passed.inputs, rooms, strict=True):
        yield outer(delta, fed, weight), torch.sum(delta, dim=-2, keepdim=True, out=bias)
