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
    """

    def __init__(self, model: SigmoidMLP) -> None:
        self._parameters = [(layer.weight, layer.bias) for layer in model.linear_layers]
        self._weights = [weight.detach()[None] for weight, _ in self._parameters]
        self._biases = [bias.detach()[None, None] for _, bias in self._parameters]
        self._activation = model.activation
        self._spare: dict[int, tuple[BackwardPass, list[tuple[Tensor, Tensor]]]] = {}
        """The last pass that nobody keeps, by its rows, and its gradients in the shapes of the parameters."""

    def backward_pass(
        self,
        x: Rows,
        y: Tensor,
        positive_weight: Tensor | None = None,
        sample_weight: Tensor | None = None,
        batch_size: float | None = None,
        spare: BackwardPass | None = None,
    ) -> BackwardPass:
        """Differentiate the mean BCE of this batch; the model and its `.grad` stay as they are.

        Args:
            x: `[batch, features]`, sparse or not.
            y: `[batch, outputs]`, in [0, 1].
            positive_weight: `[outputs]`, see `equations.binary_cross_entropy`.
            sample_weight: `[batch, 1]`, see there.
            batch_size: rows of the whole batch where this is only one process's share of it.
            spare: of a batch with as many rows, whose memory may be written to.
        """
        forward, deltas, gradients = (
            (None, None, None) if spare is None else (spare.forward, spare.deltas, spare.gradients)
        )
        passed = equations.forward(x.detach()[None], self._weights, self._biases, self._activation, forward)
        error = equations.output_delta(passed.logits, y[None], positive_weight, sample_weight, batch_size)
        deltas = equations.deltas(passed, self._weights, error, self._activation, deltas)
        return BackwardPass(passed, deltas, equations.gradients(passed, deltas, gradients))

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
        spare, gradients = (None, None) if is_kept else self._spare.get(len(y), (None, None))
        result = self.backward_pass(x, y, positive_weight, sample_weight, batch_size, spare)
        gradients = gradients or [
            # Optimizers want the memory of a gradient to run as that of its parameter does.
            (_laid_out_like(weight, of_weight[0]), of_bias[0, 0])
            for (weight, _), (of_weight, of_bias) in zip(self._parameters, result.gradients, strict=True)
        ]
        if not is_kept and isinstance(x, Tensor) and spare is None:
            self._spare = {len(y): (result, gradients)}
        for (weight, bias), (of_weight, of_bias) in zip(self._parameters, gradients, strict=True):
            weight.grad, bias.grad = of_weight, of_bias
        return result


def _laid_out_like(weight: Tensor, gradient: Tensor) -> Tensor:
    return gradient.contiguous() if weight.is_contiguous() else gradient.mT.contiguous().mT
