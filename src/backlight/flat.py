"""All parameters as one vector, so that an optimizer makes its step in few operations."""

from collections import defaultdict
from collections.abc import Callable, Sequence
from copy import copy, deepcopy
from functools import partial
from inspect import unwrap
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim import SGD, Adam, AdamW, Optimizer, RMSprop

Tensors = Sequence[Tensor]


class FlatOptimizer:
    """Makes the steps of an optimizer on all its parameters at once: the same numbers, bit for bit.

    The parameters become views of one vector. A step of a small network is bound by the number of operations, and
    each of these rules does the same to every number.

    Args:
        optimizer: one that it `takes`.
        for_graphs: count its steps on the GPU, where a CUDA graph can.

    As a context it takes over what has changed in the optimizer, and gives back its state at the end.
    """

    RULES = (SGD, Adam, AdamW, RMSprop)
    OF_SGD = ("lr", "momentum", "dampening", "nesterov", "weight_decay", "maximize")
    LINE = 16
    """Numbers in a line of the CPU's cache: of whole lines PyTorch's fused SGD computes what its plain one does."""

    def __init__(self, optimizer: Optimizer, *, for_graphs: bool = False) -> None:
        self._optimizer = optimizer
        self._for_graphs = for_graphs
        self._parameters: list[nn.Parameter] = optimizer.param_groups[0]["params"]
        self._sizes = [parameter.numel() for parameter in self._parameters]
        self._sizes.append(-sum(self._sizes) % self.LINE)
        self._vector = self._joined(self._parameters)
        self._vector.grad = torch.zeros_like(self._vector)
        self.gradients = self._views(self._vector.grad)
        """Memory for the gradient of each parameter; one that lies elsewhere is copied there if need be."""
        for parameter, view in zip(self._parameters, self._views(self._vector), strict=True):
            parameter.data = view
        self._flat: Optimizer | None = None
        self._make_step = unwrap(type(optimizer).step)
        self._fused_sgd: Callable[[Tensors, Tensors, Tensors], object] | None = None
        """SGD's step with values, their gradients and their momentum, if they are ready for it."""
        self._parts: dict[tuple[int, ...], tuple[Tensors, Tensors, Tensors]] = {}
        """These three, cut so that every second part is one of the parameters of these numbers."""
        starts = accumulate(self._sizes[:-1], initial=0)
        self._may_lie_apart = {
            number
            for number, (start, size) in enumerate(zip(starts, self._sizes, strict=True))
            if start % self.LINE == size % self.LINE == 0
        }

    @classmethod
    def takes(cls, optimizer: Optimizer, model: nn.Module) -> bool:
        """Whether it is one of these rules, with the same options for all that the model has, laid out as usual."""
        parameters = list(model.parameters())
        # PyTorch's fused Adam rounds the last numbers of a tensor otherwise on the CPU, if they fill no line.
        rounds_ends = optimizer.param_groups[0].get("fused") and parameters[0].device.type == "cpu"
        return (
            type(optimizer) in cls.RULES
            and not rounds_ends
            and [list(map(id, group["params"])) for group in optimizer.param_groups]
            == [list(map(id, parameters))]
            and all(parameter.is_contiguous() for parameter in parameters)
            and len({(parameter.dtype, parameter.device) for parameter in parameters}) == 1
        )

    def step(self) -> None:
        """As `optimizer.step()`, without its wrapper for PyTorch's profiler, which costs as much again.

        Autograd must be off.
        """
        given = self._apart()
        if given and not (self._fused_sgd and self._may_lie_apart.issuperset(given)):
            self.gathered()
            given = {}
        if self._fused_sgd is None:
            self._make_step(self._flat)
            self._prepare_fused_sgd()
            return
        apart = tuple(given)
        if apart not in self._parts:
            self._parts[apart] = self._cut(apart)
        values, gradients, momenta = self._parts[apart]
        if given:  # to copy large ones to the vector would take longer
            gradients = list(gradients)
            gradients[1::2] = [gradient.view(-1) for gradient in given.values()]
        self._fused_sgd(values, gradients, momenta)

    def gathered(self) -> Tensor:
        """All gradients as one vector, which they are views of from now on."""
        for number, gradient in self._apart().items():
            self._parameters[number].grad = self.gradients[number].copy_(gradient)
        assert self._vector.grad is not None
        return self._vector.grad

    def _apart(self) -> dict[int, Tensor]:
        """The gradients that do not lie in the memory for them, by the number of the parameter."""
        return {
            number: parameter.grad
            for number, (parameter, memory) in enumerate(zip(self._parameters, self.gradients, strict=True))
            if parameter.grad is not memory and parameter.grad is not None
        }

    def __enter__(self) -> None:
        if self._flat is None:
            self._flat = copy(self._optimizer)
            self._flat.state = defaultdict(
                dict, {self._vector: self._joined_state()} if self._optimizer.state else {}
            )
            # It would warn that steps are made without a graph, as the first is.
            self._flat._warned_capturable_if_run_uncaptured = True
        group = {**self._optimizer.param_groups[0], "params": [self._vector]}
        if self._vector.device.type == "cpu":
            # What it would come to by itself, after a look at all parameters in each step.
            group["foreach"] = bool(group["foreach"])
        if self._for_graphs and "capturable" in group:
            group["capturable"] = True
        self._flat.param_groups = [group]
        self._prepare_fused_sgd()

    def __exit__(self, *_: object) -> None:
        assert self._flat is not None
        state = self._flat.state[self._vector]
        views = {name: self._views(value) for name, value in state.items() if self._is_of_vector(value)}
        for number, parameter in enumerate(self._parameters if state else []):
            # A copy of the count of steps for each: the optimizer itself adds to that of every parameter.
            self._optimizer.state[parameter] = {
                name: views[name][number] if name in views else deepcopy(value)
                for name, value in state.items()
            }

    def _prepare_fused_sgd(self) -> None:
        """Make it of SGD on the CPU that has its momentum; PyTorch's own step takes three times as long."""
        assert self._flat is not None
        self._fused_sgd, self._parts = None, {}
        group = self._flat.param_groups[0]
        if type(self._optimizer) is not SGD or self._vector.device.type != "cpu":
            return
        if not group["momentum"] or "momentum_buffer" in self._flat.state[self._vector]:
            options = {name: group[name] for name in self.OF_SGD}
            self._fused_sgd = partial(torch._fused_sgd_, **options, is_first_step=False)

    def _cut(self, apart: Sequence[int]) -> tuple[Tensors, Tensors, Tensors]:
        sizes = [0]
        for number, size in enumerate(self._sizes):
            if number in apart:
                sizes += [size, 0]
            else:
                sizes[-1] += size
        assert self._flat is not None and self._vector.grad is not None
        momentum = self._flat.state[self._vector].get("momentum_buffer")
        return (
            self._vector.split(sizes),
            self._vector.grad.split(sizes),
            [] if momentum is None else momentum.split(sizes),
        )

    def _views(self, vector: Tensor) -> list[Tensor]:
        *parts, _ = vector.split(self._sizes)
        return [part.view(parameter.shape) for part, parameter in zip(parts, self._parameters, strict=True)]

    def _joined(self, tensors: Sequence[Tensor]) -> Tensor:
        """One of each parameter's shape as a vector, with zeros to whole lines."""
        joined = torch.cat([tensor.detach().flatten() for tensor in tensors])
        return functional.pad(joined, (0, self._sizes[-1]))

    def _joined_state(self) -> dict[str, Any]:
        """The state of all parameters as that of the vector; a count of steps is the same for all."""
        states = [self._optimizer.state[parameter] for parameter in self._parameters]
        return {
            name: self._joined([state[name] for state in states])
            if isinstance(value, Tensor) and value.shape == self._parameters[0].shape
            else self._count(value)
            for name, value in states[0].items()
        }

    def _count(self, value: Any) -> Any:
        is_read_by_graphs = self._for_graphs and isinstance(value, Tensor)
        return value.to(self._vector.device) if is_read_by_graphs else value

    def _is_of_vector(self, value: Any) -> bool:
        return isinstance(value, Tensor) and value.shape == self._vector.shape
