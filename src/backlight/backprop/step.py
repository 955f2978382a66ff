"""One forward and backward pass of a `SigmoidMLP` by the equations, into its `.grad`."""

from dataclasses import dataclass

import torch
from torch import Tensor

from backlight.backprop import equations
from backlight.backprop.equations import ForwardPass
from backlight.model import SigmoidMLP


@dataclass(frozen=True)
class BackwardPass:
    """What one step of back-propagation computed: the forward pass and `delta_l` of every layer.

    Tensors are `[1, batch, neurons]`: a single network is a population of one.
    """

    forward: ForwardPass
    deltas: list[Tensor]

    @property
    def logits(self) -> Tensor:
        """`[batch, outputs]`"""
        return self.forward.logits[0]


@torch.no_grad()
def backpropagate(
    model: SigmoidMLP,
    x: Tensor,
    y: Tensor,
    positive_weight: Tensor | None = None,
    batch_size: float | None = None,
) -> BackwardPass:
    """Set `.grad` of every parameter to the gradient of the mean BCE of this batch.

    Args:
        model: its parameters are read through views, not copied.
        x: `[batch, features]`
        y: `[batch, outputs]`, in [0, 1].
        positive_weight: `[outputs]`, see `equations.binary_cross_entropy`.
        batch_size: rows of the whole batch where this is only one process's share of it.
    """
    layers = model.linear_layers
    weights = [layer.weight[None] for layer in layers]
    biases = [layer.bias[None, None] for layer in layers]
    passed = equations.forward(x[None], weights, biases, model.activation)
    error = equations.output_delta(passed.logits, y[None], positive_weight, batch_size)
    deltas = equations.deltas(passed, weights, error, model.activation)
    for layer, (weight_gradient, bias_gradient) in zip(
        layers, equations.gradients(passed, deltas), strict=True
    ):
        layer.weight.grad = weight_gradient[0]
        layer.bias.grad = bias_gradient[0, 0]
    return BackwardPass(passed, deltas)
