"""An end to runs that only get worse."""

import logging
import math
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from rich import get_console

from backlight.base_loss import base_loss
from backlight.callbacks.reach import data_of
from backlight.classifier import Classifier
from backlight.data.module import ClassificationData
from backlight.diagnosis.loss_symptoms import RISEN
from backlight.loss import BinaryCrossEntropy
from backlight.ranges import Count

log = logging.getLogger(__name__)

START_ROWS = 512
"""Of which the loss before the first step is told: a network that has learned nothing says nearly the same of all."""


class StopHopeless(Callback):
    """Stops a run whose training loss stays above that of knowing nothing, and above where it started.

    Args:
        patience: epochs in a row.
    """

    def __init__(self, *, patience: Count = 10) -> None:
        self.patience = patience
        self._worst_start = float("nan")
        self._epochs = 0

    def start(self, data: ClassificationData, loss: BinaryCrossEntropy, loss_at_start: float) -> None:
        """Take what training must not stay above: its own start, or knowing nothing.

        Args:
            data: of the run.
            loss: of the run.
            loss_at_start: on the first training rows, before the first step.
        """
        self._worst_start = max(base_loss(data, loss), loss_at_start)

    @property
    def limit(self) -> float:
        """The training loss above which an epoch counts; NaN before the start."""
        return RISEN * self._worst_start

    def is_hopeless(self, loss: float) -> bool:
        """Whether to stop after an epoch with this training loss."""
        self._epochs = self._epochs + 1 if loss > self.limit else 0
        return self._epochs >= self.patience

    def reason(self, epoch: int) -> str:
        """One line for the user; the first epoch is 0."""
        return (
            f"stopped after epoch {epoch + 1}: train/loss has been above {self.limit:.3g} for "
            f"{self._epochs} epochs, {RISEN} times that of its start or of predicting class shares "
            "(callbacks.stop_hopeless=null goes on)"
        )

    @torch.no_grad()
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not math.isnan(self._worst_start):  # resumed
            return
        assert isinstance(pl_module, Classifier)
        data = data_of(trainer)
        x, y = (tensor[:START_ROWS].to(pl_module.device) for tensor in data.part("train"))
        self.start(data, pl_module.loss, pl_module.loss(pl_module(x), y).item())

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.is_hopeless(trainer.callback_metrics["train/loss"].item()):
            trainer.should_stop = True
            if trainer.is_global_zero:
                line = self.reason(trainer.current_epoch)
                log.info(line)
                get_console().print(line, highlight=False, soft_wrap=True)

    def state_dict(self) -> dict[str, Any]:
        return {"worst_start": self._worst_start, "epochs": self._epochs}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._worst_start, self._epochs = state_dict["worst_start"], state_dict["epochs"]
