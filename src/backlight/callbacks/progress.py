"""The terminal: a progress bar, and a line now and then."""

import logging
import time
from collections.abc import Mapping
from typing import SupportsFloat

from lightning.pytorch import Callback, LightningModule, Trainer
from rich import get_console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from backlight.callbacks.reach import steps_per_epoch
from backlight.data.batches import Steps
from backlight.ranges import Natural

log = logging.getLogger(__name__)

SECONDS_BETWEEN_UPDATES = 0.1
LINES = 10  # per run, about


class ProgressReport(Callback):
    """A bar over all epochs with the latest loss and validation metrics, and a line every few epochs.

    Args:
        bar: draw the bar; only a terminal gets one.
        print_every_n_epochs: epochs between two lines (after the first epoch, and after every n-th);
            0 prints none, None prints about ten per run.
    """

    takes_chunks = True

    def __init__(self, *, bar: bool = True, print_every_n_epochs: Natural | None = None) -> None:
        self.bar = bar
        self.print_every_n_epochs = print_every_n_epochs
        self._progress: Progress | None = None
        self._task = TaskID(0)
        self._updated = 0.0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not (self.bar and trainer.is_global_zero and get_console().is_terminal):
            return
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.fields[metrics]}"),
            TimeRemainingColumn(compact=True, elapsed_when_finished=True),
            console=get_console(),
            transient=True,
        )
        total = _epochs(trainer) * steps_per_epoch(trainer)
        self._task = self._progress.add_task(
            _epoch(trainer), total=total, completed=trainer.global_step, metrics=""
        )
        self._progress.start()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: object, batch: Steps, batch_idx: int
    ) -> None:
        if self._progress is not None and time.monotonic() - self._updated > SECONDS_BETWEEN_UPDATES:
            self._updated = time.monotonic()
            self._progress.update(
                self._task,
                description=_epoch(trainer),
                completed=trainer.global_step,
                metrics=_metrics(trainer),
            )

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        every = self.print_every_n_epochs
        if every is None:
            every = max(1, _epochs(trainer) // LINES)
        epoch = trainer.current_epoch + 1
        if trainer.is_global_zero and every and (epoch == 1 or epoch % every == 0):
            metrics = {name: value.item() for name, value in trainer.callback_metrics.items()}
            line = epoch_line(epoch, _epochs(trainer), metrics)
            log.info(line)
            get_console().print(line, highlight=False, soft_wrap=True)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._stop()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self._stop()

    def _stop(self) -> None:
        if self._progress is not None:
            self._progress.stop()
            self._progress = None


def _epochs(trainer: Trainer) -> int:
    assert trainer.max_epochs is not None
    return trainer.max_epochs


def _epoch(trainer: Trainer) -> str:
    width = len(str(_epochs(trainer)))
    return f"epoch {trainer.current_epoch + 1:>{width}}/{_epochs(trainer)}"


def _metrics(trainer: Trainer) -> str:
    return _shown({name: value.item() for name, value in trainer.callback_metrics.items()})


def epoch_line(epoch: int, epochs: int, metrics: Mapping[str, SupportsFloat]) -> str:
    """What is said of an epoch, the first being 1."""
    return f"epoch {epoch:>{len(str(epochs))}}/{epochs}  {_shown(metrics)}"


def _shown(metrics: Mapping[str, SupportsFloat]) -> str:
    accuracy = "val/accuracy" if "val/accuracy" in metrics else "train/accuracy"
    names = [name for name in ("train/loss", "val/loss", accuracy) if name in metrics]
    return "  ".join(f"{name} {float(metrics[name]):.6f}" for name in names)
