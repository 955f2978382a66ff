"""The optimizers of `torch.optim`, with settings of its own for every member."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor


class StackedOptimizer:
    """Makes the step that `torch.optim` would make, for each member with its own settings.

    Operations come in the order of `torch.optim`'s, and what does not depend on the gradients is reckoned in float64
    as Python does there, so that a member's bits are those that it has alone.

    `state` holds what `torch.optim` keeps for each parameter, under its names, as one tensor
    `[members, …]` per parameter.

    Args:
        parameters: `[members, …]` each, with three axes; changed in place.
        settings: `[members]` float64 each, named as in the parameter groups of `torch.optim`.
    """

    names: tuple[str, ...]
    """Of the settings it reads; the learning rate is given with each step."""

    def __init__(self, parameters: Sequence[Tensor], settings: Mapping[str, Tensor]) -> None:
        self.parameters = list(parameters)
        self.settings = {name: settings[name].reshape(-1, 1, 1) for name in self.names}
        self._in_use = {name for name, value in self.settings.items() if value.any()}
        self.state: dict[str, list[Tensor]] = {}
        self.state = self._state_of(self._kept())
        self.steps = torch.zeros(len(self.parameters[0]), device=self.parameters[0].device)
        """`[members]`"""

    def step(self, gradients: list[Tensor], lr: Tensor) -> None:
        """Make a step.

        Args:
            gradients: of the parameters; they are changed.
            lr: `[members]` float64
        """
        self.steps += 1
        self._update(gradients, lr.reshape(-1, 1, 1))

    def keep(self, members: Tensor) -> None:
        """Go on with these members only, `[kept]` int64."""
        self.parameters = [parameter[members] for parameter in self.parameters]
        self.settings = {name: value[members] for name, value in self.settings.items()}
        self.state = {name: [tensor[members] for tensor in tensors] for name, tensors in self.state.items()}
        self.steps = self.steps[members]

    def join(self, others: "StackedOptimizer") -> None:
        """Go on with the members of another one of this kind too, after these."""
        self._in_use |= others._in_use
        mine, theirs = (optimizer._state_of(self._kept()) for optimizer in (self, others))
        self.state = {name: _joined(mine[name], theirs[name]) for name in mine}
        self.parameters = _joined(self.parameters, others.parameters)
        self.settings = {
            name: torch.cat([value, others.settings[name]]) for name, value in self.settings.items()
        }
        self.steps = torch.cat([self.steps, others.steps])

    def _state_of(self, names: Sequence[str]) -> dict[str, list[Tensor]]:
        """What it keeps under these names: zeros, as at the start, of what it did not need."""
        return {
            name: self.state.get(name) or [torch.zeros_like(parameter) for parameter in self.parameters]
            for name in names
        }

    def _kept(self) -> tuple[str, ...]:
        """Names of the state."""
        raise NotImplementedError

    def _update(self, gradients: list[Tensor], lr: Tensor) -> None:
        raise NotImplementedError

    def _cast(self, values: Tensor) -> Tensor:
        """As numbers like the parameters."""
        return values.to(self.parameters[0].dtype)

    def _add_penalty(self, gradients: list[Tensor]) -> None:
        """The gradient of the L2 penalty."""
        if "weight_decay" in self._in_use:
            decay = self._cast(self.settings["weight_decay"])
            for gradient, parameter in zip(gradients, self.parameters, strict=True):
                gradient.addcmul_(decay, parameter)

    def _descend(self, directions: list[Tensor], lr: Tensor) -> None:
        rates = self._cast(lr)
        for parameter, direction in zip(self.parameters, directions, strict=True):
            parameter.addcmul_(rates, direction, value=-1)


class SGD(StackedOptimizer):
    """`torch.optim.SGD`."""

    names = ("momentum", "nesterov", "weight_decay")

    def _kept(self) -> tuple[str, ...]:
        return ("momentum_buffer",) if "momentum" in self._in_use else ()

    def _update(self, gradients: list[Tensor], lr: Tensor) -> None:
        self._add_penalty(gradients)
        if "momentum" not in self._in_use:
            self._descend(gradients, lr)
            return
        momentum, nesterov = self._cast(self.settings["momentum"]), self.settings["nesterov"].bool()
        directions = []
        for gradient, buffer in zip(gradients, self.state["momentum_buffer"], strict=True):
            buffer.mul_(momentum).add_(gradient)
            directions.append(
                torch.where(nesterov, gradient.addcmul_(momentum, buffer), buffer)
                if "nesterov" in self._in_use
                else buffer
            )
        self._descend(directions, lr)


class Adam(StackedOptimizer):
    """`torch.optim.Adam`."""

    names = ("beta1", "beta2", "eps", "weight_decay")

    def _kept(self) -> tuple[str, ...]:
        return ("exp_avg", "exp_avg_sq")

    def _update(self, gradients: list[Tensor], lr: Tensor) -> None:
        self._decay(gradients, lr)
        beta1, beta2 = self.settings["beta1"], self.settings["beta2"]
        steps = self.steps.double().reshape(-1, 1, 1)
        size = self._cast(-lr / (1 - beta1**steps))
        root = self._cast((1 - beta2**steps).sqrt())
        to_mean, to_square = self._cast(1 - beta1), self._cast(1 - beta2)
        kept, eps = self._cast(beta2), self._cast(self.settings["eps"])
        moments = zip(
            self.parameters, gradients, self.state["exp_avg"], self.state["exp_avg_sq"], strict=True
        )
        for parameter, gradient, mean, square in moments:
            mean.lerp_(gradient, to_mean)
            square.mul_(kept).addcmul_(to_square * gradient, gradient)
            parameter.add_((size * mean).div_(square.sqrt().div_(root).add_(eps)))

    def _decay(self, gradients: list[Tensor], lr: Tensor) -> None:
        self._add_penalty(gradients)


class AdamW(Adam):
    """`torch.optim.AdamW`: the decay does not go through the moments."""

    def _decay(self, gradients: list[Tensor], lr: Tensor) -> None:
        if "weight_decay" in self._in_use:
            for parameter in self.parameters:
                parameter.mul_(self._cast(1 - lr * self.settings["weight_decay"]))


class RMSprop(StackedOptimizer):
    """`torch.optim.RMSprop`."""

    names = ("alpha", "eps", "momentum", "weight_decay")

    def _kept(self) -> tuple[str, ...]:
        return ("square_avg", "momentum_buffer") if "momentum" in self._in_use else ("square_avg",)

    def _update(self, gradients: list[Tensor], lr: Tensor) -> None:
        self._add_penalty(gradients)
        alpha, eps, momentum = (self._cast(self.settings[name]) for name in ("alpha", "eps", "momentum"))
        to_square, size = self._cast(1 - self.settings["alpha"]), self._cast(-lr)
        for number, (parameter, gradient, square) in enumerate(
            zip(self.parameters, gradients, self.state["square_avg"], strict=True)
        ):
            square.mul_(alpha).addcmul_(to_square * gradient, gradient)
            root = square.sqrt().add_(eps)
            if "momentum" in self._in_use:
                buffer = self.state["momentum_buffer"][number]
                parameter.addcmul_(size, buffer.mul_(momentum).add_(gradient.div_(root)))
            else:
                parameter.add_((size * gradient).div_(root))


def _joined(mine: Sequence[Tensor], theirs: Sequence[Tensor]) -> list[Tensor]:
    return [torch.cat(pair) for pair in zip(mine, theirs, strict=True)]


STACKED: dict[str, type[StackedOptimizer]] = {"sgd": SGD, "adam": Adam, "adamw": AdamW, "rmsprop": RMSprop}
"""By the name in the config."""
