"""Trains the members of a population together."""

import math
import time
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from typing import Protocol

import torch
from torch import Tensor
from torch.optim import Optimizer

from backlight.backprop.equations import binary_cross_entropies
from backlight.callbacks.stop_hopeless import START_ROWS
from backlight.data.batches import EVALUATION_ROWS, EpochShuffle
from backlight.data.module import ClassificationData
from backlight.data.source import PARTS, Part
from backlight.loss import stacked_weights
from backlight.population.member import Member
from backlight.population.metrics import cheap_metrics, every_metric
from backlight.population.monitor import PopulationMonitor
from backlight.population.networks import ByAutograd, ByEquations, StackedNetwork
from backlight.population.optimizers import STACKED, StackedOptimizer
from backlight.population.roster import Roster, are_in_order
from backlight.probabilities import labels_of, probabilities
from backlight.threads import threads_for

Metrics = Callable[[Tensor, Tensor], dict[str, Tensor]]

WORTH_FILLING = 1 / 8  # of all places: to let members in takes about as long as a step


@dataclass
class _Task:
    """What members are to learn: rows and loss of each, as tensors with a leading member axis.

    Attributes:
        x: of each part `[rows, features]` of all different data sets, one set after the other.
        y: of each part `[rows, outputs]` of the same.
        rows: of each part of one data set.
        data_set: `[members, 1]` int64, the number of each member's data set.
        smoothing: `[members, 1, 1]`, or None where no member has any.
        class_weight: `[members, 1, classes]`, or None where no member has any.
    """

    x: dict[Part, Tensor]
    y: dict[Part, Tensor]
    rows: dict[Part, int]
    data_set: Tensor
    smoothing: Tensor | None
    class_weight: Tensor | None

    @classmethod
    def of(cls, members: Sequence[Member], device: torch.device) -> "_Task":
        sets = {id(member.data): member.data for member in members}
        numbers = {key: number for number, key in enumerate(sets)}
        some = members[0].data
        parts = [part for part in PARTS if some.has(part)]
        weight = stacked_weights([member.loss for member in members], len(some.class_names))
        return cls(
            {
                part: torch.cat([_features_of(data, part) for data in sets.values()]).to(device)
                for part in parts
            },
            {part: torch.cat([data.part(part)[1] for data in sets.values()]).to(device) for part in parts},
            {part: len(some.part(part)[0]) for part in parts},
            torch.tensor([[numbers[id(member.data)]] for member in members], device=device),
            torch.tensor([[[member.loss.label_smoothing]] for member in members], device=device)
            if any(member.loss.label_smoothing for member in members)
            else None,
            None if weight is None else weight.to(device),
        )

    def keep(self, members: Tensor) -> "_Task":
        """The same for these members only, `[kept]` int64."""
        smoothing, weight = self.smoothing, self.class_weight
        return replace(
            self,
            data_set=self.data_set[members],
            smoothing=None if smoothing is None else smoothing[members],
            class_weight=None if weight is None else weight[members],
        )

    def take(self, part: Part, rows: slice) -> tuple[Tensor, Tensor]:
        """These rows: x as `StackedNetwork` takes it, and y `[members, rows, outputs]`."""
        x, y = (table[part].unflatten(0, (-1, self.rows[part]))[:, rows] for table in (self.x, self.y))
        of_member = self.data_set[:, 0]
        return x if are_in_order(of_member, len(x)) else _shared(x, of_member), _shared(y, of_member)

    def targets(self, y: Tensor) -> Tensor:
        return y if self.smoothing is None else y * (1 - self.smoothing) + self.smoothing / 2

    def metrics(self, logits: Tensor, y: Tensor, metrics: Metrics) -> dict[str, Tensor]:
        """The loss and metrics `[members]` of rows `[members, rows, outputs]`."""
        members, rows, outputs = logits.shape
        loss = binary_cross_entropies(logits, self.targets(y), self.class_weight)
        probability = probabilities(logits.reshape(-1, outputs)).reshape(members, rows, -1)
        labels = (
            y[..., 0].bool() if outputs == 1 else labels_of(y.reshape(-1, outputs)).reshape(members, rows)
        )
        found = metrics(probability.squeeze(2) if outputs == 1 else probability, labels)
        return {"loss": loss, **found}


def _selected(table: Tensor, places: Tensor) -> Tensor:
    """`[groups, rows, columns]` of places `[groups, rows]` in a table `[·, columns]`."""
    # `[…]` takes five times as long.
    rows: Tensor = table.index_select(0, places.flatten()).unflatten(0, places.shape)
    return rows


def _shared(of_groups: Tensor, group: Tensor | None) -> Tensor:
    """Of each member, what its group has; where there is but one it is not copied."""
    if group is None:
        return of_groups
    if len(of_groups) == 1:
        return of_groups.expand(len(group), *of_groups.shape[1:])
    return of_groups.index_select(0, group)


def _features_of(data: ClassificationData, part: Part) -> Tensor:
    """X of a part; sparse rows are not stacked but trained alone."""
    x, _ = data.part(part)
    assert isinstance(x, Tensor)
    return x


class Judge(Protocol):
    """Ends members before their last epoch."""

    def lagging(self, members: Sequence[Member]) -> list[int]:
        """Which of these do not go on after this epoch; they are told why."""
        ...


class Population:
    """Trains members of one kinship, each as if it were alone.

    A member that has ended leaves, and the next takes its place: the others do not notice.

    Args:
        device: to train on.
        places: members trained at once, at most.
        judges: end members that need not go on.
    """

    def __init__(self, device: torch.device, places: int, judges: Sequence[Judge] = ()) -> None:
        self._device = device
        self._places = places
        self._judges = judges
        self._members: list[Member] = []
        self._task: _Task
        self._network: StackedNetwork
        self._optimizer: StackedOptimizer
        self._best: list[Tensor] = []
        self._clip: Tensor | None = None
        self._roster: Roster
        self._monitor: PopulationMonitor

    def members(self) -> Sequence[Member]:
        """Those in training, who know what came of them so far."""
        self._tell()
        return self._members

    def train(
        self, members: Iterable[Member], after_epoch: Callable[[int], None] = lambda members: None
    ) -> Iterator[list[Member]]:
        """Train all members to their ends and test the best epoch of each; gives them as they leave.

        Args:
            members: what to train; each is told what came of it.
            after_epoch: is told how many members have made another epoch.
        """
        # The steps that the schedules' own optimizers would make are made here.
        warnings.filterwarnings("ignore", message="Detected call of `lr_scheduler.step")
        queue = deque(members)
        while queue or self._members:
            free = self._places - len(self._members)
            if queue and free >= self._places * WORTH_FILLING:
                self._admit([queue.popleft() for _ in range(min(free, len(queue)))])
            left = self._epoch()
            after_epoch(len(self._members) + len(left))
            if left:
                yield left

    @torch.no_grad()
    def _admit(self, newcomers: list[Member]) -> None:
        """Let these train with those that are there."""
        if self._members:
            self._tell()
        newcomers = _by_rows(newcomers)
        some = newcomers[0]
        self._network = (
            ByEquations(some.model.activation) if some.backward == "equations" else ByAutograd(some.model)
        )
        algorithm = STACKED[some.optimizer_name]
        optimizer = algorithm(
            [
                parameter.to(self._device)
                for parameter in self._network.stack(member.started for member in newcomers)
            ],
            {
                name: torch.tensor(
                    [_setting(member.optimizer, name) for member in newcomers],
                    dtype=torch.float64,
                    device=self._device,
                )
                for name in algorithm.names
            },
        )
        best = [parameter.clone() for parameter in optimizer.parameters]
        if self._members:
            self._optimizer.join(optimizer)
            self._best = [torch.cat(pair) for pair in zip(self._best, best, strict=True)]
        else:
            self._optimizer, self._best = optimizer, best
        self._tell_the_start(newcomers, best)
        self._members += newcomers
        self._task = _Task.of(self._members, self._device)
        clips = [member.gradient_clip_val for member in self._members]
        self._clip = None
        if any(clip is not None for clip in clips):
            each = [math.inf if clip is None else clip for clip in clips]
            self._clip = torch.tensor(each, device=self._device).reshape(-1, 1, 1)
        self._look_at_all()

    def _look_at_all(self) -> None:
        """The members are others than before."""
        self._roster = Roster(self._members, self._task.data_set[:, 0].tolist())
        self._monitor = PopulationMonitor(self._members)

    def _tell(self) -> None:
        """Tell the members what came of them so far."""
        self._monitor.tell()
        self._roster.tell()

    def _tell_the_start(self, newcomers: Sequence[Member], parameters: Sequence[Tensor]) -> None:
        """Give those that stop when hopeless their loss before the first step."""
        task = _Task.of(newcomers, self._device)
        x, y = task.take("train", slice(START_ROWS))
        batches = x.split(newcomers[0].data.rows_per_step, dim=1)
        logits = torch.cat([self._network.logits(batch, parameters) for batch in batches], dim=1)
        losses = task.metrics(logits, y, lambda *_: {})["loss"].tolist()
        for member, loss in zip(newcomers, losses, strict=True):
            if member.stop_hopeless is not None:
                member.stop_hopeless.start(member.data, member.loss, loss)

    @torch.no_grad()
    def _epoch(self) -> list[Member]:
        """Train everybody for an epoch; returns those that leave."""
        started = time.monotonic()
        before = _State.of(self._optimizer)
        trained = self._train_epoch()
        held_out = self._evaluate("val", self._optimizer.parameters)
        failed, ended = self._record(trained, held_out)
        self._roster.spend((time.monotonic() - started) / len(self._members))
        leaving = {*failed, *ended}
        if leaving:
            self._tell()
        self._retire(failed, before)
        if ended:
            self._retire(ended, _State.of(self._optimizer))
            self._test(ended)
        left = [self._members[position] for position in sorted(leaving)]
        if leaving:
            self._keep([position for position in range(len(self._members)) if position not in leaving])
        return left

    def _train_epoch(self) -> dict[str, Tensor]:
        """Make the steps of an epoch; returns the metrics `[members]` of what they saw."""
        task, logits = self._task, []
        places, sharing = self._order()
        lr = torch.tensor(self._roster.rates, dtype=torch.float64, device=self._device)
        monitor = self._monitor
        batch_size = self._members[0].data.rows_per_step
        of_member = max(parameter[0].numel() for parameter in self._optimizer.parameters)
        y = _shared(_selected(task.y["train"], places), sharing)
        batches = zip(places.split(batch_size, dim=1), task.targets(y).split(batch_size, dim=1), strict=True)
        with threads_for(len(self._members) * batch_size * of_member):
            for number, (batch, targets) in enumerate(batches):
                x, parameters = _selected(task.x["train"], batch), self._optimizer.parameters
                if not self._roster.is_in_order:
                    x = _shared(x, sharing)
                monitor.begin(number, parameters)
                logits.append(self._step(x, targets, lr))
                monitor.end(x, targets, task.class_weight, parameters)
        monitor.end_epoch()
        return task.metrics(torch.cat(logits, dim=1), y, cheap_metrics)

    def _order(self) -> tuple[Tensor, Tensor | None]:
        """The places `[groups, rows]` of the rows of an epoch, and the group of each member; None: each is its own.

        Members of one seed and data set are a group.
        """
        rows = self._task.rows["train"]
        shuffled = cache(partial(_shuffled, rows))
        orders, group = self._roster.orders, self._roster.group
        first = torch.tensor([[data_set * rows] for data_set, _, _ in orders])
        places = torch.stack([shuffled(seed, epoch) for _, seed, epoch in orders]).add_(first)
        if 2 * len(orders) > len(group):  # to copy what few share takes longer than it saves
            return places[group].to(self._device), None
        return places.to(self._device), group.to(self._device)

    def _step(self, x: Tensor, targets: Tensor, lr: Tensor) -> Tensor:
        """Back-propagate a batch, see `StackedNetwork.gradients`, and make a step; returns the logits before it."""
        logits, gradients = self._network.gradients(
            x, targets, self._task.class_weight, self._optimizer.parameters
        )
        if self._clip is not None:
            # In the operations of torch.nn.utils.clip_grad_norm_, so that bits are those of a single run.
            norms = torch.stack([torch.linalg.vector_norm(own, dim=(1, 2)) for own in gradients], dim=1)
            norm = torch.linalg.vector_norm(norms, dim=1).reshape(-1, 1, 1)
            factor = ((norm + 1e-6).reciprocal() * self._clip).clamp(max=1.0)
            gradients = [gradient * factor for gradient in gradients]
        self._optimizer.step(gradients, lr)
        return logits

    def _evaluate(
        self, part: Part, parameters: Sequence[Tensor], task: "_Task | None" = None
    ) -> dict[str, Tensor]:
        """Every metric `[members]` of a part; none where it has no rows."""
        task = task or self._task
        if part not in task.rows:
            return {}
        logits = [
            self._network.scores(task.take(part, slice(start, start + EVALUATION_ROWS))[0], parameters)
            for start in range(0, task.rows[part], EVALUATION_ROWS)
        ]
        return task.metrics(torch.cat(logits, dim=1), task.take(part, slice(None))[1], every_metric)

    def _record(self, trained: dict[str, Tensor], held_out: dict[str, Tensor]) -> tuple[list[int], list[int]]:
        """Note an epoch; returns who has failed, and who has come to an end."""
        values = {f"train/{name}": value for name, value in trained.items()}
        values |= {f"val/{name}": value for name, value in held_out.items()}
        columns = torch.stack(list(values.values())).cpu().numpy()
        failed, best, ended = self._roster.record(dict(zip(values, columns, strict=True)))
        index = slice(None) if len(best) == len(self._members) else best
        for kept, parameter in zip(self._best, self._optimizer.parameters, strict=True):
            kept[index] = parameter[index]
        if self._judges:
            self._tell()
        for judge in self._judges:
            going = [p for p in range(len(self._members)) if p not in {*failed, *ended}]
            lagging = judge.lagging([self._members[position] for position in going])
            ended += [going[place] for place in lagging]
        return failed, ended

    def _keep(self, positions: Sequence[int]) -> None:
        members = torch.tensor(positions, dtype=torch.int64, device=self._device)
        self._members = [self._members[position] for position in positions]
        self._task = self._task.keep(members)
        self._optimizer.keep(members)
        self._best = [kept[members] for kept in self._best]
        if self._clip is not None:
            self._clip = self._clip[members]
        if self._members:
            self._look_at_all()

    def _retire(self, positions: Sequence[int], state: "_State") -> None:
        """Leave models and optimizers as they are in this state, and their best weights beside."""
        if not positions:
            return
        on_cpu = state.of_members(positions)
        best = [kept[list(positions)].cpu() for kept in self._best]
        shapes = {name: tensor.shape for name, tensor in self._members[0].model.state_dict().items()}
        members = [self._members[position] for position in positions]
        on_cpu.write(members)
        of_each = zip(
            *(kept.reshape(-1, *shape).unbind() for kept, shape in zip(best, shapes.values(), strict=True)),
            strict=True,
        )
        for member, weights in zip(members, of_each, strict=True):
            # Copied: a checkpoint of a view would hold the weights of all members.
            member.best_weights = {name: own.clone() for name, own in zip(shapes, weights, strict=True)}

    def _test(self, positions: Sequence[int]) -> None:
        """Test the best epoch of these members."""
        index = list(positions)
        task = self._task.keep(torch.tensor(index, dtype=torch.int64, device=self._device))
        for name, values in self._evaluate("test", [kept[index] for kept in self._best], task).items():
            for position, value in zip(positions, values.cpu().numpy(), strict=True):
                self._members[position].test_metrics[f"test/{name}"] = value


@dataclass
class _State:
    """Parameters and what the optimizer keeps, `[members, …]`, after a number of steps."""

    parameters: list[Tensor]
    kept: dict[str, list[Tensor]]
    steps: Tensor

    @classmethod
    def of(cls, optimizer: StackedOptimizer) -> "_State":
        return cls(
            [parameter.clone() for parameter in optimizer.parameters],
            {name: [tensor.clone() for tensor in tensors] for name, tensors in optimizer.state.items()},
            optimizer.steps.clone(),
        )

    def of_members(self, positions: Sequence[int]) -> "_State":
        """The state of these members, on the CPU."""
        index = list(positions)
        return _State(
            [parameter[index].cpu() for parameter in self.parameters],
            {name: [tensor[index].cpu() for tensor in tensors] for name, tensors in self.kept.items()},
            self.steps[index].cpu(),
        )

    def write(self, members: Sequence[Member]) -> None:
        """Put the state of each member into its model and optimizer."""
        every_step: list[float] = self.steps.tolist()
        for number, parameters in enumerate(zip(*(member.parameters for member in members), strict=True)):
            shape = (-1, *parameters[0].shape)
            torch._foreach_copy_(parameters, self.parameters[number].reshape(shape).unbind())
            kept = {name: tensors[number].reshape(shape).unbind() for name, tensors in self.kept.items()}
            for index, (member, parameter, steps) in enumerate(
                zip(members, parameters, every_step, strict=True)
            ):
                has_momentum = bool(member.optimizer.param_groups[0].get("momentum", 0.0))
                own = {
                    name: tensors[index].clone()
                    for name, tensors in kept.items()
                    if name != "momentum_buffer" or has_momentum
                }
                if steps and own:
                    if member.optimizer_name != "sgd":
                        own["step"] = torch.tensor(steps)
                    member.optimizer.state[parameter] = own


def _by_rows(members: Sequence[Member]) -> list[Member]:
    """Those that see the same rows in the same order side by side."""
    places: dict[tuple[int, int | None], int] = {}
    return sorted(
        members,
        key=lambda member: places.setdefault((id(member.data), member.shuffle_seed), len(places)),
    )


def _shuffled(rows: int, seed: int | None, epoch: int) -> Tensor:
    shuffle = EpochShuffle(rows, seed)
    shuffle.set_epoch(epoch)
    return shuffle.order()


def _setting(optimizer: Optimizer, name: str) -> float:
    group = optimizer.param_groups[0]
    return float(group["betas"][int(name[-1]) - 1] if name.startswith("beta") else group[name])
