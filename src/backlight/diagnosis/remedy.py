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

    def together(self, overrides: str, why: str, source: str = "") -> "Remedy":
        """With others as well, whose reason goes on where this one's sentence ends."""
        return Remedy(
            f"{self.overrides} {overrides}".strip(),
            f"{self.why.removesuffix('.')}; {why}.",
            "; ".join(filter(None, (self.source, source))),
        )
