"""Checkpoints: read as plain data, and turned back into a network that predicts."""

import pickle
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from backlight.data.batches import logits_of
from backlight.data.encoding import encoder_of
from backlight.data.source import Encoder
from backlight.data.stored import Features
from backlight.errors import BacklightError
from backlight.loss import BinaryCrossEntropy
from backlight.model import SigmoidMLP

FORM = 4
"""Of what a checkpoint keeps to go on with; one more whenever that changes."""


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Everything in a checkpoint, on the CPU; only tensors and plain data are ever unpickled.

    Raises:
        BacklightError: the file is absent, cut short, or not a checkpoint of Backlight.
    """
    if not path.is_file():
        raise BacklightError(f"{path}: no such checkpoint")
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, EOFError, RuntimeError, ValueError, pickle.UnpicklingError, zipfile.BadZipFile) as error:
        raise BacklightError(
            f"{path}: cannot be read as a checkpoint; the file is damaged or of another kind"
        ) from error
    needed = {"state_dict", "architecture", "loss", "ClassificationData", "epoch", "global_step"}
    if not isinstance(checkpoint, dict) or not needed <= checkpoint.keys():
        raise BacklightError(f"{path}: not a checkpoint of Backlight")
    return checkpoint


@dataclass(frozen=True)
class TrainedNetwork:
    """A network with all that its training fitted: what predicting and evaluating need."""

    model: SigmoidMLP
    loss: BinaryCrossEntropy
    encoder: Encoder
    kind: str
    class_names: list[str]

    @classmethod
    def load(cls, path: Path) -> "TrainedNetwork":
        """Raises a BacklightError as `read_checkpoint` does, or if the weights are another network's."""
        checkpoint = read_checkpoint(path)
        data = checkpoint["ClassificationData"]
        try:
            model = SigmoidMLP(**checkpoint["architecture"])
            prefix = "model."
            model.load_state_dict(
                {
                    name.removeprefix(prefix): tensor
                    for name, tensor in checkpoint["state_dict"].items()
                    if name.startswith(prefix)
                }
            )
            loss = BinaryCrossEntropy.from_settings(checkpoint["loss"])
            return cls(model, loss, encoder_of(data), data["kind"], list(data["class_names"]))
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise BacklightError(f"{path}: its weights do not fit its own architecture") from error

    def logits(self, x: Features) -> Tensor:
        """`[rows, outputs]` on the CPU for encoded features `[rows, features]`."""
        return logits_of(self.model, x)
