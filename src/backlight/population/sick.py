"""An early end for members that learn nothing, or less than others."""

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from weakref import WeakKeyDictionary

from backlight.base_loss import base_loss
from backlight.callbacks.stop_sick import LEADING, Course, why_sick
from backlight.data.module import ClassificationData
from backlight.population.member import Member


class StopSick:
    """Ends members that know no more than how frequent each class is, or less than others; see `why_sick`."""

    def __init__(self) -> None:
        self._fields: WeakKeyDictionary[ClassificationData, _Field] = WeakKeyDictionary()

    def lagging(self, members: Sequence[Member]) -> list[int]:
        """Which of these do not go on after this epoch; they are told why."""
        bases = [base_loss(member.data, member.loss) for member in members]
        losses = [_losses(member) for member in members]
        for member, base, of_member in zip(members, bases, losses, strict=True):
            self._fields.setdefault(member.data, _Field()).add(base, of_member)
        sick = []
        for place, (member, base, of_member) in enumerate(zip(members, bases, losses, strict=True)):
            courses = self._fields[member.data].courses(of_member)
            reason = why_sick(courses["train"], base, member.max_epochs, courses.get("val"))
            if reason is not None:
                member.stopped = reason
                sick.append(place)
        return sick


class _Field:
    """How far all have come that learn the same rows, by the part of these and the epochs."""

    def __init__(self) -> None:
        self._best: defaultdict[tuple[str, int], float] = defaultdict(float)
        """The most progress of any."""
        self._lowest: defaultdict[tuple[str, int], list[float]] = defaultdict(list)
        """The lowest loss that each had had."""
        self._bars: dict[tuple[str, int], float] = {}
        """The highest of those that lead."""

    def add(self, base: float, losses: Mapping[str, Sequence[float]]) -> None:
        for part, of_part in losses.items():
            now = part, len(of_part)
            self._best[now] = max(self._best[now], 1 - of_part[-1] / base)
            self._lowest[now].append(_lowest(of_part))
            self._bars.pop(now, None)

    def courses(self, losses: Mapping[str, Sequence[float]]) -> dict[str, Course]:
        found = {}
        for part, of_part in losses.items():
            now = part, len(of_part)
            if now not in self._bars:
                leading = math.ceil(LEADING * len(self._lowest[part, 1]))  # of all that began
                self._bars[now] = max(sorted(self._lowest[now])[:leading], default=-math.inf)
            found[part] = Course(of_part, self._best[now], leads=_lowest(of_part) <= self._bars[now])
        return found


def _losses(member: Member) -> dict[str, list[float]]:
    """On the training rows and, if there are any, the validation rows."""
    parts = [part for part in ("train", "val") if f"{part}/loss" in member.history[-1]]
    return {part: [float(metrics[f"{part}/loss"]) for metrics in member.history] for part in parts}


def _lowest(losses: Sequence[float]) -> float:
    return min(filter(math.isfinite, losses), default=math.inf)
