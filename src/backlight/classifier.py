"""The LightningModule: a network, the BCE loss, back-propagation, metrics and the optimizer."""

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any, Literal

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.core.optimizer import LightningOptimizer
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from backlight.backprop.step import BackwardPass, backpropagate
from backlight.backprop.trace import AutogradRecorder
from backlight.data.batches import Batch
from backlight.errors import BacklightError
from backlight.loss import BinaryCrossEntropy
from backlight.metrics import EpochMetrics, cheap_metrics, every_metric
from backlight.model import SigmoidMLP

Backward = Literal["equations", "autograd"]


class Classifier(LightningModule):
    """Trains a network on the mean BCE of each batch: one output for two classes, else one per class.

    Optimization is manual, so that back-propagation is ours: `backward="equations"` fills `.grad` by
    the equations, `"autograd"` by PyTorch, and everything else is the same.

    Args:
        model: maps x `[batch, features]` to logits `[batch, num_outputs]`.
        optimizer: over the parameters of `model`.
        schedule: of the learning rate, stepped once per epoch.
        loss: what to minimise.
        num_outputs: 1 for two classes, else the number of classes.
        backward: who computes the gradients. The equations need a `SigmoidMLP`.
        gradient_clip_val: largest norm of all gradients together; None does not clip.

    Raises:
        ValueError: the equations were asked for and the model is not a `SigmoidMLP`.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: Optimizer,
        schedule: LRScheduler | None = None,
        loss: BinaryCrossEntropy | None = None,
        *,
        num_outputs: int = 1,
        backward: Backward = "equations",
        gradient_clip_val: float | None = None,
    ) -> None:
        super().__init__()
        if backward == "equations" and not isinstance(model, SigmoidMLP):
            raise ValueError("backward=equations: only a SigmoidMLP has them; use backward=autograd")
        self.automatic_optimization = False
        self.model = model
        self.optimizer = optimizer
        self.schedule = schedule
        self.loss = loss or BinaryCrossEntropy()
        self.backward_by = backward
        self.gradient_clip_val = gradient_clip_val
        self.observe: Callable[[BackwardPass], None] | None = None
        """Is given the next backward pass, once, before gradients are averaged and clipped."""
        self.train_metrics = EpochMetrics(self.loss, cheap_metrics(num_outputs))
        self.val_metrics = EpochMetrics(self.loss, every_metric(num_outputs))
        self.test_metrics = EpochMetrics(self.loss, every_metric(num_outputs))

    @property
    def is_logged_step(self) -> bool:
        """Whether step-wise values of the coming optimizer step are to be logged."""
        every: int = self.trainer.log_every_n_steps  # type: ignore[attr-defined]  # set in its __init__
        return self.global_step % every == 0

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.model(x)
        return logits

    def configure_optimizers(self) -> OptimizerLRScheduler:
        return [self.optimizer], [] if self.schedule is None else [self.schedule]

    def training_step(self, batch: Batch, batch_idx: int) -> None:
        x, y = batch
        batch_size = self._rows_per_process(len(x))
        results: list[tuple[Tensor, Tensor]] = []

        def closure() -> Tensor:
            results.append(self._backpropagate(x, y, batch_size))
            return results[-1][1]

        step, logged = self.global_step, self.is_logged_step
        optimizer = self.optimizers()
        assert isinstance(optimizer, LightningOptimizer)
        optimizer.step(closure)
        logits, loss = results[0]  # L-BFGS calls the closure again, at other weights
        self.train_metrics.update(logits, y)
        if logged and self.logger is not None:
            mean: Tensor = self.trainer.strategy.reduce(loss, reduce_op="mean")
            self.logger.log_metrics({"train/step_loss": mean.item()}, step)

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        # Callbacks have seen the gradients by now, so what they log is not clipped.
        self.clip_gradients(optimizer, self.gradient_clip_val, "norm")

    def on_train_batch_end(self, outputs: Any, batch: Batch, batch_idx: int) -> None:
        # The epoch's figures are logged here and not at its end, where callbacks read them.
        if self.trainer.fit_loop.epoch_loop.batch_progress.is_last_batch:
            self.log(
                "lr",
                self.optimizer.param_groups[0]["lr"],
                on_step=False,
                on_epoch=True,
                batch_size=1,
                sync_dist=True,
            )
            self._log_epoch("train", self.train_metrics)

    def on_train_epoch_end(self) -> None:
        if isinstance(self.schedule, ReduceLROnPlateau):
            metrics = self.trainer.callback_metrics
            self.schedule.step(metrics.get("val/loss", metrics["train/loss"]))
        elif self.schedule is not None:
            self.schedule.step()

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        self.val_metrics.update(self(batch[0]), batch[1])

    def on_validation_epoch_end(self) -> None:
        self._log_epoch("val", self.val_metrics)

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        self.test_metrics.update(self(batch[0]), batch[1])

    def on_test_epoch_end(self) -> None:
        self._log_epoch("test", self.test_metrics)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        if isinstance(self.model, SigmoidMLP):
            checkpoint["architecture"] = self.model.architecture
        checkpoint["loss"] = self.loss.settings()

    def _log_epoch(self, stage: str, metrics: EpochMetrics) -> None:
        """Log what all rows of this epoch came to.

        Raises:
            BacklightError: the loss is not a number any more.
        """
        values = metrics.compute()
        if not values["loss"].isfinite():
            raise BacklightError(
                f"{stage}/loss is {values['loss'].item()} after epoch {self.current_epoch + 1}: training diverged; "
                f"lower optimizer.lr (now {self.optimizer.param_groups[0]['lr']}) or set trainer.gradient_clip_val"
            )
        self.log_dict(
            {f"{stage}/{name}": value for name, value in values.items()},
            on_step=False,
            on_epoch=True,
            batch_size=1,
            sync_dist=True,
        )

    def _backpropagate(self, x: Tensor, y: Tensor, batch_size: float) -> tuple[Tensor, Tensor]:
        """Fill `.grad`; returns the logits and the loss, both detached."""
        observe, self.observe = self.observe, None
        if self.backward_by == "equations":
            assert isinstance(self.model, SigmoidMLP)
            targets = self.loss.targets(y)
            passed = backpropagate(self.model, x, targets, self.loss.positive_weight, batch_size=batch_size)
            if observe is not None:
                observe(passed)
            self._average_gradients()
            return passed.logits, self.loss(passed.logits, y, batch_size)
        with nullcontext() if observe is None else AutogradRecorder(self.model) as recorder:
            logits = self(x)
        if recorder is not None:
            recorder.retain(logits)
        loss: Tensor = self.loss(logits, y, batch_size)
        self.optimizer.zero_grad()
        self.manual_backward(loss)
        if observe is not None and recorder is not None:
            observe(recorder.retained())
        return logits.detach(), loss.detach()

    def _rows_per_process(self, rows: int) -> float:
        """The mean over processes: dividing each sum by it makes the mean of the results exact."""
        if self.trainer.world_size == 1:
            return rows
        mean: Tensor = self.trainer.strategy.reduce(
            torch.tensor(float(rows), device=self.device), reduce_op="mean"
        )
        return float(mean)

    def _average_gradients(self) -> None:
        """Take the mean over processes, as autograd's own hooks would."""
        if self.trainer.world_size == 1:
            return
        gradients = [p.grad for p in self.model.parameters() if p.grad is not None]
        mean = self.trainer.strategy.reduce(nn.utils.parameters_to_vector(gradients), reduce_op="mean")
        nn.utils.vector_to_parameters(mean, gradients)
