"""An early end for members that have learned nothing."""

from collections.abc import Sequence

from backlight.callbacks.stop_hopeless import base_loss
from backlight.callbacks.stop_sick import why_sick
from backlight.population.member import Member


class StopSick:
    """Ends members that know no more than how frequent each class is; see `why_sick`."""

    def lagging(self, members: Sequence[Member]) -> list[int]:
        """Which of these do not go on after this epoch; they are told why."""
        sick = []
        for place, member in enumerate(members):
            losses = [float(metrics["train/loss"]) for metrics in member.history]
            reason = why_sick(losses, base_loss(member.data, member.loss), member.max_epochs)
            if reason is not None:
                member.stopped = reason
                sick.append(place)
        return sick
