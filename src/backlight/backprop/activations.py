"""Activation functions and their derivatives."""

import math
from collections.abc import Callable
from dataclasses import dataclass
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
    memory to write to; `backward_` makes `error ⊙ σ'(z)` of the error in place, in one pass.
    """

    function: Callable[..., Tensor]
    derivative: Callable[[Tensor, Tensor], Tensor]
    backward_: Callable[[Tensor, Tensor, Tensor], Tensor]


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
    aten.gelu_backward.grad_input(error, z, grad_input=error)
    return error


def _square_backward(error: Tensor, z: Tensor, _: Tensor) -> Tensor:
    return error.mul_(2 * z)


ACTIVATIONS: dict[ActivationName, Activation] = {
    "sigmoid": Activation(torch.sigmoid, _sigmoid_derivative, _sigmoid_backward),
    "tanh": Activation(torch.tanh, _tanh_derivative, _tanh_backward),
    "relu": Activation(_relu, _relu_derivative, _relu_backward),
    "gelu": Activation(_gelu, _gelu_derivative, _gelu_backward),
    # Of a user and an item it holds the product of their embeddings: with one hidden layer this is a polynomial
    # network, the kin of factorization machines (Livni et al. 2014; Blondel et al., ICML 2016).
    "square": Activation(torch.square, _square_derivative, _square_backward),
}
