"""One forward and backward pass of a `SigmoidMLP` by the equations."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from backlight.backprop import equations
from backlight.backprop.equations import ForwardPass
from backlight.backprop.sparse import Rows
from backlight.backprop.tape import Tape
from backlight.model import SigmoidMLP


class BackwardPass(NamedTuple):
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

    @property
    def tensors(self) -> list[Tensor]:
        """All of them; the rows must not be sparse."""
        forward = self.forward
        assert isinstance(forward.x, Tensor)
        gradients = [tensor for pair in self.gradients for tensor in pair]
        computed = [*forward.activations, *forward.pre_activations, *self.deltas, *gradients]
        return [forward.x, *computed, *(self.slopes or [])]

    def map(self, change: Callable[[Tensor], Tensor]) -> "BackwardPass":
        """The same with each tensor changed; the rows must not be sparse."""
        forward = self.forward
        assert isinstance(forward.x, Tensor)
        return BackwardPass(
            ForwardPass(
                change(forward.x),
                list(map(change, forward.activations)),
                list(map(change, forward.pre_activations)),
            ),
            list(map(change, self.deltas)),
            [(change(weight), change(bias)) for weight, bias in self.gradients],
            None if self.slopes is None else list(map(change, self.slopes)),
        )


class PassMemory:
    """Room for passes over batches of one size, one after the other along the leading axis.

    Args:
        example: such a pass, over rows that are not sparse.
        room: how many there is room for.
    """

    def __init__(self, example: BackwardPass, room: int) -> None:
        self._all = example.map(partial(_room_for, room))
        self._tensors = self._all.tensors
        self._places: dict[int, list[Tensor]] = {}
        """Of those that were kept: to make hundreds takes longer than a short training."""

    def keep(self, number: int, passed: BackwardPass) -> None:
        """Copy it to the place of this number."""
        if number not in self._places:
            self._places[number] = [tensor[number : number + 1] for tensor in self._tensors]
        torch._foreach_copy_(self._places[number], passed.tensors)

    def first(self, count: int) -> BackwardPass:
        """So many as one."""
        return self._all.map(lambda tensor: tensor[:count])


class Backpropagation:
    """Back-propagation through one network, batch after batch.

    It reads the parameters through views made once: valid while they change in place, as optimizers and
    `load_state_dict` do, and not after the model has moved to another device.

    Args:
        model: the network.
        gradients: memory for the gradient of each parameter.
    """

    def __init__(self, model: SigmoidMLP, gradients: Sequence[Tensor] | None = None) -> None:
        pairs = [(layer.weight, layer.bias) for layer in model.linear_layers]
        self._parameters = [parameter for pair in pairs for parameter in pair]
        self._weights = [weight.detach()[None] for weight, _ in pairs]
        self._biases = [bias.detach()[None, None] for _, bias in pairs]
        self._activation = model.activation
        memory = gradients or list(map(torch.empty_like, self._parameters))
        self._gradients = list(zip(memory[::2], memory[1::2], strict=True))
        self._stacked = [(weight[None], bias[None, None]) for weight, bias in self._gradients]
        self._passed: BackwardPass | None = None
        """The last pass that was not repeated."""
        self._kind: tuple[object, ...] = ()
        """Of the last pass: a tape repeats those of one kind."""
        self._tape: Tape | None = None
        self._taped: tuple[object, ...] = ()
        """The kind that it repeats."""
        self._is_repeated = False
        """Whether the last pass was."""

    def backward_pass(
        self,
        x: Rows,
        y: Tensor,
        class_weight: Tensor | None = None,
        sample_weight: Tensor | None = None,
        batch_size: float | None = None,
    ) -> BackwardPass:
        """Differentiate the mean BCE of this batch; the model and its `.grad` stay as they are.

        Args:
            x: `[batch, features]`, sparse or not.
            y: `[batch, outputs]`, in [0, 1].
            class_weight: `[classes]`, see `equations.binary_cross_entropy`.
            sample_weight: `[batch, 1]`, see there.
            batch_size: rows of the whole batch where this is only one process's share of it.
        """
        forward, deltas = self._pass(x, y, class_weight, sample_weight, batch_size)
        return BackwardPass(forward, deltas, list(equations.gradients(forward, deltas)))

    def differentiate(
        self,
        x: Rows,
        y: Tensor,
        class_weight: Tensor | None = None,
        batch_size: float | None = None,
    ) -> Tensor:
        """Set `.grad` of every parameter to its gradient; returns the logits `[batch, outputs]`.

        The second pass of a kind in a row is recorded, and from then on a CPU repeats that. Arguments are those of
        `backward_pass`.
        """
        lies = x.stride() if isinstance(x, Tensor) else ()
        kind = x.shape, lies, y.shape, y.stride(), batch_size, id(class_weight), torch.get_num_threads()
        is_second, self._kind = kind == self._kind, kind
        self._is_repeated = kind == self._taped
        if self._is_repeated:
            assert isinstance(x, Tensor) and self._tape is not None
            logits, *gradients = self._tape.repeat(x, y)
            for parameter, gradient in zip(self._parameters, gradients, strict=True):
                parameter.grad = gradient
            return logits.clone()
        self._passed = None  # which frees its memory
        if not is_second or not isinstance(x, Tensor) or not x.is_cpu:
            self._passed = self._backpropagated(x, y, class_weight, batch_size)
            return self._passed.logits
        self._tape, self._taped = None, ()
        with Tape(x, y) as tape:
            self._passed = self._backpropagated(x, y, class_weight, batch_size)
            logits = self._passed.logits
        gradients = [parameter.grad for parameter in self._parameters if parameter.grad is not None]
        tape.returns([logits, *gradients], self._passed.tensors)
        self._tape, self._taped = tape, kind
        return logits.clone()

    @property
    def last(self) -> BackwardPass:
        """What the last `differentiate` computed; good until the next."""
        assert self._passed is not None
        if not self._is_repeated:
            return self._passed
        assert self._tape is not None
        tensors = iter(self._tape.shown())
        return self._passed.map(lambda _: next(tensors))

    def _backpropagated(
        self, x: Rows, y: Tensor, class_weight: Tensor | None, batch_size: float | None
    ) -> BackwardPass:
        """The pass, with `.grad` of every parameter set to its gradient."""
        forward, deltas = self._pass(x, y, class_weight, None, batch_size)
        gradients = []
        # A large gradient takes the place of the one before, whose memory is free for that of the next layer.
        for weight, bias, (of_weight, of_bias), (room, _), found in zip(
            self._parameters[::2],
            self._parameters[1::2],
            self._gradients,
            self._stacked,
            equations.gradients(forward, deltas, self._stacked),
            strict=True,
        ):
            lies_elsewhere = found[0] is not room
            weight.grad = _laid_out_like(weight, found[0][0]) if lies_elsewhere else of_weight
            bias.grad = of_bias
            gradients.append(found)
        return BackwardPass(forward, deltas, gradients)

    def _pass(
        self,
        x: Rows,
        y: Tensor,
        class_weight: Tensor | None,
        sample_weight: Tensor | None,
        batch_size: float | None,
    ) -> tuple[ForwardPass, list[Tensor]]:
        """The forward half and the deltas."""
        if isinstance(x, Tensor) and x.requires_grad:
            x = x.detach()
        stacked = x[None]
        forward = equations.forward(stacked, self._weights, self._biases, self._activation)
        error = equations.output_delta(forward.logits, y, class_weight, sample_weight, batch_size)
        return forward, equations.deltas(forward, self._weights, error, self._activation)


def _room_for(count: int, tensor: Tensor) -> Tensor:
    """For so many along the leading axis, laid out like this one."""
    if tensor.is_contiguous():
        return tensor.new_empty(count, *tensor.shape[1:])
    return tensor.new_empty(count, *tensor.mT.shape[1:]).mT


def _laid_out_like(weight: Tensor, gradient: Tensor) -> Tensor:
    return gradient.contiguous() if weight.is_contiguous() else gradient.mT.contiguous().mT
