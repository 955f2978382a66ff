"""One forward and backward pass of a `SigmoidMLP` by the equations."""

from dataclasses import dataclass

import torch
from torch import Tensor

from backlight.backprop import equations
from backlight.backprop.equations import ForwardPass
from backlight.model import SigmoidMLP


@dataclass(frozen=True)
class BackwardPass:
    """What one step of back-propagation computed.

    Tensors have a leading axis of one member: a single network is a population of one. `deltas[l]` is
    `delta_l [1, batch, neurons]`; `gradients[l]` are those of the weights `[1, out, in]` and of the
    biases `[1, 1, out]`.
    """

    forward: ForwardPass
    deltas: list[Tensor]
    gradients: list[tuple[Tensor, Tensor]]

    @property
    def logits(self) -> Tensor:
        """`[batch, outputs]`"""
        return self.forward.logits[0]


@torch.no_grad()
def backward_pass(
    model: SigmoidMLP,
    x: Tensor,
    y: Tensor,
    positive_weight: Tensor | None = None,
    sample_weight: Tensor | None = None,
    batch_size: float | None = None,
) -> BackwardPass:
    """Differentiate the mean BCE of this batch; the model and its `.grad` stay as they are.

    Args:
        model: its parameters are read through views, not copied.
        x: `[batch, features]`
        y: `[batch, outputs]`, in [0, 1].
        positive_weight: `[outputs]`, see `equations.binary_cross_entropy`.
        sample_weight: `[batch, 1]`, see there.
        batch_size: rows of the whole batch where this is only one process's share of it.
    """
    layers = model.linear_layers
    weights = [layer.weight[None] for layer in layers]
    biases = [layer.bias[None, None] for layer in layers]
    passed = equations.forward(x[None], weights, biases, model.activation)
    error = equations.output_delta(passed.logits, y[None], positive_weight, sample_weight, batch_size)
    deltas = equations.deltas(passed, weights, error, model.activation)
    return BackwardPass(passed, deltas, equations.gradients(passed, deltas))


def backpropagate(
    model: SigmoidMLP,
    x: Tensor,
    y: Tensor,
    positive_weight: Tensor | None = None,
    sample_weight: Tensor | None = None,
    batch_size: float | None = None,
) -> BackwardPass:
    """`backward_pass`, and set `.grad` of every parameter to its gradient."""
    result = backward_pass(model, x, y, positive_weight, sample_weight, batch_size)
    for layer, (weight_gradient, bias_gradient) in zip(model.linear_layers, result.gradients, strict=True):
        layer.weight.grad = weight_gradient[0]
        layer.bias.grad = bias_gradient[0, 0]
    return result
