"""The error contributions of every member, as training computes them."""

from collections.abc import Sequence

import torch
from torch import Tensor

from backlight.backprop.contributions import contributions, layer_figures
from backlight.backprop.products import for_each
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

    It is for as long as the population does not change.

    Args:
        members: in training.
    """

    def __init__(self, members: Sequence[Member]) -> None:
        self._members = members
        self._model = members[0].model
        self._layers = self._model.linear_layers
        self._steps = members[0].data.steps_per_epoch
        self._first = [len(member.history) * self._steps for member in members]
        """The number of each one's next step, when this began."""
        self._made = 0
        """Steps in epochs that are over."""
        self._alike: dict[tuple[object, ...], list[int]] = {}
        """Positions of members that are due at the same steps."""
        for position, (member, first) in enumerate(zip(members, self._first, strict=True)):
            if member.monitor is not None:
                shown = (member.monitor.cadence, member.monitor.every_n_steps)
                self._alike.setdefault((*shown, first, member.max_epochs), []).append(position)
        self._looking: tuple[int, Tensor | slice, list[Tensor]] | None = None
        """The step at hand, how to take those that are to be looked at, and their parameters before it."""
        self._taken: list[tuple[int, list[int], Tensor]] = []
        """Of steps since the beginning: the number, who was due, and figures `[due, tags]`."""
        self._due = self._due_in_epoch()

    def _due_in_epoch(self) -> dict[int, list[int]]:
        """By the steps of the epoch, first 0, the positions of members that are to be looked at."""
        due: dict[int, list[int]] = {}
        for positions in self._alike.values():
            some, first = self._members[positions[0]], self._first[positions[0]] + self._made
            assert some.monitor is not None
            for number in range(self._steps):
                if some.monitor.shows(first + number, self._steps, some.max_epochs * self._steps):
                    due.setdefault(number, []).extend(positions)
        return due

    def end_epoch(self) -> None:
        """Begin to count the steps of the next epoch."""
        self._made += self._steps
        self._due = self._due_in_epoch()

    def begin(self, number: int, parameters: Sequence[Tensor]) -> None:
        """Keep the parameters `[members, …]` of those that are due, before the step of this number in the epoch."""
        positions = self._due.get(number)
        self._looking = None
        if positions is not None:
            due = self._index(positions, parameters[0].device)
            self._looking = number, due, [parameter[due].clone() for parameter in parameters]

    def end(
        self, x: Tensor, targets: Tensor, class_weight: Tensor | None, parameters: Sequence[Tensor]
    ) -> None:
        """Take the figures of the step that was made, if anybody is due.

        Args:
            x: `[members, batch, features]`, or fewer, see `StackedNetwork.gradients`.
            targets: `[members, batch, outputs]`
            class_weight: `[members, 1, classes]`, see `equations.binary_cross_entropy`.
            parameters: `[members, …]`, with the step.
        """
        if self._looking is None:
            return
        number, due, before = self._looking
        weights, x = self._weights(before), for_each(x, len(targets))[due]
        traced = trace_many(
            weights,
            before[1::2],
            self._model.activation,
            x,
            targets[due],
            None if class_weight is None else class_weight[due],
        ).layers
        updates = torch._foreach_sub(self._weights([parameter[due] for parameter in parameters]), weights)
        sums = torch.stack([torch.stack(layer.sums) for layer in contributions(traced, updates)])
        neurons = torch.tensor([[layer.out_features] for layer in self._layers], device=x.device)
        figures = layer_figures(sums, torch.tensor(x.shape[1], device=x.device), neurons)
        squares = sums[:, 2]  # of the gradients
        norms = torch.cat([squares, squares.sum(dim=0, keepdim=True)]).sqrt()
        taken = torch.cat([figures.flatten(0, 1), norms]).T
        self._taken.append((self._made + number, self._due[number], taken))

    def tell(self) -> None:
        """Give the members what was taken."""
        for number, positions, figures in self._taken:
            for position, own in zip(positions, figures.cpu().numpy(), strict=True):
                self._members[position].records.append((self._first[position] + number, own))
        self._taken.clear()

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
