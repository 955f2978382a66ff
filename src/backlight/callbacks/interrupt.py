"""Ctrl-C while a network trains."""

from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from backlight.processes import HeldInterrupt


class InterruptBetweenBatches(Callback):
    """Lets Ctrl-C end training only between two batches, where nobody holds a lock; a second one ends it at once."""

    takes_chunks = True

    def __init__(self) -> None:
        self._interrupt = HeldInterrupt()

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self._interrupt.hold()

    def on_train_batch_start(self, *args: Any) -> None:
        self._interrupt.raise_if_any()

    def on_validation_batch_start(self, *args: Any) -> None:
        self._interrupt.raise_if_any()

    def on_test_batch_start(self, *args: Any) -> None:
        self._interrupt.raise_if_any()

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self._interrupt.release()
