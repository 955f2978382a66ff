"""Trains the members of a population together."""

import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from lightning.pytorch.callbacks import EarlyStopping
from torch import Tensor
from torch.nn import functional
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from backlight.backprop import equations
from backlight.callbacks.stop_hopeless import StopHopeless
from backlight.classifier import diverged
from backlight.data.batches import EpochShuffle
from backlight.data.module import EVALUATION_ROWS, PARTS, ClassificationData, Part
from backlight.loss import BinaryCrossEntropy
from backlight.metrics import labels_of, probabilities
from backlight.model import SigmoidMLP
from backlight.population.metrics import cheap_metrics, every_metric
from backlight.population.optimizers import STACKED, StackedOptimizer

Metrics = Callable[[Tensor, Tensor], dict[str, Tensor]]

LOSSES = ("train/loss", "val/loss")


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
    gradient_clip_val: float | None = None
    stop_hopeless: StopHopeless | None = None
    early_stopping: EarlyStopping | None = None

    history: list[dict[str, np.float32]] = field(default_factory=list)
    """The metrics of every epoch, as in `metrics.csv`."""
    best_epoch: int = -1
    best_loss: float = math.inf
    best_weights: dict[str, Tensor] = field(default_factory=dict)
    test_metrics: dict[str, np.float32] = field(default_factory=dict)
    stopped: str | None = None
    """Why it stopped before the last epoch."""
    error: str | None = None
    """Why it failed."""

    @property
    def kinship(self) -> tuple[object, ...]:
        """What all members of a population have in common."""
        sizes = [tuple(self.data.part(part)[0].shape) for part in PARTS]
        return (
            str(self.model.architecture), self.optimizer_name, self.max_epochs, self.data.batch_size, *sizes,
        )  # fmt: skip

    @property
    def shuffle_seed(self) -> int | None:
        """Of the order of the batches; None where there is but one."""
        return None if self.data.batch_size == "full" else self.seed

    def improves(self, metrics: Mapping[str, np.float32]) -> bool:
        """Whether this epoch is the best so far; without validation rows the last one is."""
        if "val/loss" not in metrics:
            return True
        is_best = float(metrics["val/loss"]) < self.best_loss
        if is_best:
            self.best_loss = float(metrics["val/loss"])
        return is_best

    def ends(self, epoch: int, metrics: Mapping[str, np.float32]) -> bool:
        """Step the schedule, and ask the callbacks whether to stop."""
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
        return self.stopped is not None


@dataclass
class _Task:
    """What members are to learn: rows and loss of each, as tensors with a leading member axis.

    Attributes:
        x, y: of each part, the rows of all different data sets, one set after the other.
        rows: of each part of one data set.
        data_set: `[members, 1]` int64, the number of each member's data set.
        smoothing: `[members, 1, 1]`
        positive_weight: `[members, 1, outputs]`, or None where no member has any.
    """

    x: dict[Part, Tensor]
    y: dict[Part, Tensor]
    rows: dict[Part, int]
    data_set: Tensor
    smoothing: Tensor
    positive_weight: Tensor | None

    @classmethod
    def of(cls, members: Sequence[Member], device: torch.device) -> "_Task":
        sets = {id(member.data): member.data for member in members}
        numbers = {key: number for number, key in enumerate(sets)}
        some = members[0].data
        parts = [part for part in PARTS if some.has(part)]
        weights = [member.loss.positive_weight for member in members]
        one = torch.ones(some.num_outputs)
        return cls(
            {part: torch.cat([data.part(part)[0] for data in sets.values()]).to(device) for part in parts},
            {part: torch.cat([data.part(part)[1] for data in sets.values()]).to(device) for part in parts},
            {part: len(some.part(part)[0]) for part in parts},
            torch.tensor([[numbers[id(member.data)]] for member in members], device=device),
            torch.tensor([[[member.loss.label_smoothing]] for member in members], device=device),
            None
            if all(weight is None for weight in weights)
            else torch.stack([one if w is None else w for w in weights])[:, None].to(device),
        )

    def keep(self, members: Tensor) -> "_Task":
        """The same for these members only, `[kept]` int64."""
        weight = self.positive_weight
        return replace(
            self,
            data_set=self.data_set[members],
            smoothing=self.smoothing[members],
            positive_weight=None if weight is None else weight[members],
        )

    def take(self, part: Part, index: Tensor) -> tuple[Tensor, Tensor]:
        """X and y `[members, rows, ·]` of row numbers `[members, rows]`."""
        place = index + self.data_set * self.rows[part]
        return self.x[part][place], self.y[part][place]

    def targets(self, y: Tensor) -> Tensor:
        return y * (1 - self.smoothing) + self.smoothing / 2

    def metrics(self, logits: Tensor, y: Tensor, metrics: Metrics) -> dict[str, Tensor]:
        """The loss and metrics `[members]` of rows `[members, rows, outputs]`."""
        members, rows, outputs = logits.shape
        each = functional.binary_cross_entropy_with_logits(
            logits, self.targets(y), pos_weight=self.positive_weight, reduction="none"
        )
        probability = probabilities(logits.reshape(-1, outputs)).reshape(members, rows, -1)
        labels = labels_of(y.reshape(-1, outputs)).reshape(members, rows)
        found = metrics(probability.squeeze(2) if outputs == 1 else probability, labels)
        return {"loss": each.mean(dim=(1, 2)), **found}


class Population:
    """Trains members of one kinship, each as if it were alone.

    A member that stops or fails leaves: the others do not notice.

    Args:
        members: what to train; each is told what came of it.
        device: to train on.
    """

    def __init__(self, members: Sequence[Member], device: torch.device) -> None:
        self._everyone = list(members)
        self._members = list(members)
        self._device = device
        self._batch_size = members[0].data.rows_per_step
        self._activation = members[0].model.activation
        self._whole_task = self._task = _Task.of(members, device)
        algorithm = STACKED[members[0].optimizer_name]
        self._optimizer = algorithm(
            [
                torch.stack([parameter.detach() for parameter in same]).to(device)
                for same in zip(*(_parameters(member.model) for member in members), strict=True)
            ],
            {
                name: torch.tensor([_setting(member.optimizer, name) for member in members], device=device)
                for name in algorithm.names
            },
        )
        self._best = [parameter.clone() for parameter in self._optimizer.parameters]
        self._place = torch.arange(len(members), device=device)
        """`[members]`: where in `_best` each has its own."""
        self._clip: Tensor | None = torch.tensor(
            [member.gradient_clip_val or math.inf for member in members], device=device
        ).reshape(-1, 1, 1)
        if all(member.gradient_clip_val is None for member in members):
            self._clip = None

    @torch.no_grad()
    def train(self, after_epoch: Callable[[int], None] = lambda members: None) -> None:
        """Train all members to their ends and test the best epoch of each.

        Args:
            after_epoch: is told how many members have made another epoch.
        """
        for member, loss in zip(self._everyone, self._losses_at_start(), strict=True):
            if member.stop_hopeless is not None:
                member.stop_hopeless.start(member.data, member.loss, loss)
        # The steps that the schedules' own optimizers would make are made here.
        warnings.filterwarnings("ignore", message="Detected call of `lr_scheduler.step")
        for epoch in range(self._everyone[0].max_epochs):
            before = _State.of(self._optimizer)
            trained = self._train_epoch(epoch)
            held_out = self._evaluate("val", self._task, self._optimizer.parameters)
            after_epoch(len(self._members))
            self._record(epoch, trained, held_out, before)
            if not self._members:
                break
        self._retire(range(len(self._members)), _State.of(self._optimizer))
        self._test()

    def _losses_at_start(self) -> list[float]:
        index = torch.arange(min(self._task.rows["train"], EVALUATION_ROWS), device=self._device)
        x, y = self._task.take("train", index.expand(len(self._members), -1))
        logits = self._logits(x, self._optimizer.parameters)
        losses: list[float] = self._task.metrics(logits, y, lambda *_: {})["loss"].tolist()
        return losses

    def _train_epoch(self, epoch: int) -> dict[str, Tensor]:
        """Make the steps of an epoch; returns the metrics `[members]` of what they saw."""
        task, index, logits = self._task, self._order(epoch), []
        lr = torch.tensor([_rate(member.optimizer) for member in self._members], device=self._device)
        for batch in index.split(self._batch_size, dim=1):
            x, y = task.take("train", batch)
            logits.append(self._step(x, task.targets(y), lr))
        return task.metrics(torch.cat(logits, dim=1), task.take("train", index)[1], cheap_metrics)

    def _order(self, epoch: int) -> Tensor:
        """The row numbers `[members, rows]` of an epoch; members of one seed see the same batches."""
        rows = self._task.rows["train"]
        orders: dict[int | None, Tensor] = {}
        for member in self._members:
            seed = member.shuffle_seed
            if seed not in orders:
                shuffle = EpochShuffle(rows, seed)
                shuffle.set_epoch(epoch)
                orders[seed] = shuffle.order()
        return torch.stack([orders[member.shuffle_seed] for member in self._members]).to(self._device)

    def _step(self, x: Tensor, targets: Tensor, lr: Tensor) -> Tensor:
        """Back-propagate a batch `[members, batch, ·]` and make a step; returns the logits before it."""
        weights, biases = self._optimizer.parameters[::2], self._optimizer.parameters[1::2]
        passed = equations.forward(x, weights, biases, self._activation)
        error = equations.output_delta(passed.logits, targets, self._task.positive_weight)
        deltas = equations.deltas(passed, weights, error, self._activation)
        gradients = [gradient for layer in equations.gradients(passed, deltas) for gradient in layer]
        if self._clip is not None:
            squares = torch.stack([gradient.square().sum(dim=(1, 2)) for gradient in gradients])
            norm = squares.sum(dim=0).sqrt().reshape(-1, 1, 1)
            factor = (self._clip / (norm + 1e-6)).clamp(max=1.0)  # as torch.nn.utils.clip_grad_norm_
            gradients = [gradient * factor for gradient in gradients]
        self._optimizer.step(gradients, lr)
        return passed.logits

    def _logits(self, x: Tensor, parameters: Sequence[Tensor]) -> Tensor:
        return equations.forward(x, parameters[::2], parameters[1::2], self._activation).logits

    def _evaluate(self, part: Part, task: _Task, parameters: Sequence[Tensor]) -> dict[str, Tensor]:
        """Every metric `[members]` of a part; none where it has no rows."""
        if part not in task.rows:
            return {}
        index = torch.arange(task.rows[part], device=self._device).expand(len(parameters[0]), -1)
        logits = [
            self._logits(task.take(part, some)[0], parameters) for some in index.split(EVALUATION_ROWS, dim=1)
        ]
        return task.metrics(torch.cat(logits, dim=1), task.take(part, index)[1], every_metric)

    def _record(
        self, epoch: int, trained: dict[str, Tensor], held_out: dict[str, Tensor], before: "_State"
    ) -> None:
        """Add an epoch to each member's history, and let those leave that have failed or stopped."""
        values = {f"train/{name}": value for name, value in trained.items()}
        values |= {f"val/{name}": value for name, value in held_out.items()}
        table = torch.stack(list(values.values()), dim=1).cpu().numpy()
        failed, stopped, best = [], [], []
        for position, (member, row) in enumerate(zip(self._members, table, strict=True)):
            metrics = dict(zip(values, row, strict=True))
            lr = _rate(member.optimizer)
            sick = [name for name in LOSSES if not np.isfinite(metrics.get(name, 0))]
            if sick:
                member.error = diverged(sick[0], float(metrics[sick[0]]), epoch, lr)
                failed.append(position)
                continue
            member.history.append({"lr": np.float32(lr), **metrics})
            if member.improves(metrics):
                member.best_epoch = epoch
                best.append(position)
            if member.ends(epoch, metrics):
                stopped.append(position)
        for kept, parameter in zip(self._best, self._optimizer.parameters, strict=True):
            kept[self._place[best]] = parameter[best]
        self._retire(failed, before)
        self._retire(stopped, _State.of(self._optimizer))
        leaving = {*failed, *stopped}
        if leaving:
            self._keep([position for position in range(len(self._members)) if position not in leaving])

    def _keep(self, positions: Sequence[int]) -> None:
        members = torch.tensor(positions, dtype=torch.int64, device=self._device)
        self._members = [self._members[position] for position in positions]
        self._place = self._place[members]
        self._task = self._task.keep(members)
        self._optimizer.keep(members)
        if self._clip is not None:
            self._clip = self._clip[members]

    def _retire(self, positions: Sequence[int], state: "_State") -> None:
        """Leave models and optimizers as they are in this state."""
        if not positions:
            return
        on_cpu = state.of_members(positions)
        for index, position in enumerate(positions):
            on_cpu.write(index, self._members[position])

    def _test(self) -> None:
        for member, *best in zip(self._everyone, *(tensor.cpu() for tensor in self._best), strict=True):
            parameters = zip(member.model.state_dict().items(), best, strict=True)
            # Copied: a checkpoint of a view would hold the weights of all members.
            member.best_weights = {
                name: tensor.reshape(old.shape).clone() for (name, old), tensor in parameters
            }
        for name, values in self._evaluate("test", self._whole_task, self._best).items():
            for member, value in zip(self._everyone, values.cpu().numpy(), strict=True):
                member.test_metrics[f"test/{name}"] = value


@dataclass
class _State:
    """Parameters and what the optimizer keeps, `[members, …]`, after a number of steps."""

    parameters: list[Tensor]
    kept: dict[str, list[Tensor]]
    steps: int

    @classmethod
    def of(cls, optimizer: StackedOptimizer) -> "_State":
        return cls(
            [parameter.clone() for parameter in optimizer.parameters],
            {name: [tensor.clone() for tensor in tensors] for name, tensors in optimizer.state.items()},
            optimizer.steps,
        )

    def of_members(self, positions: Sequence[int]) -> "_State":
        """The state of these members, on the CPU."""
        index = list(positions)
        return _State(
            [parameter[index].cpu() for parameter in self.parameters],
            {name: [tensor[index].cpu() for tensor in tensors] for name, tensors in self.kept.items()},
            self.steps,
        )

    def write(self, index: int, member: Member) -> None:
        """Put the state of one member into its model and optimizer."""
        has_momentum = bool(member.optimizer.param_groups[0].get("momentum", 0.0))
        for number, parameter in enumerate(member.model.parameters()):
            parameter.copy_(self.parameters[number][index].reshape(parameter.shape))
            kept = {
                name: tensors[number][index].reshape(parameter.shape).clone()
                for name, tensors in self.kept.items()
                if name != "momentum_buffer" or has_momentum
            }
            if self.steps and kept:
                if member.optimizer_name != "sgd":
                    kept["step"] = torch.tensor(float(self.steps))
                member.optimizer.state[parameter] = kept


def _parameters(model: SigmoidMLP) -> list[Tensor]:
    """Weights `[out, in]` and biases `[1, out]`, layer by layer."""
    return [tensor.detach() for layer in model.linear_layers for tensor in (layer.weight, layer.bias[None])]


def _setting(optimizer: Optimizer, name: str) -> float:
    group = optimizer.param_groups[0]
    return float(group["betas"][int(name[-1]) - 1] if name.startswith("beta") else group[name])


def _rate(optimizer: Optimizer) -> float:
    return float(optimizer.param_groups[0]["lr"])
