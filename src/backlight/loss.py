"""The loss that training minimises."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from backlight.backprop.equations import binary_cross_entropy, smooth


class BinaryCrossEntropy(nn.Module):
    """Mean BCE over batch and outputs, from logits.

    Args:
        label_smoothing: ε in [0, 1); targets become ε/2 and 1 − ε/2.
        class_weight: `[classes]` factors on the loss of the rows of each class, or None for 1.
    """

    def __init__(self, label_smoothing: float = 0.0, class_weight: Tensor | None = None) -> None:
        super().__init__()
        self.label_smoothing = label_smoothing
        self.class_weight: Tensor | None
        self.register_buffer("class_weight", class_weight, persistent=False)

    def targets(self, y: Tensor) -> Tensor:
        """The smoothed labels `[batch, outputs]`."""
        return smooth(y, self.label_smoothing)

    def forward(self, logits: Tensor, y: Tensor, batch_size: float | None = None) -> Tensor:
        """A scalar; `batch_size` as in `binary_cross_entropy`."""
        return binary_cross_entropy(logits, self.targets(y), self.class_weight, batch_size=batch_size)

    def settings(self) -> dict[str, Any]:
        """Plain data for a checkpoint; `from_settings` turns it back into the loss."""
        weight = self.class_weight
        return {
            "label_smoothing": self.label_smoothing,
            "class_weight": None if weight is None else weight.tolist(),
        }

    @classmethod
    def from_settings(cls, settings: dict[str, Any]) -> "BinaryCrossEntropy":
        weight = settings.get("class_weight")  # predicting needs none, and older checkpoints have others
        return cls(settings["label_smoothing"], None if weight is None else torch.tensor(weight))


def stacked_weights(losses: Sequence[BinaryCrossEntropy], classes: int) -> Tensor | None:
    """The class weights `[losses, 1, classes]` of each; None where none has any."""
    weights = [loss.class_weight for loss in losses]
    if all(weight is None for weight in weights):
        return None
    return torch.stack([torch.ones(classes) if weight is None else weight for weight in weights])[:, None]
