"""Gradient norms and histograms of weights and gradients, per layer."""

from collections.abc import Mapping

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor
from torch.optim import Optimizer
from torch.utils.tensorboard import SummaryWriter

from backlight.callbacks.reach import writer_of
from backlight.callbacks.tensorboard import write_histogram, write_scalars
from backlight.classifier import Classifier
from backlight.ranges import Natural


class GradientMonitor(Callback):
    """Logs what back-propagation gave each layer, before clipping.

    `gradient_norm/total` and `gradient_norm/<layer>` (Euclidean, weights and bias together) at every
    step that is logged.

    Args:
        histogram_every_n_steps: steps between two histograms of the weights and gradients of every
            parameter; 0 draws none.
    """

    def __init__(self, *, histogram_every_n_steps: Natural = 100) -> None:
        self.histogram_every_n_steps = histogram_every_n_steps
        self._seen_step = -1

    def on_before_optimizer_step(
        self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer
    ) -> None:
        assert isinstance(pl_module, Classifier)
        step = trainer.global_step
        draws = self.histogram_every_n_steps > 0 and step % self.histogram_every_n_steps == 0
        if not (pl_module.is_logged_step or draws) or step == self._seen_step:
            return  # L-BFGS comes here several times a step
        self._seen_step = step
        writer = writer_of(trainer)
        if writer is None:
            return
        gradients = {
            name: parameter.grad
            for name, parameter in pl_module.model.named_parameters()
            if parameter.grad is not None
        }
        if pl_module.is_logged_step:
            _write_norms(writer, gradients, step)
        if draws:
            for name, parameter in pl_module.model.named_parameters():
                write_histogram(writer, f"weights/{name}", parameter, step)
                if name in gradients:
                    write_histogram(writer, f"gradients/{name}", gradients[name], step)


def _write_norms(writer: SummaryWriter, gradients: Mapping[str, Tensor], step: int) -> None:
    squares: dict[str, Tensor] = {}
    for name, gradient in gradients.items():
        layer = name.rpartition(".")[0] or name
        square = gradient.square().sum()
        squares[layer] = squares[layer] + square if layer in squares else square
    every = torch.stack(list(squares.values()))
    norms = torch.cat([every, every.sum()[None]]).sqrt().tolist()
    tags = [f"gradient_norm/{layer}" for layer in (*squares, "total")]
    write_scalars(writer, dict(zip(tags, norms, strict=True)), step)
