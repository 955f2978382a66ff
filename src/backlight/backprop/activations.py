"""Activation functions and their derivatives."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

ActivationName = Literal["sigmoid", "tanh", "relu", "gelu", "square"]


@dataclass(frozen=True)
class Activation:
    """An elementwise function `a = σ(z)` and its derivative `σ'(z)`.

    `derivative(z, a)` is given both the pre-activation and the activation, because for some functions
    the derivative is cheapest in terms of the output.
    """

    function: Callable[[Tensor], Tensor]
    derivative: Callable[[Tensor, Tensor], Tensor]


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


ACTIVATIONS: dict[ActivationName, Activation] = {
    "sigmoid": Activation(torch.sigmoid, _sigmoid_derivative),
    "tanh": Activation(torch.tanh, _tanh_derivative),
    "relu": Activation(torch.relu, _relu_derivative),
    "gelu": Activation(functional.gelu, _gelu_derivative),
    # Of a user and an item it holds the product of their embeddings: with one hidden layer this is a polynomial
    # network, the kin of factorization machines (Livni et al. 2014; Blondel et al., ICML 2016).
    "square": Activation(torch.square, _square_derivative),
}
