"""Many networks of one shape, stacked: `[members, …]` in front of everything a single one has.

Parameters are given with three axes, as the optimizers want them; the middle one of a bias is 1.
"""

from collections.abc import Iterable, Sequence
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

from backlight.backprop import equations
from backlight.backprop.activations import Activation
from backlight.backprop.equations import ForwardPass
from backlight.backprop.products import can_share, for_each, linear


class StackedNetwork(Protocol):
    """Computes what every member computes for its own rows."""

    def stack(self, parameters: Iterable[Sequence[Tensor]]) -> list[Tensor]:
        """Those of each member, in the order of the module's own, as `[members, …, …]`."""
        ...

    def logits(self, x: Tensor, parameters: Sequence[Tensor]) -> Tensor:
        """`[members, rows, outputs]` of x as in `gradients`."""
        ...

    def scores(self, x: Tensor, parameters: Sequence[Tensor]) -> Tensor:
        """The same, bit for bit as the module alone: rows of nearly one score keep their order."""
        ...

    def gradients(
        self, x: Tensor, targets: Tensor, class_weight: Tensor | None, parameters: Sequence[Tensor]
    ) -> tuple[Tensor, list[Tensor]]:
        """The logits, and the gradients of each member's mean BCE, which are good until the next call.

        Args:
            x: `[members, batch, features]`, or fewer: then each serves equally many members in a row.
            targets: `[members, batch, outputs]`, in [0, 1].
            class_weight: `[members, 1, classes]`, see `equations.binary_cross_entropy`.
            parameters: of all members.
        """
        ...


class ByEquations:
    """A `SigmoidMLP`, with back-propagation written out.

    Args:
        activation: of its hidden layers.
    """

    def __init__(self, activation: Activation) -> None:
        self._activation = activation
        self._spare: dict[
            tuple[torch.Size, torch.Size], tuple[ForwardPass, list[Tensor], list[tuple[Tensor, Tensor]]]
        ] = {}
        """What the last call computed, by the shapes of its batch: the next one writes to the same memory."""

    def stack(self, parameters: Iterable[Sequence[Tensor]]) -> list[Tensor]:
        """Weights `[members, out, in]` and biases `[members, 1, out]`, layer by layer."""
        stacked = [torch.stack(same) for same in zip(*parameters, strict=True)]
        return [tensor if tensor.ndim == 3 else tensor[:, None] for tensor in stacked]

    def logits(self, x: Tensor, parameters: Sequence[Tensor]) -> Tensor:
        """The forward half alone."""
        x = _rows_for(parameters[0], x)
        return equations.forward(x, parameters[::2], parameters[1::2], self._activation).logits

    def scores(self, x: Tensor, parameters: Sequence[Tensor]) -> Tensor:
        """In the very products of `SigmoidMLP`."""
        x = for_each(x, len(parameters[0]))
        *hidden, last = zip(parameters[::2], parameters[1::2], strict=True)
        for weight, bias in hidden:
            x = self._activation.steady(linear(x, weight, bias))
        return linear(x, *last)

    def gradients(
        self, x: Tensor, targets: Tensor, class_weight: Tensor | None, parameters: Sequence[Tensor]
    ) -> tuple[Tensor, list[Tensor]]:
        """The four equations, over all members at once."""
        weights = parameters[::2]
        x = _rows_for(weights[0], x)
        shapes = x.shape, targets.shape
        forward, deltas, gradients = self._spare.get(shapes, (None, None, None))
        passed = equations.forward(x, weights, parameters[1::2], self._activation, forward)
        error = equations.output_delta(passed.logits, targets, class_weight)
        deltas = equations.deltas(passed, weights, error, self._activation, deltas)
        gradients = list(equations.gradients(passed, deltas, gradients))
        self._spare = {shapes: (passed, deltas, gradients)}
        return passed.logits, [gradient for layer in gradients for gradient in layer]


def _rows_for(weight: Tensor, x: Tensor) -> Tensor:
    """X as a first layer's weights `[members, out, in]` of all members can take it."""
    return x if can_share(weight, x) else for_each(x, len(weight))


class ByAutograd:
    """Any module of rows that has parameters only, no buffers: `torch.func` differentiates it, member by member.

    Args:
        model: one of the members; it is not changed.
    """

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._shapes = {name: parameter.shape for name, parameter in model.named_parameters()}

    def stack(self, parameters: Iterable[Sequence[Tensor]]) -> list[Tensor]:
        """Each as one row `[members, 1, entries]`: its shape is the module's own affair."""
        return [torch.stack(same).reshape(len(same), 1, -1) for same in zip(*parameters, strict=True)]

    def logits(self, x: Tensor, parameters: Sequence[Tensor]) -> Tensor:
        """The module of each member."""
        result: Tensor = vmap(self._one)(list(parameters), for_each(x, len(parameters[0])))
        return result

    scores = logits

    def gradients(
        self, x: Tensor, targets: Tensor, class_weight: Tensor | None, parameters: Sequence[Tensor]
    ) -> tuple[Tensor, list[Tensor]]:
        """Reverse-mode differentiation of each member's loss."""
        x = for_each(x, len(targets))

        def loss(
            own: list[Tensor], x: Tensor, targets: Tensor, weight: Tensor | None
        ) -> tuple[Tensor, Tensor]:
            logits = self._one(own, x)
            return equations.binary_cross_entropy(logits, targets, weight), logits

        with torch.enable_grad():
            differentiate = vmap(
                grad(loss, has_aux=True), in_dims=(0, 0, 0, None if class_weight is None else 0)
            )
            gradients, logits = differentiate(list(parameters), x, targets, class_weight)
        return logits, gradients

    def _one(self, parameters: list[Tensor], x: Tensor) -> Tensor:
        own = {
            name: flat.reshape(shape)
            for (name, shape), flat in zip(self._shapes.items(), parameters, strict=True)
        }
        result: Tensor = functional_call(self._model, own, (x,))
        return result
