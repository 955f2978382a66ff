"""What one trial of a population trains, and what came of it."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from lightning.pytorch.callbacks import EarlyStopping
from numpy.typing import NDArray
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from backlight.callbacks.backprop import BackpropMonitor
from backlight.callbacks.stop_hopeless import StopHopeless
from backlight.classifier import Backward
from backlight.data.module import ClassificationData
from backlight.data.source import PARTS
from backlight.loss import BinaryCrossEntropy
from backlight.model import SigmoidMLP


@dataclass
class Member:
    """What one trial trains, and then what came of it.

    Training leaves the model, the optimizer and the schedule as they are after the last epoch.
    """

    model: SigmoidMLP
    optimizer_name: str
    optimizer: Optimizer
    schedule: LRScheduler | None
    loss: BinaryCrossEntropy
    data: ClassificationData
    seed: int
    max_epochs: int
    backward: Backward = "equations"
    gradient_clip_val: float | None = None
    monitor: BackpropMonitor | None = None
    """Says at which steps its error contributions are recorded; None for no step."""
    stop_hopeless: StopHopeless | None = None
    early_stopping: EarlyStopping | None = None

    parameters: list[Tensor] = field(init=False)
    """Weight and bias of every layer of the model."""
    started: list[Tensor] = field(init=False)
    """The same before the first step."""
    history: list[dict[str, np.float32]] = field(default_factory=list)
    """The metrics of every epoch, as in `metrics.csv`."""
    records: list[tuple[int, NDArray[np.float32]]] = field(default_factory=list)
    """Steps, and the figures of its layers at each; see `backlight.population.monitor.tags`."""
    best_epoch: int = -1
    best_loss: float = math.inf
    best_weights: dict[str, Tensor] = field(default_factory=dict)
    test_metrics: dict[str, np.float32] = field(default_factory=dict)
    stopped: str | None = None
    """Why it stopped before the last epoch."""
    error: str | None = None
    """Why it failed."""
    seconds: float = 0.0
    """Its share of the time that training took."""

    def __post_init__(self) -> None:
        self.parameters = list(self.model.parameters())
        self.started = [parameter.detach().clone() for parameter in self.parameters]

    @property
    def kinship(self) -> tuple[object, ...]:
        """What all members of a population have in common."""
        sizes = [tuple(self.data.part(part)[0].shape) for part in PARTS]
        return (
            str(self.model.architecture), self.backward, self.optimizer_name, self.data.batch_size, *sizes,
        )  # fmt: skip

    @property
    def shuffle_seed(self) -> int | None:
        """Of the order of the batches; None where there is but one."""
        return None if self.data.batch_size == "full" else self.seed

    @property
    def rate(self) -> float:
        """The learning rate."""
        return float(self.optimizer.param_groups[0]["lr"])

    def ends(self, epoch: int, metrics: Mapping[str, np.float32]) -> bool:
        """Step the schedule; returns whether this was the last epoch, or the callbacks stop."""
        if isinstance(self.schedule, ReduceLROnPlateau):
            self.schedule.step(float(metrics.get("val/loss", metrics["train/loss"])))
        elif self.schedule is not None:
            self.schedule.step()
        if self.stop_hopeless is not None and self.stop_hopeless.is_hopeless(float(metrics["train/loss"])):
            self.stopped = self.stop_hopeless.reason(epoch)
        if self.early_stopping is not None:
            current = torch.tensor(metrics[self.early_stopping.monitor])
            stops, reason = self.early_stopping._evaluate_stopping_criteria(current)
            if stops:
                self.early_stopping.stopped_epoch = epoch
                self.stopped = self.stopped or reason
        return self.stopped is not None or epoch + 1 == self.max_epochs
