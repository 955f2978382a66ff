"""An end to runs that only get worse."""

import logging
import math
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from rich import get_console

from backlight.callbacks.reach import data_of
from backlight.classifier import Classifier
from backlight.data.module import EVALUATION_ROWS
from backlight.diagnosis.measure import constant_loss
from backlight.diagnosis.symptoms import RISEN
from backlight.ranges import Count

log = logging.getLogger(__name__)


class StopHopeless(Callback):
    """Stops a run whose training loss stays above that of knowing nothing, and above where it started.

    Args:
        patience: epochs in a row.
    """

    def __init__(self, *, patience: Count = 10) -> None:
        self.patience = patience
        self._worst_start = float("nan")
        self._epochs = 0

    @torch.no_grad()
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not math.isnan(self._worst_start):  # resumed
            return
        assert isinstance(pl_module, Classifier)
        x, y = (tensor[:EVALUATION_ROWS].to(pl_module.device) for tensor in data_of(trainer).part("train"))
        loss = pl_module.loss
        base = constant_loss(loss.targets(y), loss.positive_weight)
        self._worst_start = max(base, loss(pl_module(x), y).item())

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        loss = trainer.callback_metrics["train/loss"].item()
        self._epochs = self._epochs + 1 if loss > RISEN * self._worst_start else 0
        if self._epochs >= self.patience:
            trainer.should_stop = True
            if trainer.is_global_zero:
                line = (
                    f"stopped after epoch {trainer.current_epoch + 1}: train/loss has been above "
                    f"{RISEN * self._worst_start:.3g} for {self._epochs} epochs, {RISEN} times that of its start or of "
                    "predicting class shares (callbacks.stop_hopeless=null goes on)"
                )
                log.info(line)
                get_console().print(line, highlight=False, soft_wrap=True)

    def state_dict(self) -> dict[str, Any]:
        return {"worst_start": self._worst_start, "epochs": self._epochs}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._worst_start, self._epochs = state_dict["worst_start"], state_dict["epochs"]
