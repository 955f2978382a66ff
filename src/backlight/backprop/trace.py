"""The record of one forward and backward pass, by the equations or by autograd."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from itertools import pairwise
from types import TracebackType
from typing import Any, Literal

import torch
from torch import Tensor, nn

from backlight.backprop import equations
from backlight.backprop.activations import ACTIVATIONS, Activation
from backlight.backprop.equations import ForwardPass
from backlight.backprop.sparse import Rows, SparseRows
from backlight.backprop.step import Backpropagation, BackwardPass
from backlight.model import SigmoidMLP

NO_CHAIN = "model: must be a chain of nn.Linear layers with activations between them"


@dataclass(frozen=True)
class LayerTrace:
    """What one pass left behind in a layer, detached from any graph; of many, with a leading axis over them.

    Attributes:
        name: of the linear layer in the model.
        weight: `W_l [out, in]`
        input: `a_{l−1} [batch, in]`
        pre_activation: `z_l [batch, out]`
        activation: `a_l [batch, out]`; of the last layer `σ(z)`, the probability.
        known_slope: what autograd found the slope to be; None where the derivative gives it.
        derivative: of `pre_activation` and `activation`.
        delta: `∂L/∂z_l [batch, out]`, the error contribution of each neuron for each row.
        weight_gradient: `∂L/∂W_l [out, in]`
        bias_gradient: `∂L/∂b_l [out]`
    """

    name: str
    weight: Tensor
    input: Rows
    pre_activation: Tensor
    activation: Tensor
    known_slope: Tensor | None
    derivative: Callable[[Tensor, Tensor], Tensor] | None
    delta: Tensor
    weight_gradient: Tensor
    bias_gradient: Tensor

    @property
    def slope(self) -> Tensor:
        """`σ'(z_l) [batch, out]`, computed when it is asked for: of all layers it takes as much as the activations."""
        if self.known_slope is not None:
            return self.known_slope
        assert self.derivative is not None
        return self.derivative(self.pre_activation, self.activation)

    def __getitem__(self, number: int) -> "LayerTrace":
        """That of one of many."""
        every = {field.name: getattr(self, field.name) for field in fields(self)}
        own: dict[str, Any] = {
            name: value[number] for name, value in every.items() if isinstance(value, Tensor | SparseRows)
        }
        return replace(self, **own)


@dataclass(frozen=True)
class Trace:
    """Every layer in the order of the forward pass, and the mean BCE of the batch: a scalar, of many `[n]`."""

    layers: list[LayerTrace]
    loss: Tensor

    def __getitem__(self, number: int) -> "Trace":
        """That of one of many."""
        return Trace([layer[number] for layer in self.layers], self.loss[number])


def trace(
    model: nn.Module,
    x: Rows,
    y: Tensor,
    class_weight: Tensor | None = None,
    sample_weight: Tensor | None = None,
    *,
    backward: Literal["equations", "autograd"] = "equations",
) -> Trace:
    """Run one batch forward and backward; neither the model nor its `.grad` changes.

    Args:
        model: a `SigmoidMLP`; for autograd any chain of `nn.Linear` layers with biases and elementwise
            activations between them that returns logits.
        x: `[batch, features]`, sparse or not.
        y: `[batch, outputs]`, in [0, 1].
        class_weight: `[classes]`, see `equations.binary_cross_entropy`.
        sample_weight: `[batch, 1]`, see there.
        backward: who computes it.

    Raises:
        ValueError: the model is not such a network.
    """
    if backward == "autograd":
        return _by_autograd(model, x, y, class_weight, sample_weight)
    if not isinstance(model, SigmoidMLP):
        raise ValueError("backward=equations: only a SigmoidMLP has them; use backward=autograd")
    passed = Backpropagation(model).backward_pass(x, y, class_weight, sample_weight)
    loss = equations.binary_cross_entropy(passed.logits, y, class_weight, sample_weight)
    return Trace(
        _of_one(layer_names(passed.deltas), model.linear_layers, passed, model.activation), loss.detach()
    )


@torch.no_grad()
def trace_many(
    weights: Sequence[Tensor],
    biases: Sequence[Tensor],
    activation: Activation,
    x: Rows,
    y: Tensor,
    class_weight: Tensor | None = None,
) -> Trace:
    """`trace` of many networks of one shape by the equations, each on rows of its own.

    Args:
        weights: `[n, out, in]` of each layer.
        biases: `[n, 1, out]` of each layer.
        activation: of the hidden layers.
        x: `[n, batch, features]`; of one network it may be sparse.
        y: `[n, batch, outputs]`, in [0, 1].
        class_weight: `[n, 1, classes]`, see `equations.binary_cross_entropy`.
    """
    forward = equations.forward(x, weights, biases, activation)
    error = equations.output_delta(forward.logits, y, class_weight)
    deltas = equations.deltas(forward, weights, error, activation)
    passed = BackwardPass(forward, deltas, list(equations.gradients(forward, deltas)))
    losses = equations.binary_cross_entropies(forward.logits, y, class_weight)
    return Trace(layers_of(layer_names(deltas), weights, passed, activation), losses)


def layer_names(layers: Sequence[object]) -> list[str]:
    """Of the layers of a `SigmoidMLP`."""
    return [f"layers.{index}" for index in range(len(layers))]


@torch.no_grad()
def layers_of(
    names: Sequence[str],
    weights: Sequence[Tensor],
    passed: BackwardPass,
    activation: Activation | None = None,
) -> list[LayerTrace]:
    """The record of a pass, or of many joined, with their leading axis.

    Args:
        names: of the layers.
        weights: `[passes, out, in]` of each, as they were.
        passed: what the pass computed.
        activation: of the hidden layers, where the pass has no slopes.
    """
    forward = passed.forward
    probability = torch.sigmoid(forward.logits)
    activations = [*forward.activations, probability]
    hidden = len(forward.activations)
    slopes: list[Tensor | None] = [None] * hidden if passed.slopes is None else list(passed.slopes)
    slopes.append(None)
    derivatives = [None if activation is None else activation.derivative] * hidden
    derivatives.append(ACTIVATIONS["sigmoid"].derivative)
    return [
        LayerTrace(
            name,
            weights[index],
            forward.inputs[index],
            forward.pre_activations[index],
            activations[index],
            slopes[index],
            derivatives[index],
            passed.deltas[index],
            passed.gradients[index][0],
            passed.gradients[index][1][..., 0, :],
        )
        for index, name in enumerate(names)
    ]


def _of_one(
    names: Sequence[str],
    linear: Sequence[nn.Linear],
    passed: BackwardPass,
    activation: Activation | None = None,
) -> list[LayerTrace]:
    """The record of one pass, without the leading axis; its weights are a copy, which no step will change."""
    weights = [layer.weight.detach().clone()[None] for layer in linear]
    return [layer[0] for layer in layers_of(names, weights, passed, activation)]


class AutogradRecorder:
    """Records the linear layers of one forward pass, so that autograd's backward pass has a trace.

    Use it as a context around `logits = model(x)`; `passed(...)`, given what autograd found, is the pass.

    Args:
        model: a chain of `nn.Linear` layers as in `trace`.
    """

    def __init__(self, model: nn.Module) -> None:
        self.linear = {name: layer for name, layer in model.named_modules() if isinstance(layer, nn.Linear)}
        self.names: list[str] = []
        self.inputs: list[Rows] = []
        self.pre_activations: list[Tensor] = []
        self._slopes: list[Tensor] = []

    def __enter__(self) -> "AutogradRecorder":
        def keep(name: str, a_in: Rows, z: Tensor) -> None:
            if self.pre_activations and isinstance(a_in, Tensor):
                self._slopes.append(_elementwise_derivative(a_in, self.pre_activations[-1]))
            self.names.append(name)
            self.inputs.append(a_in)
            self.pre_activations.append(z)

        self._hooks = [
            layer.register_forward_hook(lambda _, given, z, name=name: keep(name, given[0], z))
            for name, layer in self.linear.items()
        ]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, place: TracebackType | None
    ) -> None:
        for hook in self._hooks:
            hook.remove()

    def require_chain(self, logits: Tensor) -> None:
        """Raises a ValueError if these layers are not a chain that ends in the logits."""
        if not self.names or self.pre_activations[-1] is not logits:
            raise ValueError("model: must end in an nn.Linear layer that gives the logits")
        if len(set(self.names)) < len(self.names):
            raise ValueError("model: must use each nn.Linear layer once")
        layers = [self.linear[name] for name in self.names]
        for layer, following in pairwise(layers):
            if layer.out_features != following.in_features:
                raise ValueError(NO_CHAIN)
        if any(layer.bias is None for layer in layers):
            raise ValueError("model: every nn.Linear layer must have a bias")

    def retain(self, logits: Tensor) -> None:
        """Have the coming `loss.backward()` keep the deltas, for `retained`.

        Raises:
            ValueError: as `require_chain`.
        """
        self.require_chain(logits)
        for z in self.pre_activations:
            z.retain_grad()

    def retained(self) -> BackwardPass:
        """The pass after `loss.backward()`."""
        linear = [self.linear[name] for name in self.names]
        return self.passed(
            [_gradient(z) for z in self.pre_activations],
            [(_gradient(layer.weight), _gradient(layer.bias)) for layer in linear],
        )

    def passed(self, deltas: Sequence[Tensor], gradients: Sequence[tuple[Tensor, Tensor]]) -> BackwardPass:
        """The pass, first layer first, detached from the graph.

        Args:
            deltas: `∂L/∂z [batch, out]` of every layer.
            gradients: of every layer's weight `[out, in]` and bias `[out]`.
        """
        return BackwardPass(
            ForwardPass(
                self.inputs[0].detach()[None],
                [a_in.detach()[None] for a_in in self.inputs[1:] if isinstance(a_in, Tensor)],
                [z.detach()[None] for z in self.pre_activations],
            ),
            [delta[None] for delta in deltas],
            [(weight[None], bias[None, None]) for weight, bias in gradients],
            [slope[None] for slope in self._slopes],
        )


@torch.enable_grad()
def _by_autograd(
    model: nn.Module,
    x: Rows,
    y: Tensor,
    class_weight: Tensor | None,
    sample_weight: Tensor | None,
) -> Trace:
    with AutogradRecorder(model) as recorder:
        logits = model(x.detach())
    recorder.require_chain(logits)
    loss = equations.binary_cross_entropy(logits, y, class_weight, sample_weight)
    linear = [recorder.linear[name] for name in recorder.names]
    wanted = [*recorder.pre_activations, *(p for layer in linear for p in (layer.weight, layer.bias))]
    found = torch.autograd.grad(loss, wanted)
    depth = len(linear)
    gradients = list(zip(found[depth::2], found[depth + 1 :: 2], strict=True))
    passed = recorder.passed(found[:depth], gradients)
    return Trace(_of_one(recorder.names, linear, passed), loss.detach())


def _elementwise_derivative(a: Tensor, z: Tensor) -> Tensor:
    """`∂a/∂z` of an activation: elementwise, so the derivative of the sum is that of each element."""
    slope = (
        torch.autograd.grad(a.sum(), z, retain_graph=True, allow_unused=True)[0] if a.requires_grad else None
    )
    if slope is None:
        raise ValueError(NO_CHAIN)
    return slope


def _gradient(tensor: Tensor) -> Tensor:
    assert tensor.grad is not None, "backward has not run"
    return tensor.grad
