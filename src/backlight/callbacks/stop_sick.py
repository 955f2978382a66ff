"""An end to trials of a sweep that learn nothing, or less than others."""

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from rich import get_console

from backlight.base_loss import base_loss
from backlight.callbacks.reach import data_of
from backlight.classifier import Classifier
from backlight.diagnosis.knowledge import HARDLY_LEARNED

log = logging.getLogger(__name__)

SHARE = 1 / 5
"""Of its epochs, after which a run must know more than the class shares, or be on the way. In 104 random sweeps of 120
trials over thirteen data sets, with other seeds than `benchmark.py stop_sick` reports, all rules together save 50 % of the
epochs, 42 % at least, and cost no best trial; of half of these a quarter would save 47 %, in one less than 40 %."""
FEWEST = 5
"""Epochs that everybody gets, and that tell the pace: fewer say nothing of how a loss falls."""
LEADING = 0.3
"""The share of all trials that go on whatever the best does: those whose losses on the rows held out have been lowest. Of
half of these sweeps a quarter would save 53 %, and cost one best trial. Of 208 draws of 8 of the trials of a sweep the rules
cost 13 best ones, 9 of which knew more by 0.01 of the base-rate loss and more."""
FARTHER, CHANCE = 0.1, 0.04
"""By how much the lowest validation loss of a run that has not come lower for a fifth of its epochs must be above that of
the best, so that it will hardly overtake it, though it may learn its own rows by heart: relative to that, and to the
base-rate loss, of which 0.03 is the standard error of the difference of two losses on the same 150 rows."""


@dataclass(frozen=True)
class Course:
    """How the loss of a run on some rows went.

    Attributes:
        losses: epoch by epoch.
        best: progress of a trial on the same rows after as many epochs, from 0 at the loss of knowing the class shares
            only to 1.
        leads: whether few trials have had lower ones in as many epochs.
    """

    losses: Sequence[float]
    best: float = 0.0
    leads: bool = False

    def reaches(self, max_epochs: int) -> float:
        """The least of the last few losses and, at their pace, of the one after `max_epochs`."""
        late = self.losses[-FEWEST:]
        at_the_end = late[-1] - (late[0] - late[-1]) / (FEWEST - 1) * (max_epochs - len(self.losses))
        return min(*late, at_the_end)

    def is_behind(self, base: float, max_epochs: int) -> bool:
        """Whether it is on the way to less than the best knows already."""
        # As `best` is computed: who is the best is not behind himself by rounding.
        return 1 - self.reaches(max_epochs) / base < self.best

    def has_settled(self, base: float, max_epochs: int) -> bool:
        """Whether it has not been lower for long, and is well above the best."""
        since = len(self.losses) - 1 - self.losses.index(min(self.losses))
        of_best = (1 - self.best) * base
        is_above = min(self.losses) > (1 + FARTHER) * of_best + CHANCE * base
        return self.best > 0 and is_above and since >= _patience(max_epochs)

    def gathers_pace(self, base: float) -> bool:
        """Whether it is lower than ever, and fell farther in the last two epochs than in the two before.

        So it does while a network leaves a plateau, long before it is to be seen at the pace of a line: in 93 other
        sweeps, where those that lead were not spared, five best trials would have been lost without this instead of one.
        """
        if len(self.losses) < 5:
            return False
        before, between, now = self.losses[-5::2]
        return now < base and now == min(self.losses) and between - now > max(0, before - between)


def why_sick(train: Course, base: float, max_epochs: int, val: Course | None = None) -> str | None:
    """Why a run that knows no more than how frequent each class is, or less than others, ends here.

    None where it goes on. It gets a fifth of its epochs to know more, and must then be on the way to what the best knows
    already, on the training rows or on those held out. If it knows less than others of these, it must have come to know
    more within a fifth of its epochs. One that knew enough a moment ago goes on, since a loss may leap
    up once, and one that will at its present pace, or gathers pace; and of those that know something, all that lead.
    What ails it is then said by its diagnosis: every symptom that it calls fatal leaves a network that knows nothing.

    Args:
        train: on the training rows.
        base: the loss of knowing the class shares only.
        max_epochs: of the run.
        val: on the validation rows, if there are any.
    """
    epochs = len(train.losses)
    if epochs < _patience(max_epochs) or (val or train).gathers_pace(base):
        return None
    if train.reaches(max_epochs) > (1 - HARDLY_LEARNED) * base:
        why = f"train/loss {train.losses[-1]:.4g} is hardly below the {base:.4g} of knowing the class shares only"
    elif (val or train).leads:
        return None
    elif all(course.is_behind(base, max_epochs) for course in (train, val) if course is not None):
        than = f"the {(1 - train.best) * base:.4g} of another trial after as many epochs"
        why = f"train/loss {train.losses[-1]:.4g} is not on the way to {than}"
    elif val is not None and val.has_settled(base, max_epochs):
        longer = f"val/loss has been no lower than {min(val.losses):.4g} for {_patience(max_epochs)} epochs"
        why = f"{longer}, and that of another trial is {(1 - val.best) * base:.4g}"
    else:
        return None
    return f"stopped after epoch {epochs}: {why} (sweep.stop_sick)"


def _patience(max_epochs: int) -> int:
    """Epochs that a run gets to come to know more."""
    return max(FEWEST, math.ceil(SHARE * max_epochs))


class StopSick(Callback):
    """Ends a trial that is trained alone; those of a population have `backlight.population.sick`."""

    def __init__(self) -> None:
        self._train: list[float] = []
        self._val: list[float] = []

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        assert isinstance(pl_module, Classifier) and trainer.max_epochs is not None
        metrics = trainer.callback_metrics
        self._train.append(metrics["train/loss"].item())
        if "val/loss" in metrics:
            self._val.append(metrics["val/loss"].item())
        val = Course(self._val) if self._val else None
        base = base_loss(data_of(trainer), pl_module.loss)
        reason = why_sick(Course(self._train), base, trainer.max_epochs, val)
        if reason is not None:
            trainer.should_stop = True
            if trainer.is_global_zero:
                log.info(reason)
                get_console().print(reason, highlight=False, soft_wrap=True)

    def state_dict(self) -> dict[str, Any]:
        return {"train": self._train, "val": self._val}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._train, self._val = state_dict["train"], state_dict["val"]
