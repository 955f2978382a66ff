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
    aten.div_.Tensor: Tensor.div_,
    aten.mul.out: torch.mul,
    aten.mul_.Tensor: Tensor.mul_,
    aten.sub_.Tensor: Tensor.sub_,
    aten.sum.IntList_out: torch.sum,
}
"""Names of the same operations that take half as long to call."""


class Tape(TorchDispatchMode):
    """Records what is computed within it, and repeats that: the same operations, bit for bit, on the same memory.

    It is to a CPU what a CUDA graph is to a GPU: around the operations of a small network Python takes longer than they
    do. What was there before, as the parameters, is read where it lies, and its views are taken once; the inputs may
    be others each time. Of what changes only those views are taken that something is computed with, each in one step.
    Nothing may be decided by the numbers in a tensor.

    Args:
        inputs: tensors, all others of their shapes and strides each time.

    Raises:
        NotImplementedError: within it, something was computed that it cannot repeat.
    """

    def __init__(self, *inputs: Tensor) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # PyTorch's
        self._values: list[Tensor] = []
        """The inputs, and what is made anew of them each time."""
        self._places: dict[int, tuple[int, Tensor]] = {}
        """By its id a tensor that is one of these, or a view of one, and which."""
        self._calls: list[tuple[Callable[[], Any], int | None]] = []
        """In turn, and which of the values each makes anew."""
        self._results: list[Callable[[], Tensor]] = []
        self._shown: list[Callable[[], Tensor]] = []
        for tensor in inputs:
            self._add(tensor)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        given = [*args, *kwargs.values()]
        together = [each for some in given if isinstance(some, list | tuple) for each in some]
        if any(id(each) in self._places for each in together):
            raise NotImplementedError(f"{func}: no tape takes lists of what changes")
        is_view = any(returned.alias_info is not None for returned in func._schema.returns)
        if is_view and not func._schema.is_mutable:
            viewed = next((self._places[id(each)][0] for each in given if id(each) in self._places), None)
            if viewed is None:
                return result
            if isinstance(result, Tensor) and _starts_alike(result, self._values[viewed]):
                self._places[id(result)] = viewed, result
                return result
        function = QUICKER.get(func, func)
        if func._schema.is_mutable:
            self._calls.append((self._call(function, args, kwargs), None))
        elif func in GIVEN_MEMORY:
            self._calls.append((self._call(GIVEN_MEMORY[func], args, {**kwargs, "out": result}), None))
        else:
            if not isinstance(result, Tensor):
                raise NotImplementedError(f"{func}: a tape repeats what gives one tensor")
            self._calls.append((self._call(function, args, kwargs), self._add(result)))
        return result

    def returns(self, results: Sequence[Tensor], shown: Sequence[Tensor] = ()) -> None:
        """End the recording with what `repeat` is to return, and what `shown` is."""
        self._results, self._shown = (list(map(self._reader, tensors)) for tensors in (results, shown))
        self._places.clear()

    def shown(self) -> list[Tensor]:
        """What was computed last, good until the next time."""
        return [read() for read in self._shown]

    def repeat(self, *inputs: Tensor) -> list[Tensor]:
        """Compute the same of these; what it returns is good until the next time."""
        values = self._values
        values[: len(inputs)] = inputs
        for call, made in self._calls:
            result = call()
            if made is not None:
                values[made] = result
        return [read() for read in self._results]

    def _call(
        self, function: Callable[..., Any], args: Sequence[Any], kwargs: dict[str, Any]
    ) -> Callable[[], Any]:
        """Of this with the arguments of then, but for those that are made anew."""
        values, given = self._values, list(args)
        changing = [(at, self._number(arg)) for at, arg in enumerate(args) if id(arg) in self._places]
        named = [(at, self._number(arg)) for at, arg in kwargs.items() if id(arg) in self._places]
        if not changing and not named:
            return partial(function, *args, **kwargs)

        def call() -> Any:
            for at, number in changing:
                given[at] = values[number]
            for name, number in named:
                kwargs[name] = values[number]
            return function(*given, **kwargs)

        return call

    def _number(self, tensor: Tensor) -> int:
        """Of one of the values; a view of one is a value too from when something is computed with it."""
        viewed, _ = self._places[id(tensor)]
        if _lies_alike(tensor, self._values[viewed]):
            return viewed
        read = self._reader(tensor)
        number = self._add(tensor)
        self._calls.append((read, number))
        return number

    def _reader(self, tensor: Tensor) -> Callable[[], Tensor]:
        """What gives this tensor as it is then."""
        if id(tensor) not in self._places:
            return lambda: tensor
        values, (number, _) = self._values, self._places[id(tensor)]
        if _lies_alike(tensor, values[number]):
            return lambda: values[number]
        shape, stride = tensor.shape, tensor.stride()
        return lambda: values[number].as_strided(shape, stride)

    def _add(self, tensor: Tensor) -> int:
        number = len(self._values)
        self._places[id(tensor)] = number, tensor
        self._values.append(tensor)
        return number


def _starts_alike(view: Tensor, viewed: Tensor) -> bool:
    return view.dtype == viewed.dtype and view.storage_offset() == viewed.storage_offset()


def _lies_alike(view: Tensor, viewed: Tensor) -> bool:
    return view.shape == viewed.shape and view.stride() == viewed.stride()
