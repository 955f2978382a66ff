"""The error contributions of every member, as training computes them."""

from collections.abc import Sequence

import torch
from torch import Tensor

from backlight.backprop.contributions import contributions, layer_figures
from backlight.backprop.trace import layer_names, trace_many
from backlight.callbacks.backprop import figure_tags
from backlight.callbacks.gradients import norm_tags
from backlight.model import SigmoidMLP
from backlight.population.member import Member


def tags(model: SigmoidMLP) -> list[str]:
    """Of a member's figures, in their order."""
    names = layer_names(model.linear_layers)
    return [*figure_tags(names), *norm_tags(names)]


class PopulationMonitor:
    """Takes of every member, at the steps that its `BackpropMonitor` shows, the figures of its layers.

    A second pass with the members that are due, since steps that nobody looks at are nearly all.

    Args:
        members: in training.
    """

    def __init__(self, members: Sequence[Member]) -> None:
        self._members = members
        self._model = members[0].model
        self._layers = self._model.linear_layers
        self._looking: tuple[int, Tensor | slice, list[Tensor]] | None = None
        """The step at hand, how to take those that are to be looked at, and their parameters before it."""
        self._taken: list[tuple[int, Tensor]] = []
        """Of steps of this epoch: the number, and figures `[due, tags]`."""
        self._due = self._due_in_epoch()

    def _due_in_epoch(self) -> dict[int, list[int]]:
        """By the steps of the epoch, first 0, the positions of members that are to be looked at."""
        alike: dict[tuple[object, ...], list[int]] = {}
        for position, member in enumerate(self._members):
            if member.monitor is not None:
                shown = (member.monitor.cadence, member.monitor.every_n_steps)
                alike.setdefault((*shown, len(member.history), member.max_epochs), []).append(position)
        steps = self._members[0].data.steps_per_epoch
        due: dict[int, list[int]] = {}
        for positions in alike.values():
            some = self._members[positions[0]]
            assert some.monitor is not None
            for number in range(steps):
                if some.monitor.shows(len(some.history) * steps + number, steps, some.max_epochs * steps):
                    due.setdefault(number, []).extend(positions)
        return due

    def begin(self, number: int, parameters: Sequence[Tensor]) -> None:
        """Keep the parameters `[members, …]` of those that are due, before the step of this number in the epoch."""
        positions = self._due.get(number)
        self._looking = None
        if positions is not None:
            due = self._index(positions, parameters[0].device)
            self._looking = number, due, [parameter[due].clone() for parameter in parameters]

    def end(
        self, x: Tensor, targets: Tensor, positive_weight: Tensor | None, parameters: Sequence[Tensor]
    ) -> None:
        """Take the figures of the step that was made, if anybody is due.

        Args:
            x, targets: `[members, batch, ·]`
            positive_weight: `[members, 1, outputs]`, see `equations.binary_cross_entropy`.
            parameters: `[members, …]`, with the step.
        """
        if self._looking is None:
            return
        number, due, before = self._looking
        weights, x = self._weights(before), x[due]
        traced = trace_many(
            weights,
            before[1::2],
            self._model.activation,
            x,
            targets[due],
            None if positive_weight is None else positive_weight[due],
        ).layers
        updates = torch._foreach_sub(self._weights([parameter[due] for parameter in parameters]), weights)
        sums = torch.stack([torch.stack(layer.sums) for layer in contributions(traced, updates)])
        neurons = torch.tensor([[layer.out_features] for layer in self._layers], device=x.device)
        figures = layer_figures(sums, torch.tensor(x.shape[1], device=x.device), neurons)
        squares = sums[:, 2]  # of the gradients
        norms = torch.cat([squares, squares.sum(dim=0, keepdim=True)]).sqrt()
        self._taken.append((number, torch.cat([figures.flatten(0, 1), norms]).T))

    def tell(self) -> None:
        """Give the members what was taken in this epoch."""
        steps = self._members[0].data.steps_per_epoch
        for number, figures in self._taken:
            for position, own in zip(self._due[number], figures.cpu().numpy(), strict=True):
                member = self._members[position]
                member.records.append((len(member.history) * steps + number, own))

    def _index(self, positions: list[int], device: torch.device) -> Tensor | slice:
        """To take these members of a tensor; nothing is copied where they are all."""
        if positions == list(range(len(self._members))):
            return slice(None)
        return torch.tensor(positions, device=device)

    def _weights(self, parameters: Sequence[Tensor]) -> list[Tensor]:
        return [
            weight.reshape(-1, *layer.weight.shape)
            for weight, layer in zip(parameters[::2], self._layers, strict=True)
        ]
