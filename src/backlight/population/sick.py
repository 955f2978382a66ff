"""An early end for members that have learned nothing."""

from collections.abc import Sequence

from backlight.callbacks.stop_hopeless import base_loss
from backlight.callbacks.stop_sick import why_sick
from backlight.population.member import Member


class StopSick:
    """Ends members that know no more than how frequent each class is; see `why_sick`."""

    def __init__(self) -> None:
        self._base_losses: dict[tuple[int, float, str], float] = {}

    def lagging(self, members: Sequence[Member]) -> list[int]:
        """Which of these do not go on after this epoch; they are told why."""
        sick = []
        for place, member in enumerate(members):
            losses = [float(metrics["train/loss"]) for metrics in member.history]
            reason = why_sick(losses, self._base_loss(member), member.max_epochs)
            if reason is not None:
                member.stopped = reason
                sick.append(place)
        return sick

    def _base_loss(self, member: Member) -> float:
        key = (id(member.data), member.loss.label_smoothing, str(member.loss.positive_weight))
        if key not in self._base_losses:
            self._base_losses[key] = base_loss(member.data, member.loss)
        return self._base_losses[key]
