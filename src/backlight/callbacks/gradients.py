"""Gradient norms and histograms of weights and gradients, per layer."""

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch.optim import Optimizer

from backlight.callbacks.reach import writer_of
from backlight.callbacks.tensorboard import write_histogram
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
        writer = writer_of(trainer)
        if writer is None or step == self._seen_step:  # L-BFGS comes here several times a step
            return
        self._seen_step = step
        gradients = {
            name.removeprefix("model."): parameter.grad
            for name, parameter in pl_module.named_parameters()
            if parameter.grad is not None
        }
        if pl_module.is_logged_step:
            squares: dict[str, torch.Tensor] = {}
            for name, gradient in gradients.items():
                layer = name.rpartition(".")[0] or name
                squares[layer] = squares.get(layer, torch.zeros(())) + gradient.square().sum().cpu()
            for layer, square in squares.items():
                writer.add_scalar(f"gradient_norm/{layer}", square.sqrt(), step)
            writer.add_scalar("gradient_norm/total", sum(squares.values(), torch.zeros(())).sqrt(), step)
        if self.histogram_every_n_steps and step % self.histogram_every_n_steps == 0:
            for name, parameter in pl_module.named_parameters():
                short = name.removeprefix("model.")
                write_histogram(writer, f"weights/{short}", parameter, step)
                if short in gradients:
                    write_histogram(writer, f"gradients/{short}", gradients[short], step)
