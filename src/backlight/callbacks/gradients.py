"""Gradient norms and histograms of weights and gradients, per layer."""

from collections.abc import Mapping, Sequence

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor, nn
from torch.utils.tensorboard import SummaryWriter

from backlight.callbacks.reach import writer_of
from backlight.callbacks.tensorboard import write_histograms, write_scalars
from backlight.classifier import Classifier, StepObserver
from backlight.data.batches import Steps
from backlight.ranges import Natural


class GradientMonitor(StepObserver, Callback):
    """Logs what back-propagation gave each layer, before clipping.

    `gradient_norm/total` and `gradient_norm/<layer>` (Euclidean, weights and bias together) at every
    step that is logged.

    Args:
        histogram_every_n_steps: steps between two histograms of the weights and gradients of every
            parameter; 0 draws none.
    """

    sees_backward_pass = False

    def __init__(self, *, histogram_every_n_steps: Natural = 100) -> None:
        self.histogram_every_n_steps = histogram_every_n_steps
        self._log_every = 1
        self._writer: SummaryWriter | None = None
        self._parameters: dict[str, nn.Parameter] = {}
        self._norms: dict[int, Tensor] = {}

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        assert isinstance(pl_module, Classifier)
        self._log_every = trainer.log_every_n_steps  # type: ignore[attr-defined]  # set in its __init__
        self._writer = writer_of(trainer)
        self._parameters = dict(pl_module.model.named_parameters())

    def is_due(self, step: int) -> bool:
        return self._writer is not None and (step % self._log_every == 0 or self._draws(step))

    def on_gradients(self, step: int) -> None:
        gradients = {name: p.grad for name, p in self._parameters.items() if p.grad is not None}
        if step % self._log_every == 0:
            self._norms[step] = torch.stack(torch._foreach_norm(list(gradients.values())))
        if self._draws(step) and self._writer is not None:
            tensors: dict[str, Tensor] = {f"weights/{name}": p for name, p in self._parameters.items()}
            tensors |= {f"gradients/{name}": gradient for name, gradient in gradients.items()}
            write_histograms(self._writer, tensors, step)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: object, batch: Steps, batch_idx: int
    ) -> None:
        if self._norms and self._writer is not None:
            _write_norms(self._writer, list(self._parameters), self._norms)
        self._norms = {}

    def _draws(self, step: int) -> bool:
        return self.histogram_every_n_steps > 0 and step % self.histogram_every_n_steps == 0


def norm_tags(layers: Sequence[str]) -> list[str]:
    """Of the norms of layers of these names, and of all together."""
    return [f"gradient_norm/{name}" for name in (*layers, "total")]


def _write_norms(writer: SummaryWriter, names: Sequence[str], norms: Mapping[int, Tensor]) -> None:
    """Write the norms `[parameters]` of each step, all read at once: reading one makes a GPU wait."""
    squares = torch.stack(list(norms.values())).square().cpu()
    of_layer: dict[str, Tensor] = {}
    for name, square in zip(names, squares.T, strict=True):
        layer = name.rpartition(".")[0] or name
        of_layer[layer] = of_layer.get(layer, torch.zeros(len(norms))) + square
    values = torch.stack([*of_layer.values(), squares.sum(dim=1)]).sqrt().T.tolist()
    write_scalars(writer, norm_tags(list(of_layer)), dict(zip(norms, values, strict=True)))
