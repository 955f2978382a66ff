"""The network: a multilayer perceptron of plain linear layers."""

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from backlight.backprop.activations import ACTIVATIONS, ActivationName
from backlight.backprop.sparse import Rows, affine

Init = Literal["default", "xavier", "lecun", "he", "normal", "zeros", "constant"]


class SigmoidMLP(nn.Module):
    """A multilayer perceptron that returns logits.

    `x [batch, num_features]`, sparse or not → `Linear → σ → … → Linear` → logits `[batch, num_outputs]`.

    Args:
        num_features: columns of x.
        hidden: number of neurons of each hidden layer, at least one layer.
        num_outputs: 1 for two classes, C for C one-vs-rest classes.
        activation: σ of the hidden layers: sigmoid, tanh, relu, gelu or square.
        init: how weights start. `default` is PyTorch's own (U(±1/√fan_in), biases too); the others
            have zero biases: `xavier` (Glorot & Bengio 2010, uniform), `lecun` (LeCun et al. 1998,
            N(0, 1/fan_in)), `he` (He et al. 2015, N(0, 2/fan_in)), `normal` (N(0, 1)), `zeros`, `constant` (every
            weight 1).
        init_scale: factor on the starting weights, so `normal` has this standard deviation and
            `constant` this value.
        seed: of the generator that draws the weights. With `init="default"` these are the weights
            that `torch.manual_seed(seed)` followed by the same `nn.Linear` layers would give.

    Raises:
        ValueError: an argument is out of range; the message starts with its name.
    """

    def __init__(
        self,
        num_features: int,
        hidden: Sequence[int] = (5,),
        num_outputs: int = 1,
        *,
        activation: ActivationName = "sigmoid",
        init: Init = "default",
        init_scale: float = 1.0,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if not hidden or min(hidden) < 1:
            raise ValueError(f"hidden={list(hidden)}: give at least one width, each 1 or more")
        if activation not in ACTIVATIONS:
            raise ValueError(f"activation={activation}: must be one of {', '.join(ACTIVATIONS)}")
        if init not in get_args(Init):
            raise ValueError(f"init={init}: must be one of {', '.join(get_args(Init))}")
        if not (math.isfinite(init_scale) and init_scale > 0):
            raise ValueError(f"init_scale={init_scale}: must be a finite number above 0")

        self.architecture: dict[str, Any] = {
            "num_features": num_features,
            "hidden": list(hidden),
            "num_outputs": num_outputs,
            "activation": activation,
        }
        self.activation = ACTIVATIONS[activation]
        widths = [num_features, *hidden, num_outputs]
        self.layers = nn.ModuleList(_Linear(fan_in, fan_out) for fan_in, fan_out in pairwise(widths))
        generator = torch.Generator().manual_seed(seed)
        for layer in self.linear_layers:
            _initialise(layer, init, init_scale, generator)

    @property
    def linear_layers(self) -> list[nn.Linear]:
        """The layers in the order of the forward pass."""
        return [layer for layer in self.layers if isinstance(layer, nn.Linear)]

    def gather_inputs(self) -> None:
        """Lay the first layer's weights out in memory for sparse rows, each feature's together; values stay."""
        first = self.linear_layers[0]
        first.weight.data = first.weight.data.mT.contiguous().mT

    def forward(self, x: Rows) -> Tensor:
        first, *others = self.layers
        z: Tensor = first(x)
        for layer in others:
            z = layer(self.activation.function(z))
        return z


class _Linear(nn.Linear):
    """A linear layer that takes sparse rows too, and leaves its weights, and the global generator, as they are."""

    def forward(self, input: Rows) -> Tensor:
        return affine(input, self.weight, self.bias)

    def reset_parameters(self) -> None:
        """Nothing: `_initialise` does it."""


@torch.no_grad()
def _initialise(layer: nn.Linear, init: Init, scale: float, generator: torch.Generator) -> None:
    bound = 1 / math.sqrt(layer.in_features)
    nn.init.zeros_(layer.bias)
    if init == "default":
        # √5 makes kaiming_uniform_ draw from U(±1/√fan_in): the very draws of nn.Linear itself.
        nn.init.kaiming_uniform_(layer.weight, a=math.sqrt(5), generator=generator)
        nn.init.uniform_(layer.bias, -bound, bound, generator=generator)
    elif init == "xavier":
        nn.init.xavier_uniform_(layer.weight, generator=generator)
    elif init == "lecun":
        nn.init.normal_(layer.weight, std=bound, generator=generator)
    elif init == "he":
        nn.init.normal_(layer.weight, std=math.sqrt(2) * bound, generator=generator)
    elif init == "normal":
        nn.init.normal_(layer.weight, generator=generator)
    elif init == "zeros":
        nn.init.zeros_(layer.weight)
    else:
        nn.init.ones_(layer.weight)
    layer.weight.mul_(scale)
