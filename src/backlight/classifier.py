"""The LightningModule: a network, the BCE loss, back-propagation, metrics and the optimizer."""

from collections.abc import Callable
from typing import Any, Literal

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.core.optimizer import LightningOptimizer
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import ReduceLROnPlateau

from backlight.backprop.equations import binary_cross_entropy, smooth
from backlight.backprop.step import backpropagate
from backlight.data.batches import Batch
from backlight.metrics import every_metric, labels_of, probabilities, training_metrics
from backlight.model import SigmoidMLP
from backlight.optimizers import Parameters, Schedule

Backward = Literal["equations", "autograd"]
Stage = Literal["train", "val", "test"]


class Classifier(LightningModule):
    """Trains a network on the mean BCE of each batch; one sigmoid output per class, or one for two classes.

    Optimization is manual, so that back-propagation is ours: `backward="equations"` fills `.grad` by
    the equations, `"autograd"` by PyTorch, and everything else is the same.

    Args:
        model: maps x `[batch, features]` to logits `[batch, outputs]`.
        num_outputs: 1 for two classes, else the number of classes.
        make_optimizer: from parameters to an optimizer.
        make_schedule: from that optimizer to a learning-rate schedule, stepped once per epoch.
        backward: who computes the gradients. The equations need a `SigmoidMLP`.
        label_smoothing: ε in [0, 1); targets become ε/2 and 1 − ε/2.
        positive_weight: `[outputs]` factors on the loss of the positive class, or None for 1.
        gradient_clip_val: largest norm of all gradients together; None does not clip.

    Raises:
        ValueError: the equations were asked for and the model is not a `SigmoidMLP`.
    """

    def __init__(
        self,
        model: nn.Module,
        num_outputs: int,
        make_optimizer: Callable[[Parameters], Optimizer],
        make_schedule: Callable[[Optimizer], Schedule] = lambda _: None,
        *,
        backward: Backward = "equations",
        label_smoothing: float = 0.0,
        positive_weight: Tensor | None = None,
        gradient_clip_val: float | None = None,
    ) -> None:
        super().__init__()
        if backward == "equations" and not isinstance(model, SigmoidMLP):
            raise ValueError("backward=equations: only a SigmoidMLP has them; use backward=autograd")
        self.automatic_optimization = False
        self.model = model
        self.make_optimizer = make_optimizer
        self.make_schedule = make_schedule
        self.backward_by = backward
        self.label_smoothing = label_smoothing
        self.positive_weight: Tensor | None
        self.register_buffer("positive_weight", positive_weight, persistent=False)
        self.gradient_clip_val = gradient_clip_val
        self.train_metrics = training_metrics(num_outputs).clone(prefix="train/")
        self.val_metrics = every_metric(num_outputs).clone(prefix="val/")
        self.test_metrics = every_metric(num_outputs).clone(prefix="test/")
        # Logits and targets of the epoch so far: metrics cost too much to update at every step.
        self._seen: dict[Stage, list[Batch]] = {"train": [], "val": [], "test": []}

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.model(x)
        return logits

    def configure_optimizers(self) -> OptimizerLRScheduler:
        optimizer = self.make_optimizer(self.model.parameters())
        schedule = self.make_schedule(optimizer)
        if schedule is None:
            return optimizer
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "monitor": "train/loss"}}

    def training_step(self, batch: Batch, batch_idx: int) -> None:
        x, y = batch
        batch_size = self._mean_rows(len(x))
        results: list[tuple[Tensor, Tensor]] = []

        def closure() -> Tensor:
            results.append(self._backpropagate(x, y, batch_size))
            return results[-1][1]

        optimizer = self.optimizers()
        assert isinstance(optimizer, LightningOptimizer)
        optimizer.step(closure)
        logits, loss = results[0]  # L-BFGS calls the closure again, at other weights
        self._seen["train"].append((logits, y))
        if self.trainer.global_step % self.trainer.log_every_n_steps == 0:
            self.log("train/step_loss", loss, prog_bar=True, sync_dist=True)

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        self._seen["val"].append((self(batch[0]), batch[1]))

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        self._seen["test"].append((self(batch[0]), batch[1]))

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        # Callbacks have seen the gradients by now, so what they log is not clipped.
        self.clip_gradients(optimizer, self.gradient_clip_val, "norm")

    def on_train_epoch_end(self) -> None:
        self._log_epoch("train")
        schedule = self.lr_schedulers()
        if isinstance(schedule, ReduceLROnPlateau):
            metrics = self.trainer.callback_metrics
            schedule.step(metrics.get("val/loss", metrics["train/loss"]))
        elif schedule is not None:
            assert not isinstance(schedule, list)
            schedule.step()

    def on_validation_epoch_end(self) -> None:
        self._log_epoch("val")

    def on_test_epoch_end(self) -> None:
        self._log_epoch("test")

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        if isinstance(self.model, SigmoidMLP):
            checkpoint["architecture"] = self.model.architecture

    def loss(self, logits: Tensor, y: Tensor, batch_size: float | None = None) -> Tensor:
        """What training minimises: the mean BCE with this run's smoothing and positive-class weight."""
        return binary_cross_entropy(
            logits, smooth(y, self.label_smoothing), self.positive_weight, batch_size
        )

    def _backpropagate(self, x: Tensor, y: Tensor, batch_size: float) -> tuple[Tensor, Tensor]:
        """Fill `.grad`; returns the logits and the loss, both detached."""
        if self.backward_by == "equations":
            assert isinstance(self.model, SigmoidMLP)
            targets = smooth(y, self.label_smoothing)
            logits = backpropagate(self.model, x, targets, self.positive_weight, batch_size).logits
            self._average_gradients()
            return logits, self.loss(logits, y, batch_size).detach()
        logits = self(x)
        loss = self.loss(logits, y, batch_size)
        self.zero_grad()
        self.manual_backward(loss)
        return logits.detach(), loss.detach()

    def _mean_rows(self, rows: int) -> float:
        """Rows of the whole batch per process: dividing by it makes the mean over processes exact."""
        if self.trainer.world_size == 1:
            return rows
        return float(self.trainer.strategy.reduce(torch.tensor(float(rows), device=self.device), reduce_op="mean"))

    def _average_gradients(self) -> None:
        """The mean over processes, which autograd's hooks would have taken."""
        if self.trainer.world_size == 1:
            return
        parameters = list(self.model.parameters())
        gradient = nn.utils.parameters_to_vector(p.grad for p in parameters if p.grad is not None)
        mean = self.trainer.strategy.reduce(gradient, reduce_op="mean")
        for parameter, part in zip(parameters, mean.split([p.numel() for p in parameters]), strict=True):
            parameter.grad = part.view_as(parameter)

    def _log_epoch(self, stage: Stage) -> None:
        """Log the loss and metrics of all rows that this epoch has seen, and forget the rows."""
        logits, y = (torch.cat(tensors) for tensors in zip(*self._seen[stage], strict=True))
        self._seen[stage].clear()
        metrics: MetricCollection = getattr(self, f"{stage}_metrics")
        metrics["loss"].update(self.loss(logits, y), weight=len(y))
        ...
