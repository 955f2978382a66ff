"""Says while a run trains what seems to ail it."""

import copy
import logging
import math
import time
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from rich import get_console

from backlight.callbacks.reach import data_of
from backlight.classifier import Classifier
from backlight.diagnose import Diagnosis, said
from backlight.diagnosis.observations import Start
from backlight.diagnosis.symptoms import explanation
from backlight.examination import Evidence, measure_rows, read_series
from backlight.model import SigmoidMLP
from backlight.run_folder import RunFolder

log = logging.getLogger(__name__)

LOOKS = 4  # before training and after each quarter of the epochs but the last, which the verdict follows
MOST_TIME, UNNOTICED = 0.005, 0.05
"""Of the whole, and in seconds: a large network that trains for a short time is not looked at each time."""

OF_THE_DATA = ("leakage", "unscaled_features", "class_imbalance")  # training does not change these


class EarlyWarning(Callback):
    """Warns of each symptom once, before training or when a quarter of the epochs is over.

    Args:
        config: of the run, resolved.
        folder: of the run.
    """

    def __init__(self, config: dict[str, Any], folder: RunFolder) -> None:
        self._config = config
        self._folder = folder
        self._warned: set[str] = set()
        self.first_seen: dict[str, int] = {}
        """The optimizer step at which each symptom was first found."""
        self.start: Start | None = None
        """As the first look found it."""
        self._seconds = self._longest = self._started = 0.0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._started = time.monotonic()
        if trainer.current_epoch == 0:
            self._look(trainer, pl_module)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        assert trainer.max_epochs is not None
        quarters = {math.ceil(trainer.max_epochs * quarter / LOOKS) for quarter in range(1, LOOKS)}
        # With one more look that takes as long as the longest.
        seconds = self._seconds + self._longest
        is_affordable = seconds <= max(UNNOTICED, MOST_TIME * (time.monotonic() - self._started))
        if is_affordable and trainer.current_epoch + 1 in quarters - {trainer.max_epochs}:
            self._look(trainer, pl_module)

    def _look(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not trainer.is_global_zero:
            return
        assert isinstance(pl_module, Classifier)
        model = copy.deepcopy(pl_module.model).cpu()
        if not isinstance(model, SigmoidMLP):
            return
        overrides, series = self._folder.read_overrides(), read_series(self._folder.metrics)
        is_untrained = trainer.global_step == 0
        evidence = Evidence(
            overrides,
            series,
            None if is_untrained else model,
            started=list(model.parameters()) if is_untrained else None,
            start=self.start,
        )
        data = data_of(trainer)
        measure_rows([data])  # once, and for the verdict too
        started = time.monotonic()
        diagnosis = Diagnosis.of(self._config, evidence, data)
        took = time.monotonic() - started
        self._seconds, self._longest = self._seconds + took, max(self._longest, took)
        self.start = Start(diagnosis.seen.start_loss, diagnosis.seen.start)
        for finding in diagnosis.findings:
            self.first_seen.setdefault(finding.symptom, min(finding.step, trainer.global_step))
            is_certain = finding.severity == "fatal" or finding.symptom in OF_THE_DATA
            if is_certain and finding.symptom not in self._warned:
                self._warned.add(finding.symptom)
                line = f"{said(finding)}. {explanation(finding)}"
                log.info("warning: %s", line)
                get_console().print(f"warning      {line}", highlight=False, soft_wrap=True, markup=False)
