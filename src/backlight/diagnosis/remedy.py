"""What may help."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Remedy:
    """What to change.

    Attributes:
        overrides: to add to the command line, as they stand; empty where no setting helps.
        why: one sentence.
        source: where that is known from.
    """

    overrides: str
    why: str
    source: str
