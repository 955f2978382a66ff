"""What training is after, and for how long: epochs, early stopping, decay, and what the loss weighs."""

import numpy as np

from backlight.diagnosis.course import last_step
from backlight.diagnosis.observations import Observations
from backlight.diagnosis.remedy import Remedy

PRECHELT = "Prechelt 1998, Early Stopping – But When?"
PATIENCE = 5  # epochs
UNTIL_IT_RISES = "callbacks=early_stopping callbacks.early_stopping.patience=20"


def more_epochs(seen: Observations) -> list[Remedy]:
    """More epochs, or patience, unless something else than these ended the run."""
    if seen.settings.stopped_hastily:
        return [
            Remedy(
                f"{UNTIL_IT_RISES} callbacks.early_stopping.min_delta=0.0",
                "Early stopping ended the run while the loss may still have fallen.",
                PRECHELT,
            )
        ]
    if len(seen.loss("train")) < seen.settings.max_epochs:
        return []
    remedy = Remedy(
        f"trainer.max_epochs={10 * seen.settings.max_epochs}",
        "In more epochs the loss may fall further.",
        "Goodfellow, Bengio & Courville 2016, Deep Learning, section 11.4",
    )
    return [remedy]


def stop_early(seen: Observations) -> Remedy:
    """With as much patience as the run itself needed on the way to its lowest loss, and more if it had many epochs."""
    losses = seen.loss("val")
    way = losses[: losses.argmin() + 1] if len(losses) else losses
    lower = np.flatnonzero(np.diff(np.minimum.accumulate(way), prepend=np.inf) < 0)
    patience = np.diff(lower).max(initial=max(1, min(PATIENCE, len(losses) // 4)))
    return Remedy(
        f"callbacks=early_stopping callbacks.early_stopping.patience={patience}",
        "Training ends when the validation loss no longer falls; best.ckpt is that of the lowest one.",
        PRECHELT,
    )


SMOOTH = Remedy(
    "loss.label_smoothing=0.2",
    "Softer targets give a wrong label less to pull with.",
    "Lukasik et al. 2020, arXiv:2003.02819",
)


def softer_targets(seen: Observations) -> Remedy:
    """Soft targets as well.

    Of 142 runs that overfitted 110 are healthy with both and know no less, and 65 with early stopping alone; of 32 of these
    14 with soft targets alone, 3 with decay and 2 with fewer neurons.
    """
    early = stop_early(seen)
    return Remedy(
        f"{SMOOTH.overrides} {early.overrides}",
        "Softer targets leave less to be sure of, and training ends when the validation loss no longer falls.",
        f"{SMOOTH.source}; {early.source}",
    )


DECAY = Remedy(
    "optimizer=adamw optimizer.lr=0.01 optimizer.weight_decay=0.3",
    "Decay keeps weights small, and with them what the network can memorise; the rate is usual for AdamW.",
    "Loshchilov & Hutter 2019, arXiv:1711.05101",
)

NO_DECAY = Remedy(
    "optimizer.weight_decay=0.0",
    "Decay this strong pulls weights to 0, whatever the loss says of them.",
    "Goodfellow, Bengio & Courville 2016, Deep Learning, section 7.1.1",
)

WAY, SHRUNK = 0.03, 1.0
"""How far decay alone could have brought a weight that is part of the gradient of Adam or RMSprop, which make steps as long
whatever its strength: of 240 runs with more 199 come lower without decay than by the first of their other remedies, by 0.05
of the base-rate loss and more, and 9 the other way round; of 14 with less 5 and 5. And how far, as a power of e, that of
others: of 144 runs with more 124 and 9, of 45 with less 3 and 33."""


def decay_reaches(seen: Observations) -> bool:
    """Whether decay alone could have changed the weights so far."""
    settings = seen.settings
    way = settings.lr * last_step(seen)
    if settings.optimizer in ("adam", "rmsprop"):
        return way >= WAY
    return way * settings.weight_decay / (1 - settings.momentum) >= SHRUNK


BALANCE = Remedy(
    "loss.class_weight=balanced",
    "Errors on the rows of each class weigh as much in all.",
    "King & Zeng 2001",
)
