"""The record of one forward and backward pass, by the equations or by autograd."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn

from backlight.backprop import equations
from backlight.model import SigmoidMLP


@dataclass(frozen=True)
class LayerTrace:
    """What one pass left behind in a layer, detached from any graph.

    Attributes:
        name: of the linear layer in the model.
        weight: `W_l [out, in]`
        input: `a_{l−1} [batch, in]`
        pre_activation: `z_l [batch, out]`
        activation: `a_l [batch, out]`; of the last layer `σ(z)`, the probability.
        slope: `σ'(z_l) [batch, out]`
        delta: `∂L/∂z_l [batch, out]`, the error contribution of each neuron for each row.
        weight_gradient: `∂L/∂W_l [out, in]`
        bias_gradient: `∂L/∂b_l [out]`
    """

    name: str
    weight: Tensor
    input: Tensor
    pre_activation: Tensor
    activation: Tensor
    slope: Tensor
    delta: Tensor
    weight_gradient: Tensor
    bias_gradient: Tensor


@dataclass(frozen=True)
class Trace:
    """Every layer in the order of the forward pass, and the mean BCE of the batch (a scalar)."""

    layers: list[LayerTrace]
    loss: Tensor


def trace(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    positive_weight: Tensor | None = None,
    *,
    backward: Literal["equations", "autograd"] = "equations",
) -> Trace:
    """Run one batch forward and backward; neither the model nor its `.grad` changes.

    Args:
        model: a `SigmoidMLP`; for autograd any chain of `nn.Linear` layers with biases and elementwise
            activations between them that returns logits.
        x: `[batch, features]`
        y: `[batch, outputs]`, in [0, 1].
        positive_weight: `[outputs]`, see `equations.binary_cross_entropy`.
        backward: who computes it.

    Raises:
        ValueError: the model is not such a network.
    """
    if backward == "autograd":
        return _by_autograd(model, x, y, positive_weight)
    if not isinstance(model, SigmoidMLP):
        raise ValueError("backward=equations: only a SigmoidMLP has them; use backward=autograd")
    return _by_equations(model, x, y, positive_weight)


@torch.no_grad()
def _by_equations(model: SigmoidMLP, x: Tensor, y: Tensor, positive_weight: Tensor | None) -> Trace:
    layers = model.linear_layers
    weights = [layer.weight.detach()[None] for layer in layers]
    biases = [layer.bias.detach()[None, None] for layer in layers]
    passed = equations.forward(x[None], weights, biases, model.activation)
    error = equations.output_delta(passed.logits, y[None], positive_weight)
    deltas = equations.deltas(passed, weights, error, model.activation)
    gradients = equations.gradients(passed, deltas)
    probability = torch.sigmoid(passed.logits)
    activations = [*passed.activations[1:], probability]
    slopes = [
        model.activation.derivative(z, a)
        for z, a in zip(passed.pre_activations[:-1], activations[:-1], strict=True)
    ]
    slopes.append(probability * (1 - probability))
    return Trace(
        [
            LayerTrace(f"layers.{index}", weight[0], a_in[0], z[0], a[0], slope[0], delta[0], dw[0], db[0, 0])
            for index, (weight, a_in, z, a, slope, delta, (dw, db)) in enumerate(
                zip(
                    weights,
                    passed.activations,
                    passed.pre_activations,
                    activations,
                    slopes,
                    deltas,
                    gradients,
                    strict=True,
                )
            )
        ],
        equations.binary_cross_entropy(passed.logits[0], y, positive_weight),
    )


@torch.enable_grad()
def _by_autograd(model: nn.Module, x: Tensor, y: Tensor, positive_weight: Tensor | None) -> Trace:
    passed: list[tuple[str, nn.Linear, Tensor, Tensor]] = []
    hooks = [
        layer.register_forward_hook(
            lambda module, inputs, z, name=name: passed.append((name, module, inputs[0], z))
        )
        for name, layer in model.named_modules()
        if isinstance(layer, nn.Linear)
    ]
    try:
        # The inputs of the first layer need no gradient, but its pre-activations must.
        logits = model(x.detach())
    finally:
        for hook in hooks:
            hook.remove()
    _require_chain([layer for _, layer, _, _ in passed], [z for _, _, _, z in passed], logits)
    loss = equations.binary_cross_entropy(logits, y, positive_weight)
    wanted = [tensor for _, layer, _, z in passed for tensor in (z, layer.weight, layer.bias)]
    found = torch.autograd.grad(loss, wanted, retain_graph=True)
    activations = [a_in for _, _, a_in, _ in passed[1:]] + [torch.sigmoid(logits)]
    layers = []
    for index, (name, layer, a_in, z) in enumerate(passed):
        # Elementwise: the derivative of the sum is that of each element.
        (slope,) = torch.autograd.grad(activations[index].sum(), z, retain_graph=True)
        delta, weight_gradient, bias_gradient = found[3 * index : 3 * index + 3]
        layers.append(
            LayerTrace(
                name,
                layer.weight.detach(),
                a_in.detach(),
                z.detach(),
                activations[index].detach(),
                slope,
                delta,
                weight_gradient,
                bias_gradient,
            )
        )
    return Trace(layers, loss.detach())


def _require_chain(layers: Sequence[nn.Linear], outputs: Sequence[Tensor], logits: Tensor) -> None:
    if not layers or outputs[-1] is not logits:
        raise ValueError("model: must end in an nn.Linear layer that gives the logits")
    if len(set(map(id, layers))) < len(layers):
        raise ValueError("model: must use each nn.Linear layer once")
    for layer, following in pairwise(layers):
        if layer.out_features != following.in_features:
            raise ValueError("model: must be a chain of nn.Linear layers with activations between them")
    if any(layer.bias is None for layer in layers):
        raise ValueError("model: every nn.Linear layer must have a bias")
