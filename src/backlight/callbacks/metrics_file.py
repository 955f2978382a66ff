"""`metrics.csv`: one row per epoch."""

import csv
from pathlib import Path

from lightning.pytorch import Callback, LightningModule, Trainer

from backlight.files import write_whole
from backlight.metrics import number


class MetricsFile(Callback):
    """Appends the epoch, the step and every epoch metric after each epoch: row n is epoch n.

    Args:
        path: the file. A resumed run first drops the rows of epochs that it will train again.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.is_global_zero and self.path.exists():
            header, *rows = self.path.read_text(encoding="utf-8").splitlines(keepends=True) or [""]
            write_whole(self.path, "".join([header, *rows[: trainer.current_epoch]]))

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not trainer.is_global_zero:
            return
        metrics = {name: number(value) for name, value in sorted(trainer.callback_metrics.items())}
        row = {"epoch": trainer.current_epoch + 1, "step": trainer.global_step, **metrics}
        is_new = not self.path.exists()
        with self.path.open("a", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, row, lineterminator="\n")
            if is_new:
                writer.writeheader()
            writer.writerow(row)
