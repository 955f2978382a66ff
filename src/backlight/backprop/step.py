"""One forward and backward pass of a `SigmoidMLP` by the equations."""

from collections.abc import Callable, Sequence
from functools import partial
from operator import itemgetter
from typing import NamedTuple

import torch
from torch import Tensor

from backlight.backprop import equations
from backlight.backprop.equations import ForwardPass
from backlight.backprop.sparse import Rows, SparseRows
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
        self._places: list[tuple[BackwardPass, list[Tensor]]] = []

    def place(self, number: int) -> BackwardPass:
        """Of the pass of this number, to be written to."""
        return self._place(number)[0]

    def keep(self, number: int, passed: BackwardPass) -> None:
        """Copy to its place what has not been written there."""
        for mine, theirs in zip(self._place(number)[1], passed.tensors, strict=True):
            if mine.data_ptr() != theirs.data_ptr():
                mine.copy_(theirs)

    def first(self, count: int) -> BackwardPass:
        """So many as one."""
        return self._all.map(lambda tensor: tensor[:count])

    def _place(self, number: int) -> tuple[BackwardPass, list[Tensor]]:
        while len(self._places) <= number:
            only = slice(len(self._places), len(self._places) + 1)
            place = self._all.map(itemgetter(only))
            self._places.append((place, place.tensors))
        return self._places[number]


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
        self._flat_parameters = [parameter for pair in self._parameters for parameter in pair]
        self._weights = [weight.detach()[None] for weight, _ in self._parameters]
        self._biases = [bias.detach()[None, None] for _, bias in self._parameters]
        self._activation = model.activation
        memory = gradients or list(map(torch.empty_like, self._flat_parameters))
        self._gradients = list(zip(memory[::2], memory[1::2], strict=True))
        self._stacked = [(weight[None], bias[None, None]) for weight, bias in self._gradients]
        self._spare: dict[int, tuple[ForwardPass, list[Tensor]]] = {}
        """Of the last pass that nobody keeps, by its rows: the forward half and the deltas."""
        self._kind: tuple[object, ...] = ()
        """Of the last pass that nobody looked at."""
        self._tape: Tape | None = None
        self._taped: tuple[object, ...] = ()
        """The kind of pass that the tape repeats."""

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
        passed, deltas = self._pass(x, y, positive_weight, sample_weight, batch_size)
        return BackwardPass(passed, deltas, list(equations.gradients(passed, deltas)))

    def differentiate(
        self,
        x: Rows,
        y: Tensor,
        positive_weight: Tensor | None = None,
        batch_size: float | None = None,
    ) -> Tensor:
        """As `backpropagate`, of a pass that nobody looks at; returns the logits `[batch, outputs]`.

        The second of a kind in a row is recorded, from where on a CPU repeats it.
        """
        if not (isinstance(x, Tensor) and x.is_cpu):
            return self.backpropagate(x, y, positive_weight, batch_size=batch_size).logits
        kind = (x.shape, y.shape, batch_size, id(positive_weight), torch.get_num_threads())
        if kind == self._taped:
            assert self._tape is not None
            logits, *gradients = self._tape.repeat(x, y)
            for parameter, gradient in zip(self._flat_parameters, gradients, strict=True):
                parameter.grad = gradient
            return logits.clone()
        if kind != self._kind:
            self._kind = kind
            return self.backpropagate(x, y, positive_weight, batch_size=batch_size).logits
        self._tape, self._taped = Tape(x, y), kind
        with self._tape:
            logits = self.backpropagate(x, y, positive_weight, batch_size=batch_size).logits
        gradients = [parameter.grad for parameter in self._flat_parameters if parameter.grad is not None]
        self._tape.returns([logits, *gradients])
        return logits.clone()

    def backpropagate(
        self,
        x: Rows,
        y: Tensor,
        positive_weight: Tensor | None = None,
        sample_weight: Tensor | None = None,
        batch_size: float | None = None,
        place: BackwardPass | None = None,
    ) -> BackwardPass:
        """`backward_pass`, and set `.grad` of every parameter to its gradient.

        Only the logits of the result are good beyond the next call, since fresh memory for each step costs more than
        what is computed in it; unless a place is given, of a batch with as many rows, to which most is written.
        """
        if not isinstance(x, Tensor):
            result = self.backward_pass(x, y, positive_weight, sample_weight, batch_size)
            for (weight, bias), (of_weight, of_bias) in zip(self._parameters, result.gradients, strict=True):
                weight.grad, bias.grad = _laid_out_like(weight, of_weight[0]), of_bias[0, 0]
            return result
        rows = y.shape[0]  # `len` takes three times as long
        if place is None:
            spare, memory = self._spare.get(rows), self._stacked
        else:
            spare, memory = (place.forward, place.deltas), place.gradients
        passed, deltas = self._pass(x, y, positive_weight, sample_weight, batch_size, spare)
        if place is None:
            self._spare = {rows: (passed, deltas)}
        gradients = []
        # A large gradient takes the place of the one before, whose memory is free for that of the next layer.
        for (weight, bias), (of_weight, of_bias), own, (room, _), found in zip(
            self._parameters,
            self._gradients,
            self._stacked,
            memory,
            equations.gradients(passed, deltas, memory),
            strict=True,
        ):
            lies_elsewhere = found[0] is not room
            if place is not None:
                torch._foreach_copy_(own[lies_elsewhere:], found[lies_elsewhere:])
            weight.grad = _laid_out_like(weight, found[0][0]) if lies_elsewhere else of_weight
            bias.grad = of_bias
            gradients.append(found)
        return BackwardPass(passed, deltas, gradients)

    def _pass(
        self,
        x: Rows,
        y: Tensor,
        positive_weight: Tensor | None,
        sample_weight: Tensor | None,
        batch_size: float | None,
        spare: tuple[ForwardPass, list[Tensor]] | None = None,
    ) -> tuple[ForwardPass, list[Tensor]]:
        """The forward half and the deltas, in the memory of `spare`, those of a pass over as many rows."""
        forward, deltas = spare or (None, None)
        stacked = (
            x[None] if isinstance(x, SparseRows) else (x.detach() if x.requires_grad else x).unsqueeze(0)
        )
        passed = equations.forward(stacked, self._weights, self._biases, self._activation, forward)
        error = equations.output_delta(passed.logits, y, positive_weight, sample_weight, batch_size)
        return passed, equations.deltas(passed, self._weights, error, self._activation, deltas)


def _room_for(count: int, tensor: Tensor) -> Tensor:
    """For so many along the leading axis, laid out like this one."""
    if tensor.is_contiguous():
        return tensor.new_empty(count, *tensor.shape[1:])
    return tensor.new_empty(count, *tensor.mT.shape[1:]).mT


def _laid_out_like(weight: Tensor, gradient: Tensor) -> Tensor:
    return gradient.contiguous() if weight.is_contiguous() else gradient.mT.contiguous().mT
