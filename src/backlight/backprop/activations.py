"""Activation functions and their derivatives."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

aten = torch.ops.aten

ActivationName = Literal["sigmoid", "tanh", "relu", "gelu", "square"]


@dataclass(frozen=True)
class Activation:
    """An elementwise function `a = σ(z)`, its derivative `σ'(z)`, and the product of an error with that.

    `derivative(z, a)` and `backward_(error, z, a)` are given both the pre-activation and the activation, because
    for some functions the derivative is cheapest in terms of the output. `function(z, out=None)` may be given
    memory to write to; `steady` is the same function, see `_wherever`; `backward_` makes `error ⊙ σ'(z)` of the error
    in place, in one pass.
    """

    function: Callable[..., Tensor]
    steady: Callable[..., Tensor]
    derivative: Callable[[Tensor, Tensor], Tensor]
    backward_: Callable[[Tensor, Tensor, Tensor], Tensor]


VECTOR = 32
"""Entries that PyTorch's loops on a CPU take at a time, at most; what is left in the end goes another way."""
SHARED = 32768
"""Entries from which threads share a loop, and each has an end."""


def _wherever(function: Callable[..., Tensor], z: Tensor, out: Tensor | None = None) -> Tensor:
    """`function(z)`, of which an entry is the same bit for bit wherever in memory it stands.

    So a network's numbers are those that it has among others. Not for autograd, nor for what traces operations.
    """
    size = z.numel()
    shares = min(torch.get_num_threads(), -(-size // SHARED)) if size > SHARED else 1
    whole = VECTOR * shares
    left = size % whole
    if not left or not z.is_cpu:
        return function(z, out=out)
    result = function(z) if out is None else out
    # In the order in which they lie in memory, which is that of both.
    entries, results = ((t if z.is_contiguous() else t.mT).view(-1) for t in (z, result))
    if size > whole:
        function(entries[:-left], out=results[:-left])
        # The first of these once more, which changes nothing.
        function(entries[-whole:], out=results[-whole:])
    else:
        results.copy_(function(functional.pad(entries, (0, whole - left)))[:left])
    return result


steady_sigmoid = partial(_wherever, torch.sigmoid)


def _sigmoid_derivative(_: Tensor, a: Tensor) -> Tensor:
    """`σ(z)·(1 − σ(z))`"""
    return a * (1 - a)


def _tanh_derivative(_: Tensor, a: Tensor) -> Tensor:
    """`1 − tanh²(z)`"""
    return 1 - a * a


def _relu_derivative(z: Tensor, _: Tensor) -> Tensor:
    """1 where z > 0, else 0 (also at 0, as autograd has it)"""
    return (z > 0).to(z.dtype)


def _gelu_derivative(z: Tensor, _: Tensor) -> Tensor:
    """`Φ(z) + z·φ(z)` with Φ, φ the standard normal distribution and density (Hendrycks & Gimpel 2016)."""
    cumulative = 0.5 * (1 + torch.erf(z / math.sqrt(2)))
    density = torch.exp(-0.5 * z * z) / math.sqrt(2 * math.pi)
    return cumulative + z * density


def _square_derivative(z: Tensor, _: Tensor) -> Tensor:
    """`2z`"""
    return 2 * z


def _relu(z: Tensor, out: Tensor | None = None) -> Tensor:
    return torch.relu(z) if out is None else aten.relu.out(z, out=out)


def _gelu(z: Tensor, out: Tensor | None = None) -> Tensor:
    return functional.gelu(z) if out is None else aten.gelu.out(z, out=out)


def _steady_gelu(z: Tensor, out: Tensor | None = None) -> Tensor:
    """As `_wherever`: of what lies in order it is oneDNN's, which computes all entries alike."""
    if z.is_contiguous():
        return _gelu(z, out)
    return _gelu(z.mT, None if out is None else out.mT).mT


# PyTorch's own functions for this, which autograd calls too.
def _sigmoid_backward(error: Tensor, _: Tensor, a: Tensor) -> Tensor:
    aten.sigmoid_backward.grad_input(error, a, grad_input=error)
    return error


def _tanh_backward(error: Tensor, _: Tensor, a: Tensor) -> Tensor:
    aten.tanh_backward.grad_input(error, a, grad_input=error)
    return error


def _relu_backward(error: Tensor, z: Tensor, _: Tensor) -> Tensor:
    aten.threshold_backward.grad_input(error, z, 0, grad_input=error)
    return error


def _gelu_backward(error: Tensor, z: Tensor, _: Tensor) -> Tensor:
    lying, of_z = (error, z) if z.is_contiguous() else (error.mT, z.mT)  # see `_steady_gelu`
    aten.gelu_backward.grad_input(lying, of_z, grad_input=lying)
    return error


def _square_backward(error: Tensor, z: Tensor, _: Tensor) -> Tensor:
    return error.mul_(2 * z)


ACTIVATIONS: dict[ActivationName, Activation] = {
    "sigmoid": Activation(torch.sigmoid, steady_sigmoid, _sigmoid_derivative, _sigmoid_backward),
    "tanh": Activation(torch.tanh, partial(_wherever, torch.tanh), _tanh_derivative, _tanh_backward),
    "relu": Activation(_relu, _relu, _relu_derivative, _relu_backward),
    "gelu": Activation(_gelu, _steady_gelu, _gelu_derivative, _gelu_backward),
    # Of a user and an item it holds the product of their embeddings: with one hidden layer this is a polynomial
    # network, the kin of factorization machines (Livni et al. 2014; Blondel et al., ICML 2016).
    "square": Activation(torch.square, torch.square, _square_derivative, _square_backward),
}
