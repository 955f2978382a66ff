"""One forward and backward pass of a `SigmoidMLP` by the equations."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from backlight.backprop import equations
from backlight.backprop.equations import ForwardPass
from backlight.backprop.sparse import Rows, concatenate
from backlight.model import SigmoidMLP


@dataclass(frozen=True)
class BackwardPass:
    """What one step of back-propagation computed.

    Tensors have a leading axis, of one member for a single network: `deltas[l]` is
    `delta_l [1, batch, neurons]`; `gradients[l]` are those of the weights `[1, out, in]` and of the
    biases `[1, 1, out]`; `slopes[l]` is `σ'(z_l) [1, batch, neurons]` of the hidden layers where autograd
    found it, else None: the activation's derivative gives it.
    """

    forward: ForwardPass
    deltas: list[Tensor]
    gradients: list[tuple[Tensor, Tensor]]
    slopes: list[Tensor] | None = None

    @property
    def logits(self) -> Tensor:
        """`[batch, outputs]`"""
        return self.forward.logits[0]


def join(passes: Sequence[BackwardPass]) -> BackwardPass:
    """Passes over batches of one size as one, one after the other along the leading axis."""
    if len(passes) == 1:
        return passes[0]
    return BackwardPass(
        ForwardPass(
            concatenate([passed.forward.x for passed in passes]),
            _join([passed.forward.activations for passed in passes]),
            _join([passed.forward.pre_activations for passed in passes]),
        ),
        _join([passed.deltas for passed in passes]),
        [
            (torch.cat([weight for weight, _ in same]), torch.cat([bias for _, bias in same]))
            for same in zip(*(passed.gradients for passed in passes), strict=True)
        ],
        None if passes[0].slopes is None else _join([passed.slopes or [] for passed in passes]),
    )


def _join(lists: Sequence[list[Tensor]]) -> list[Tensor]:
    return [torch.cat(same) for same in zip(*lists, strict=True)]


class Backpropagation:
    """Back-propagation through one network, batch after batch.

    It reads the parameters through views made once: valid while they change in place, as optimizers and
    `load_state_dict` do, and not after the model has moved to another device.

    Args:
        model: the network.
        gradients: memory for the gradient of each parameter, for passes that nobody keeps.
    """

    def __init__(self, model: SigmoidMLP, gradients: Sequence[Tensor] | None = None) -> None:
        self._parameters = [(layer.weight, layer.bias) for layer in model.linear_layers]
        self._weights = [weight.detach()[None] for weight, _ in self._parameters]
        self._biases = [bias.detach()[None, None] for _, bias in self._parameters]
        self._activation = model.activation
        memory = gradients or [torch.empty_like(parameter) for pair in self._parameters for parameter in pair]
        self._gradients = list(zip(memory[::2], memory[1::2], strict=True))
        self._stacked = [
            (weight.detach()[None], bias.detach()[None, None]) for weight, bias in self._gradients
        ]
        self._spare: dict[int, BackwardPass] = {}
        """The last pass that nobody keeps, by its rows."""

    def backward_pass(
        self,
        x: Rows,
        y: Tensor,
        positive_weight: Tensor | None = None,
        sample_weight: Tensor | None = None,
        batch_size: float | None = None,
    ) -> BackwardPass:
        """Differentiate the mean BCE of this batch; the model and its `.grad` stay as they are.

        Args:
            x: `[batch, features]`, sparse or not.
            y: `[batch, outputs]`, in [0, 1].
            positive_weight: `[outputs]`, see `equations.binary_cross_entropy`.
            sample_weight: `[batch, 1]`, see there.
            batch_size: rows of the whole batch where this is only one process's share of it.
        """
        return self._pass(x, y, positive_weight, sample_weight, batch_size)

    def backpropagate(
        self,
        x: Rows,
        y: Tensor,
        positive_weight: Tensor | None = None,
        sample_weight: Tensor | None = None,
        batch_size: float | None = None,
        *,
        is_kept: bool = True,
    ) -> BackwardPass:
        """`backward_pass`, and set `.grad` of every parameter to its gradient.

        Without `is_kept` only the logits of the result are good beyond the next call: fresh memory for each step
        costs more than what is computed in it.
        """
        if is_kept or not isinstance(x, Tensor):
            result = self._pass(x, y, positive_weight, sample_weight, batch_size)
            gradients = [
                # Optimizers want the memory of a gradient to run as that of its parameter does.
                (_laid_out_like(weight, of_weight[0]), of_bias[0, 0])
                for (weight, _), (of_weight, of_bias) in zip(self._parameters, result.gradients, strict=True)
            ]
        else:
            spare = self._spare.get(len(y))
            result = self._pass(x, y, positive_weight, sample_weight, batch_size, spare, self._stacked)
            gradients = self._gradients
            if spare is None:
                self._spare = {len(y): result}
        for (weight, bias), (of_weight, of_bias) in zip(self._parameters, gradients, strict=True):
            weight.grad, bias.grad = of_weight, of_bias
        return result

    def _pass(
        self,
        x: Rows,
        y: Tensor,
        positive_weight: Tensor | None,
        sample_weight: Tensor | None,
        batch_size: float | None,
        spare: BackwardPass | None = None,
        memory: Sequence[tuple[Tensor, Tensor]] | None = None,
    ) -> BackwardPass:
        """Write to the memory of `spare`, a pass over as many rows, and the gradients to `memory`."""
        forward, deltas = (None, None) if spare is None else (spare.forward, spare.deltas)
        passed = equations.forward(x.detach()[None], self._weights, self._biases, self._activation, forward)
        error = equations.output_delta(passed.logits, y[None], positive_weight, sample_weight, batch_size)
        deltas = equations.deltas(passed, self._weights, error, self._activation, deltas)
        return BackwardPass(passed, deltas, equations.gradients(passed, deltas, memory))


def _laid_out_like(weight: Tensor, gradient: Tensor) -> Tensor:
    return gradient.contiguous() if weight.is_contiguous() else gradient.mT.contiguous().mT
