"""An early end for members that have learned nothing."""

import math
from collections.abc import Sequence

from backlight.data.batches import EVALUATION_ROWS
from backlight.diagnosis.measure import constant_loss
from backlight.diagnosis.symptoms import HARDLY_LEARNED
from backlight.population.member import Member

SHARE = 0.2
"""Of its epochs, after which a member must know more than the class shares, or be on the way."""
FEWEST = 5
"""Epochs that everybody gets, and that tell the pace: fewer say nothing of how a loss falls."""


class StopSick:
    """Ends members that know no more than how frequent each class is when a fifth of their epochs is over.

    Those that will at their present pace go on: losses leave a plateau ever faster.

    What ails them is then said by their diagnosis: every symptom that it calls fatal leaves a network there.
    """

    def __init__(self) -> None:
        self._base_losses: dict[tuple[int, float, str], float] = {}

    def lagging(self, members: Sequence[Member]) -> list[int]:
        """Which of these do not go on after this epoch; they are told why."""
        sick = []
        for place, member in enumerate(members):
            epochs = len(member.history)
            if epochs < max(FEWEST, math.ceil(SHARE * member.max_epochs)):
                continue
            base = self._base_loss(member)
            before, loss = (float(member.history[epoch]["train/loss"]) for epoch in (-FEWEST, -1))
            at_the_end = loss - (before - loss) / (FEWEST - 1) * (member.max_epochs - epochs)
            if min(loss, at_the_end) > (1 - HARDLY_LEARNED) * base:
                member.stopped = (
                    f"stopped after epoch {epochs}: train/loss {loss:.4g} is hardly below the {base:.4g} of "
                    "knowing the class shares only (sweep.stop_sick)"
                )
                sick.append(place)
        return sick

    def _base_loss(self, member: Member) -> float:
        weight = member.loss.positive_weight
        key = (id(member.data), member.loss.label_smoothing, str(weight))
        if key not in self._base_losses:
            y = member.data.part("train")[1][:EVALUATION_ROWS]
            self._base_losses[key] = constant_loss(
                member.loss.targets(y), None if weight is None else weight.cpu()
            ).item()
        return self._base_losses[key]
