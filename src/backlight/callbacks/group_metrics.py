"""Metrics of rows that belong together: whole sentences, and rankings."""

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from backlight.callbacks.reach import data_of
from backlight.data.batches import logits_of
from backlight.metrics import group_metrics


class GroupMetrics(Callback):
    """Adds the metrics of groups to those of the test rows, where the data has groups to judge by."""

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        data = data_of(trainer)
        groups, judged_by = data.groups("test"), data.judged_by
        if groups is None or judged_by is None:
            return
        x, y = data.part("test")
        values = group_metrics(logits_of(pl_module, x), y, torch.from_numpy(groups), judged_by)
        pl_module.log_dict(
            {f"test/{name}": value.to(pl_module.device, torch.float32) for name, value in values.items()}
        )
