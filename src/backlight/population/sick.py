"""An early end for members that learn nothing, or far less than others."""

from collections import defaultdict
from collections.abc import Sequence
from weakref import WeakKeyDictionary

from backlight.callbacks.stop_hopeless import base_loss
from backlight.callbacks.stop_sick import Course, why_sick
from backlight.data.module import ClassificationData
from backlight.population.member import Member


class StopSick:
    """Ends members that know no more than how frequent each class is, or far less than others; see `why_sick`."""

    def __init__(self) -> None:
        self._best: WeakKeyDictionary[ClassificationData, defaultdict[tuple[str, int], float]] = (
            WeakKeyDictionary()
        )
        """The most progress of any member on these rows, by their part and the epochs."""

    def lagging(self, members: Sequence[Member]) -> list[int]:
        """Which of these do not go on after this epoch; they are told why."""
        for member in members:
            best, epochs = self._best.setdefault(member.data, defaultdict(float)), len(member.history)
            base = base_loss(member.data, member.loss)
            for part in ("train", "val"):
                progress = 1 - float(member.history[-1].get(f"{part}/loss", base)) / base
                best[part, epochs] = max(best[part, epochs], progress)
        sick = []
        for place, member in enumerate(members):
            train, val = (self._course(member, part) for part in ("train", "val"))
            assert train is not None
            reason = why_sick(train, base_loss(member.data, member.loss), member.max_epochs, val)
            if reason is not None:
                member.stopped = reason
                sick.append(place)
        return sick

    def _course(self, member: Member, part: str) -> Course | None:
        """On these rows, if there are any."""
        losses = [float(metrics[f"{part}/loss"]) for metrics in member.history if f"{part}/loss" in metrics]
        return Course(losses, self._best[member.data][part, len(losses)]) if losses else None
