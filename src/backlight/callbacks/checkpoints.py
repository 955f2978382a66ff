"""`last.ckpt` and `best.ckpt`."""

import io
import time
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint

from backlight.files import write_whole
from backlight.run_folder import RunFolder

SECONDS_BETWEEN_WRITES = 1.0


class Checkpoints(Checkpoint):
    """Keeps the last epoch and the best one.

    The best epoch has the lowest validation loss; without validation rows there is no telling, and the
    last one stands for it. Both are copied in memory after every epoch, and written when a second has
    passed and when training ends, however it ends: a kill costs the epochs of that second.

    Args:
        folder: of the run.
    """

    def __init__(self, folder: RunFolder) -> None:
        self.folder = folder
        self.best_loss = float("inf")
        self._unwritten: dict[str, dict[str, Any]] = {}
        self._written = -SECONDS_BETWEEN_WRITES

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        loss = trainer.callback_metrics.get("val/loss")
        is_best = loss is None or loss.item() < self.best_loss
        if is_best and loss is not None:
            self.best_loss = loss.item()
        checkpoint = trainer._checkpoint_connector.dump_checkpoint(weights_only=False)
        is_due = time.monotonic() - self._written >= SECONDS_BETWEEN_WRITES
        if not is_due:  # until it is written, training goes on changing the tensors
            # Perhaps a long vocabulary, which does not change; and what Lightning has just made.
            as_they_are = [checkpoint["ClassificationData"], checkpoint["loops"]]
            checkpoint = deepcopy(checkpoint, {id(part): part for part in as_they_are})
        if is_best:
            self._unwritten["best"] = checkpoint
        self._unwritten["last"] = checkpoint
        if is_due:
            self._write(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._write(trainer)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        if not isinstance(exception, OSError):  # a full disk has no room for these either
            self._write(trainer)

    def state_dict(self) -> dict[str, Any]:
        return {"best_loss": self.best_loss}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.best_loss = state_dict["best_loss"]

    def _write(self, trainer: Trainer) -> None:
        # The last one last: it knows of the best, which must be there if the process dies in between.
        best, last = (self._unwritten.get(name) for name in ("best", "last"))
        if best is not None:
            trainer.strategy.save_checkpoint(best, self.folder.checkpoint("best"))
        if last is not None and last is not best:
            trainer.strategy.save_checkpoint(last, self.folder.checkpoint("last"))
        elif last is not None and trainer.is_global_zero:
            write_whole(self.folder.checkpoint("last"), self.folder.checkpoint("best").read_bytes())
        self._unwritten = {}
        self._written = time.monotonic()


class WholeCheckpointIO(TorchCheckpointIO):
    """Saves so that the old checkpoint stays until the new one is complete on disk.

    Lightning's own writes to the system's temporary folder and moves the file; from another file system
    that is a copy over the old checkpoint, which a full disk or a kill cuts short.
    """

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None
    ) -> None:
        """Write the checkpoint; `storage_options` are not used."""
        content = io.BytesIO()
        torch.save(checkpoint, content)
        target = Path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        write_whole(target, content.getbuffer())
