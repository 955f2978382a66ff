"""An early end for members that learn nothing, or far less than others."""

from collections.abc import Sequence
from weakref import WeakKeyDictionary

from backlight.callbacks.stop_hopeless import base_loss
from backlight.callbacks.stop_sick import why_sick
from backlight.data.module import ClassificationData
from backlight.population.member import Member


class StopSick:
    """Ends members that know no more than how frequent each class is, or far less than others; see `why_sick`."""

    def __init__(self) -> None:
        self._best: WeakKeyDictionary[ClassificationData, dict[int, float]] = WeakKeyDictionary()
        """The most progress of any member on these rows, by epochs."""

    def lagging(self, members: Sequence[Member]) -> list[int]:
        """Which of these do not go on after this epoch; they are told why."""
        for member in members:
            best, epochs = self._best.setdefault(member.data, {}), len(member.history)
            progress = 1 - float(member.history[-1]["train/loss"]) / base_loss(member.data, member.loss)
            best[epochs] = max(best.get(epochs, 0.0), progress)
        sick = []
        for place, member in enumerate(members):
            losses = [float(metrics["train/loss"]) for metrics in member.history]
            base, best = base_loss(member.data, member.loss), self._best[member.data]
            reason = why_sick(losses, base, member.max_epochs, best[len(losses)])
            if reason is not None:
                member.stopped = reason
                sick.append(place)
        return sick
