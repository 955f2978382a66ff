"""Operations that are recorded once and then repeated on other rows, without the Python between them."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

aten = torch.ops.aten
GIVEN_MEMORY: dict[Any, Callable[..., Tensor]] = {
    aten.baddbmm.default: torch.baddbmm,
    aten.bmm.default: torch.bmm,
    aten.gelu.default: aten.gelu.out,
    aten.mul.Tensor: torch.mul,
    aten.pow.Tensor_Scalar: torch.pow,
    aten.relu.default: aten.relu.out,
    aten.sigmoid.default: torch.sigmoid,
    aten.sum.dim_IntList: torch.sum,
    aten.tanh.default: torch.tanh,
}
"""What is called, with memory to write to, in place of an operation that makes its own."""
QUICKER: dict[Any, Callable[..., Tensor]] = {
    aten.baddbmm.out: torch.baddbmm,
    aten.bmm.out: torch.bmm,
    aten.detach.default: torch.detach,
    aten.div_.Tensor: Tensor.div_,
    aten.mul.out: torch.mul,
    aten.mul_.Tensor: Tensor.mul_,
    aten.sub_.Tensor: Tensor.sub_,
    aten.sum.IntList_out: torch.sum,
    aten.transpose.int: torch.transpose,
    aten.unsqueeze.default: torch.unsqueeze,
}
"""Names of the same operations that take half as long to call."""


class Tape(TorchDispatchMode):
    """Records what is computed within it, and repeats that: the same operations, bit for bit, on the same memory.

    It is to a CPU what a CUDA graph is to a GPU: around the operations of a small network Python takes longer than they
    do. What was there before, as the parameters, is read where it lies, and its views are taken once; the inputs may
    be others each time. Nothing may be decided by the numbers in a tensor.

    Args:
        inputs: tensors, all others of their shapes each time.

    Raises:
        NotImplementedError: within it, something was computed that it cannot repeat.
    """

    def __init__(self, *inputs: Tensor) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._values: list[Tensor] = []
        """The inputs, and what is made anew of them each time."""
        self._numbers: dict[int, int] = {}
        """Where a tensor stands in these, by its id."""
        self._calls: list[Callable[[], Any]] = []
        self._results: list[int] = []
        self._shown: list[int] = []
        for tensor in inputs:
            self._add(tensor)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        given = [*args, *kwargs.values()]
        is_of_values = any(id(each) in self._numbers for each in given)
        together = [each for some in given if isinstance(some, list | tuple) for each in some]
        if any(id(each) in self._numbers for each in together):
            raise NotImplementedError(f"{func}: no tape takes lists of what changes")
        is_view = any(returned.alias_info is not None for returned in func._schema.returns)
        if is_view and not is_of_values and not func._schema.is_mutable:
            return result
        function = QUICKER.get(func, func)
        if func._schema.is_mutable:
            self._calls.append(self._call(function, args, kwargs))
        elif func in GIVEN_MEMORY:
            self._calls.append(self._call(GIVEN_MEMORY[func], args, {**kwargs, "out": result}))
        else:
            if not isinstance(result, Tensor):
                raise NotImplementedError(f"{func}: a tape repeats what gives one tensor")
            call = self._call(function, args, kwargs)
            self._calls.append(partial(self._renew, self._add(result), call))
        return result

    def returns(self, results: Sequence[Tensor], shown: Sequence[Tensor] = ()) -> None:
        """End the recording with what `repeat` is to return, and what `shown` is."""
        self._results, self._shown = (
            [self._numbers[id(t)] if id(t) in self._numbers else self._add(t) for t in tensors]
            for tensors in (results, shown)
        )
        self._numbers.clear()

    def shown(self) -> list[Tensor]:
        """What was computed last, good until the next time."""
        return [self._values[number] for number in self._shown]

    def repeat(self, *inputs: Tensor) -> list[Tensor]:
        """Compute the same of these; what it returns is good until the next time."""
        self._values[: len(inputs)] = inputs
        for call in self._calls:
            call()
        return [self._values[number] for number in self._results]

    def _call(
        self, function: Callable[..., Any], args: Sequence[Any], kwargs: dict[str, Any]
    ) -> Callable[[], Any]:
        """Of this with the arguments of then, but for those that are made anew."""
        values, given = self._values, list(args)
        changing = [(at, self._numbers[id(arg)]) for at, arg in enumerate(args) if id(arg) in self._numbers]
        named = [(at, self._numbers[id(arg)]) for at, arg in kwargs.items() if id(arg) in self._numbers]
        if not changing and not named:
            return partial(function, *args, **kwargs)

        def call() -> Any:
            for at, number in changing:
                given[at] = values[number]
            for name, number in named:
                kwargs[name] = values[number]
            return function(*given, **kwargs)

        return call

    def _renew(self, number: int, call: Callable[[], Tensor]) -> None:
        self._values[number] = call()

    def _add(self, tensor: Tensor) -> int:
        self._numbers[id(tensor)] = len(self._values)
        self._values.append(tensor)
        return len(self._values) - 1
