"""What a symptom says of a run."""

from dataclasses import dataclass, field
from typing import Literal

from backlight.diagnosis.knowledge import HARDLY_LEARNED
from backlight.diagnosis.observations import Observations

Severity = Literal["fatal", "serious", "warning"]


@dataclass(frozen=True)
class Finding:
    """One symptom of one run.

    Attributes:
        symptom: its name.
        severity: `fatal` (nothing was learned, or all lost), `serious` (it costs much of the result),
            `warning` (it may).
        step: optimizer step at which it first showed.
        evidence: the numbers behind it.
        layer: where, or None for the whole network or the data.
        neurons: which of the layer's, if not all.
    """

    symptom: str
    severity: Severity
    step: int
    evidence: dict[str, float | str]
    layer: str | None = None
    neurons: list[int] = field(default_factory=list)


def by_progress(seen: Observations) -> Severity:
    """Of what is at fault where a network has not learned, or not enough."""
    return "serious" if seen.progress() >= HARDLY_LEARNED else "fatal"
