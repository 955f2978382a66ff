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
        sick = []
        for member in members:
            best, epochs = self._best.setdefault(member.data, defaultdict(float)), len(member.history)
            for part in _parts(member):
                loss = float(member.history[-1][f"{part}/loss"])
                best[part, epochs] = max(best[part, epochs], 1 - loss / base_loss(member.data, member.loss))
        for place, member in enumerate(members):
            best, epochs = self._best[member.data], len(member.history)
            courses = {
                part: Course(
                    [float(metrics[f"{part}/loss"]) for metrics in member.history], best[part, epochs]
                )
                for part in _parts(member)
            }
            base = base_loss(member.data, member.loss)
            reason = why_sick(courses["train"], base, member.max_epochs, courses.get("val"))
            if reason is not None:
                member.stopped = reason
                sick.append(place)
        return sick


def _parts(member: Member) -> list[str]:
    """The training rows and, if there are any, the validation rows."""
    return [part for part in ("train", "val") if f"{part}/loss" in member.history[-1]]
