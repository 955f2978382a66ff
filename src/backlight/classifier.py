"""The LightningModule: a network, the BCE loss, back-propagation, metrics and the optimizer."""

import os
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from functools import partial
from typing import Any, Literal

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.core.optimizer import LightningOptimizer
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, distributed, nn
from torch.optim import LBFGS, Optimizer
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from backlight.backprop.sparse import Rows
from backlight.backprop.step import Backpropagation, BackwardPass
from backlight.backprop.trace import AutogradRecorder
from backlight.callbacks.reach import writer_of
from backlight.callbacks.tensorboard import write_scalars
from backlight.checkpoint import FORM
from backlight.chunk import steps_at_once
from backlight.data.batches import Batch, Steps
from backlight.data.module import ClassificationData
from backlight.errors import BacklightError
from backlight.flat import FlatOptimizer
from backlight.graphed import GraphedStep
from backlight.loss import BinaryCrossEntropy
from backlight.metrics import EpochMeans, EpochMetrics
from backlight.model import SigmoidMLP
from backlight.threads import threads_for

Backward = Literal["equations", "autograd"]
Update = Callable[[Callable[[], Any]], Any]

SECONDS_AWAKE = 1e-3
"""For longer, whoever waits may keep those from running that it waits for."""
_let_others_run: Callable[[], None] = getattr(os, "sched_yield", partial(time.sleep, 0))
"""Windows has only the second, which takes longer elsewhere."""


def diverged(name: str, loss: float, epoch: int, lr: float) -> str:
    """The sentence for a loss that is not a number any more; the first epoch is 0."""
    return (
        f"{name} is {loss} after epoch {epoch + 1}: training diverged; "
        f"lower optimizer.lr (now {lr}) or model.init_scale, or set trainer.gradient_clip_val"
    )


def _add_up(tensor: Tensor) -> None:
    """Make it the sum of those of all processes.

    Lightning's own waits for every process once more before it. On a CPU this one does not sleep while the answer may
    come soon: for a core that fell asleep to wake takes longer than the sum of a small network's gradients.
    """
    work = distributed.all_reduce(tensor, async_op=True)
    assert work is not None
    sleeps = time.perf_counter() + SECONDS_AWAKE
    while tensor.is_cpu and not work.is_completed() and time.perf_counter() < sleeps:
        _let_others_run()
    work.wait()


class StepObserver:
    """A callback that looks at some of the optimizer steps, also where one `training_step` makes many."""

    takes_chunks = True
    sees_backward_pass = True
    """Whether `on_backward` is to be called, for which autograd must keep what it would forget."""

    def is_due(self, step: int) -> bool:
        """Whether to look at this step, the first being 0."""
        raise NotImplementedError

    def on_backward(self, step: int, passed: BackwardPass) -> None:
        """Called with what back-propagation computed from the rows of this process; it is good until this returns."""

    def on_gradients(self, step: int) -> None:
        """Called when every `.grad` is that of all processes together, and not yet clipped."""

    def on_update(self, step: int) -> None:
        """Called when the optimizer has made its step."""


class Classifier(LightningModule):
    """Trains a network on the mean BCE of each batch: one output for two classes, else one per class.

    Optimization is manual, so that back-propagation is ours: `backward="equations"` fills `.grad` by
    the equations, `"autograd"` by PyTorch, and everything else is the same.

    Args:
        model: maps x `[batch, features]` to logits `[batch, outputs]`, one of two classes, else one per class.
        optimizer: over the parameters of `model`.
        schedule: of the learning rate, stepped once per epoch.
        loss: what to minimise.
        backward: who computes the gradients. The equations need a `SigmoidMLP`.
        gradient_clip_val: largest norm of all gradients together; None does not clip.
        cuda_graphs: repeat each step that nobody looks at as a CUDA graph; small networks on an NVIDIA GPU only.

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
        backward: Backward = "equations",
        gradient_clip_val: float | None = None,
        cuda_graphs: bool = False,
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
        self.cuda_graphs = cuda_graphs
        self._graphs: dict[tuple[int, float, float], GraphedStep] = {}
        """By rows, batch size and learning rate, which are part of what is recorded."""
        self._may_repeat = False
        """Whether a step was made by now, which sets up what the next ones find."""
        self._observers: list[StepObserver] = []
        self._makes_chunks = self._is_distributed = False
        self._searches = isinstance(optimizer, LBFGS)
        self._propagation: Backpropagation
        self._flat: FlatOptimizer | None = None
        self._largest = max(parameter.numel() for parameter in model.parameters())
        self.train_metrics = EpochMeans(self.loss)
        self.val_metrics, self.test_metrics = EpochMetrics(self.loss), EpochMetrics(self.loss)

    def forward(self, x: Rows) -> Tensor:
        logits: Tensor = self.model(x)
        return logits

    def configure_optimizers(self) -> OptimizerLRScheduler:
        return [self.optimizer], [] if self.schedule is None else [self.schedule]

    def on_fit_start(self) -> None:
        callbacks: list[object] = self.trainer.callbacks  # type: ignore[attr-defined]  # set in its __init__
        self._observers = [callback for callback in callbacks if isinstance(callback, StepObserver)]
        data = self.trainer.datamodule  # type: ignore[attr-defined]  # set in its __init__
        self._is_distributed = self.trainer.world_size > 1
        by_equations = self.backward_by == "equations"
        self._makes_chunks = False
        # Autograd's hooks between processes expect one backward pass per training_step.
        if isinstance(data, ClassificationData) and (by_equations or not self._is_distributed):
            data.steps_at_once = steps_at_once(self.trainer, self, data.rows_per_step)
            self._makes_chunks = data.steps_at_once > 1
        is_flat = by_equations and self._makes_chunks and FlatOptimizer.takes(self.optimizer, self.model)
        # Before anybody takes a view of the parameters.
        self._flat = FlatOptimizer(self.optimizer, for_graphs=self.cuda_graphs) if is_flat else None
        self._graphs, self._may_repeat = {}, False
        if self.cuda_graphs and not (self._flat and self.device.type == "cuda" and data.is_dense):
            raise BacklightError(
                "trainer.cuda_graphs=true: only small networks on an NVIDIA GPU repeat their steps so, with "
                "model.backward=equations, an optimizer other than lbfgs, and rows that are neither sparse nor on disk"
            )

    def on_train_start(self) -> None:
        if isinstance(self.model, SigmoidMLP):
            self._propagation = Backpropagation(self.model, self._flat.gradients if self._flat else None)

    def training_step(self, batch: Steps | Batch, batch_idx: int) -> None:
        """Make a step with each batch given, one after the other."""
        steps = batch if isinstance(batch, Steps) else Steps.single(batch)
        every: int = self.trainer.log_every_n_steps  # type: ignore[attr-defined]  # set in its __init__
        update = self._update()
        logits: list[Tensor] = []
        losses: dict[int, Tensor] = {}
        with (
            torch.set_grad_enabled(self.backward_by == "autograd"),
            self._flat or nullcontext(),
            threads_for(max(steps.rows) * self._largest),
        ):
            for step, (x, y, batch_size) in enumerate(steps, start=self.global_step):
                is_logged = step % every == 0
                found, loss = self._step(
                    update, step, x, y, batch_size, with_loss=is_logged or self._searches
                )
                logits.append(found)
                if is_logged and loss is not None:
                    losses[step] = loss
        self.train_metrics.update(torch.cat(logits), steps.y)
        self._log_step_losses(losses)
        # Lightning counts calls and takes them for steps.
        self.trainer.fit_loop.epoch_loop._batches_that_stepped += len(logits) - 1

    def on_train_batch_end(self, outputs: Any, batch: Batch, batch_idx: int) -> None:
        # The epoch's figures are logged here and not at its end, where callbacks read them.
        if self.trainer.fit_loop.epoch_loop.batch_progress.is_last_batch:
            rate = torch.tensor(self.optimizer.param_groups[0]["lr"], device=self.device)
            self._log_epoch({"lr": rate, **self._figures("train", self.train_metrics)})

    def on_train_epoch_end(self) -> None:
        if isinstance(self.schedule, ReduceLROnPlateau):
            metrics = self.trainer.callback_metrics
            self.schedule.step(metrics.get("val/loss", metrics["train/loss"]))
        elif self.schedule is not None:
            self.schedule.step()

    def on_validation_model_zero_grad(self) -> None:
        """Leave gradients as they are: every step sets its own."""

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        self.val_metrics.update(self(batch[0]), batch[1])

    def on_validation_epoch_end(self) -> None:
        self._log_epoch(self._figures("val", self.val_metrics))

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        self.test_metrics.update(self(batch[0]), batch[1])

    def on_test_epoch_end(self) -> None:
        self._log_epoch(self._figures("test", self.test_metrics))

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        if isinstance(self.model, SigmoidMLP):
            checkpoint["architecture"] = self.model.architecture
        checkpoint["loss"] = self.loss.settings()
        checkpoint["form"] = FORM

    def _figures(self, stage: str, metrics: EpochMeans | EpochMetrics) -> dict[str, Tensor]:
        """What all rows of this epoch came to, in all processes.

        Raises:
            BacklightError: the loss is not a number any more.
        """
        values = metrics.compute()
        if not values["loss"].isfinite():
            lr = self.optimizer.param_groups[0]["lr"]
            raise BacklightError(diverged(f"{stage}/loss", values["loss"].item(), self.current_epoch, lr))
        return {f"{stage}/{name}": value for name, value in values.items()}

    def _log_epoch(self, figures: Mapping[str, Tensor]) -> None:
        """Log figures of an epoch, all read at once.

        `log_dict` takes 0.2 ms for each, which on small data is longer than all steps of the epoch.
        """
        if self.trainer.state.fn != TrainerFn.FITTING:  # the trainer returns these
            self.log_dict(dict(figures), batch_size=1, sync_dist=True)
            return
        self.trainer.callback_metrics.update(figures)
        values = torch.stack(list(figures.values())).tolist()
        step = self.trainer.fit_loop.epoch_loop._batches_that_stepped
        self._write(["epoch", *figures], {step: [self.current_epoch, *values]})
        if self.logger is not None:
            self.logger.save()  # so that who watches sees it

    def _write(self, names: Sequence[str], steps: Mapping[int, Sequence[float]]) -> None:
        """Log the values of these names at each step."""
        writer = writer_of(self.trainer)
        if writer is not None:
            write_scalars(writer, names, steps)
        elif self.logger is not None:  # somebody else's
            for step, values in steps.items():
                self.logger.log_metrics(dict(zip(names, values, strict=True)), step)

    def _step(
        self, update: Update, step: int, x: Rows, y: Tensor, batch_size: float, *, with_loss: bool
    ) -> tuple[Tensor, Tensor | None]:
        """Make one optimizer step; returns the logits and the loss before it, the latter if asked for."""
        due = [observer for observer in self._observers if observer.is_due(step)]
        if self.cuda_graphs:
            if self._may_repeat and not due and not with_loss:
                return self._repeat(x, y, batch_size), None
            self._may_repeat = True
        backpropagate = self._by_equations if self.backward_by == "equations" else self._by_autograd
        results: list[tuple[Tensor, Tensor | None]] = []

        def differentiate() -> Tensor | None:
            observers = [] if results else due  # L-BFGS calls it again, at other weights
            watching = [observer for observer in observers if observer.sees_backward_pass]
            results.append(backpropagate(x, y, batch_size, step, watching, with_loss=with_loss))
            for observer in observers:
                observer.on_gradients(step)
            self._clip()
            return results[-1][1]

        update(differentiate)
        for observer in due:
            observer.on_update(step)
        return results[0]

    def _repeat(self, x: Rows, y: Tensor, batch_size: float) -> Tensor:
        """Make a step as its graph, recorded if there is none yet; returns the logits."""
        flat = self._flat
        assert flat is not None and isinstance(x, Tensor) and isinstance(self.model, SigmoidMLP)
        lr: float = self.optimizer.param_groups[0]["lr"]
        key = (len(y), batch_size, lr)
        if key not in self._graphs:
            # Those of another learning rate will hardly be needed again.
            self._graphs = {known: graph for known, graph in self._graphs.items() if known[-1] == lr}
            # Of its own: the graph remembers where its memory lies.
            propagation = Backpropagation(self.model, flat.gradients)

            def step(x: Tensor, y: Tensor) -> Tensor:
                logits = propagation.differentiate(
                    x, self.loss.targets(y), self.loss.class_weight, batch_size
                )
                self._clip()
                flat.step()
                return logits

            self._graphs[key] = GraphedStep(step, x, y)
        progress = self.trainer.fit_loop.epoch_loop.manual_optimization.optim_step_progress
        progress.increment_ready()
        logits = self._graphs[key](x, y)
        progress.increment_completed()
        return logits

    def _clip(self) -> None:
        if self.gradient_clip_val is not None:
            self.clip_gradients(self.optimizer, self.gradient_clip_val, "norm")

    def _update(self) -> Update:
        """What makes the optimizer's step with the function that it is given, which fills `.grad`."""
        optimizer = self.optimizers()
        assert isinstance(optimizer, LightningOptimizer)
        if not self._makes_chunks:
            return optimizer.step
        # Lightning's wrapper costs as much as a step of a small network. What it counts is counted here.
        progress = self.trainer.fit_loop.epoch_loop.manual_optimization.optim_step_progress
        make_step = self._flat.step if self._flat else self.optimizer.step
        self.optimizer._opt_called = True  # type: ignore[attr-defined]  # the schedule asks for it

        def update(differentiate: Callable[[], Any]) -> None:
            progress.increment_ready()
            if self._searches:
                self.optimizer.step(differentiate)
            else:
                differentiate()
                make_step()
            progress.increment_completed()

        return update

    def _by_equations(
        self,
        x: Rows,
        y: Tensor,
        batch_size: float,
        step: int,
        watching: Sequence[StepObserver],
        *,
        with_loss: bool,
    ) -> tuple[Tensor, Tensor | None]:
        """Fill `.grad`; returns the logits and, if asked for, the loss."""
        targets, weight = self.loss.targets(y), self.loss.class_weight
        logits = self._propagation.differentiate(x, targets, weight, batch_size)
        for observer in watching:
            observer.on_backward(step, self._propagation.last)
        if self._is_distributed:
            self._average_gradients()
        return logits, self.loss(logits, y, batch_size) if with_loss else None

    def _by_autograd(
        self,
        x: Rows,
        y: Tensor,
        batch_size: float,
        step: int,
        watching: Sequence[StepObserver],
        *,
        with_loss: bool,
    ) -> tuple[Tensor, Tensor | None]:
        """The same by PyTorch, which needs the loss in any case."""
        with AutogradRecorder(self.model) if watching else nullcontext() as recorder:
            logits = self(x)
        if recorder is not None:
            recorder.retain(logits)
        loss: Tensor = self.loss(logits, y, batch_size)
        self.optimizer.zero_grad()
        self.manual_backward(loss)
        if recorder is not None:
            for observer in watching:
                observer.on_backward(step, recorder.retained())
        return logits.detach(), loss.detach()

    def _log_step_losses(self, losses: Mapping[int, Tensor]) -> None:
        """Log the loss of each step, all read at once: reading one makes a GPU wait."""
        if not losses or self.logger is None:
            return
        mean: Tensor = self.trainer.strategy.reduce(torch.stack(list(losses.values())), reduce_op="mean")
        self._write(["train/step_loss"], dict(zip(losses, mean[:, None].tolist(), strict=True)))

    def _average_gradients(self) -> None:
        """Take the mean over processes, as autograd's own hooks would."""
        gradients = [p.grad for p in self.model.parameters() if p.grad is not None]
        flat = self._flat
        together = flat.gathered() if flat else torch.cat([gradient.flatten() for gradient in gradients])
        _add_up(together)
        together /= self.trainer.world_size
        if flat is None:
            for gradient, own in zip(gradients, together.split([g.numel() for g in gradients]), strict=True):
                gradient.copy_(own.view(gradient.shape))
