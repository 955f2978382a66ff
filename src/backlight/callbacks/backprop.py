"""The error contribution of every neuron, as training computes it."""

import math
import time
from collections.abc import Sequence
from functools import cache, partial
from typing import Any, Literal

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.tensorboard import SummaryWriter

from backlight.backprop.activations import Activation
from backlight.backprop.contributions import LayerContributions, contributions, layer_figures
from backlight.backprop.step import BackwardPass, PassMemory
from backlight.backprop.trace import layers_of
from backlight.callbacks.backprop_plots import Moment, heat_map, network
from backlight.callbacks.history import History
from backlight.callbacks.reach import folder_of, steps_per_epoch, writer_of
from backlight.callbacks.tensorboard import write_histograms, write_picture, write_scalars
from backlight.classifier import Classifier, StepObserver
from backlight.files import write_whole
from backlight.model import SigmoidMLP
from backlight.ranges import Count

Cadence = Literal["log_spaced", "every_n_steps", "epoch"]

LOG_SPACED = frozenset(math.ceil(10 ** (index / 12)) - 1 for index in range(12 * 12))
"""Steps of which each power of ten has about twelve."""
WAITING_ENTRIES = 2**16  # numbers in records that are worked up together: small ones cost mostly overhead
LARGE_TOGETHER = 64
"""Large records whose figures are written together: to wake the writing thread takes as long as a figure."""
SECONDS_BETWEEN_DRAWINGS = 60
COLUMNS, HEAT_MAP_ROWS = 256, 256
MOMENTS, DRAWN_NEURONS = 16, 12
FIGURES = ("rms_delta", "survival", "saturation", "gsnr", "update_to_weight")

LAYOUT = {
    "Back-propagation": {
        "loss": ["Multiline", ["train/loss", "val/loss"]],
        "signal survival": ["Multiline", ["survival/.*"]],
        "saturation": ["Multiline", ["saturation/.*"]],
        "RMS delta": ["Multiline", ["rms_delta/.*"]],
        "update to weight": ["Multiline", ["update_to_weight/.*"]],
        "gradient signal-to-noise ratio": ["Multiline", ["gsnr/.*"]],
    }
}


def figure_tags(layers: Sequence[str]) -> list[str]:
    """Of what `layer_figures` gives of layers of these names, one layer after the other."""
    return [f"{figure}/{layer}" for layer in layers for figure in FIGURES]


class BackpropMonitor(StepObserver, Callback):
    """Shows in TensorBoard what back-propagation computed at some steps, and draws `backprop.png`.

    Per layer the scalars `rms_delta`, `survival`, `saturation`, `update_to_weight` and `gsnr` (see
    `LayerContributions`) and, each time the steps have doubled, histograms of the deltas; a heat map of every neuron's mean
    |delta| over time; a page that puts them side by side under "Custom scalars". With several processes
    these are of the rows of the first.

    Args:
        cadence: `log_spaced` takes about 12 steps per power of ten and the last; `every_n_steps`;
            `epoch` takes the first step of each.
        every_n_steps: for the cadence of that name.
    """

    def __init__(self, *, cadence: Cadence = "log_spaced", every_n_steps: Count = 50) -> None:
        self.cadence = cadence
        self.every_n_steps = every_n_steps
        self._layers: dict[str, nn.Linear] = {}
        self._activation: Activation | None = None
        self._writer: SummaryWriter | None = None
        self._steps_per_epoch = self._steps = self._weight_entries = 0
        self._weights: list[Tensor] = []
        self._before: list[Tensor] = []
        self._waiting: dict[int, _Waiting] = {}
        """By the rows of their batches."""
        self._filling: _Waiting | None = None
        """Of these the one that holds records."""
        self._neurons = torch.empty(0)
        self._large: list[tuple[int, int, Tensor]] = []
        """Steps and rows of large records that are not yet written, and the sums of their layers `[layers, 5, 1]`."""
        self._doublings = 0
        """How often the number of steps had doubled at the last histograms, which take as long as all else of a record."""
        self._heat: History[tuple[int, Tensor]] = History(COLUMNS)
        self._moments: History[Moment] = History(MOMENTS)
        self._latest: Moment | None = None
        self._drawn = 0.0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        assert isinstance(pl_module, Classifier)
        self._layers = {
            name: layer for name, layer in pl_module.model.named_modules() if isinstance(layer, nn.Linear)
        }
        self._activation = pl_module.model.activation if isinstance(pl_module.model, SigmoidMLP) else None
        self._weights = [layer.weight.detach() for layer in self._layers.values()]
        self._weight_entries = sum(weight.numel() for weight in self._weights)
        self._before = [torch.empty_like(weight) for weight in self._weights]
        self._neurons = torch.tensor([[len(weight)] for weight in self._weights], device=pl_module.device)
        self._waiting, self._filling, self._large = {}, None, []
        assert trainer.max_epochs is not None
        self._steps_per_epoch = steps_per_epoch(trainer)
        self._steps = trainer.max_epochs * self._steps_per_epoch
        self._drawn = time.monotonic()
        self._writer = writer_of(trainer)
        if self._writer is not None:
            self._writer.add_custom_scalars(LAYOUT)

    def is_due(self, step: int) -> bool:
        return self._writer is not None and self.shows(step, self._steps_per_epoch, self._steps)

    def shows(self, step: int, steps_per_epoch: int, steps: int) -> bool:
        """Whether this step, the first being 0, is one to look at in a training of so many."""
        if self.cadence == "epoch":
            return step % steps_per_epoch == 0
        if self.cadence == "every_n_steps":
            return step % self.every_n_steps == 0
        return step in LOG_SPACED or step + 1 == steps

    def _ends_epoch(self, step: int) -> bool:
        return (step + 1) % self._steps_per_epoch == 0

    def on_backward(self, step: int, passed: BackwardPass) -> None:
        """Take the record of the step that is being made.

        Records of small networks wait, since the figures of many cost hardly more than those of one;
        a record of a large one is worked up at once, since keeping it costs memory.
        """
        assert self._writer is not None
        doublings = (step + 1).bit_length()
        if doublings > self._doublings:
            self._doublings = doublings
            names = [f"deltas/{name}" for name in self._layers]
            write_histograms(self._writer, dict(zip(names, passed.deltas, strict=True)), step)
        rows = passed.deltas[0].shape[1]
        if self._filling is not None and self._filling.rows != rows:
            self._write_waiting()
        if rows not in self._waiting:
            entries = sum(delta.numel() for delta in passed.deltas) + self._weight_entries
            if entries > WAITING_ENTRIES or not isinstance(passed.forward.x, Tensor):
                torch._foreach_copy_(self._before, self._weights)
                weights = [weight[None] for weight in self._weights]
                self._large.append((step, rows, self._measure([step], passed, weights)))
                return
            self._waiting[rows] = _Waiting(passed, self._weights, WAITING_ENTRIES // entries)
        self._filling = self._waiting[rows]
        self._filling.begin(step, passed)

    def on_update(self, step: int) -> None:
        if self._filling is not None:
            self._filling.end()
            if self._filling.is_full:
                self._write_waiting()
            return
        # In place and all layers at once: a copy of wide layers costs more than the arithmetic.
        sizes = torch._foreach_norm(self._before)
        torch._foreach_sub_(self._before, self._weights)
        updates = torch.stack(torch._foreach_norm(self._before)) / torch.stack(sizes)
        self._large[-1][2][:, -1] = updates[:, None]
        if len(self._large) == LARGE_TOGETHER:
            self._write_waiting()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._write_waiting()

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._finish(trainer)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        if isinstance(exception, Exception):  # an interrupted run shall stop at once; it can go on later
            self._finish(trainer)

    def state_dict(self) -> dict[str, Any]:
        # As one tensor each: another costs a checkpoint as much as thousands of numbers.
        heat, moments = self._heat.state_dict(), self._moments.state_dict()
        if self._heat.items:
            steps, columns = zip(*self._heat.items, strict=True)
            heat["items"] = [list(steps), torch.stack(columns)]
        if self._moments.items:
            moments["items"] = [
                [moment.step for moment in self._moments.items],
                self._moments.items[0].shown,
                torch.stack([moment.numbers for moment in self._moments.items]),
            ]
        return {"doublings": self._doublings, "heat": heat, "moments": moments}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        heat, moments = dict(state_dict["heat"]), dict(state_dict["moments"])
        if heat["items"]:
            heat["items"] = list(zip(*heat["items"], strict=True))
        if moments["items"]:
            steps, shown, numbers = moments["items"]
            moments["items"] = [Moment.of(step, shown, row) for step, row in zip(steps, numbers, strict=True)]
        self._doublings = state_dict["doublings"]
        self._heat.load_state_dict(heat)
        self._moments.load_state_dict(moments)

    @torch.no_grad()
    def _measure(
        self,
        steps: Sequence[int],
        passed: BackwardPass,
        weights: Sequence[Tensor],
        updates: Sequence[Tensor] | None = None,
    ) -> Tensor:
        """The sums `[layers, 5, steps]` of passes over batches of one size, with the weights of each."""
        layers = contributions(layers_of(list(self._layers), weights, passed, self._activation), updates)
        for index, step in enumerate(steps):
            self._heat.append(partial(_column, step, layers, index))
            moment = cache(partial(_moment, step, layers, index))
            self._moments.append(moment)
        if self.cadence == "epoch" or len(steps) > 1 or self._ends_epoch(steps[-1]):
            # Not of every step: history has others nearby.
            self._latest = moment()
        return torch.stack([torch.stack(layer.sums) for layer in layers])

    def _write_waiting(self) -> None:
        """Work up the records that wait, and write their figures and others'."""
        if self._large:
            large, self._large = self._large, []
            sums = torch.cat([each for *_, each in large], dim=-1)
            self._write([step for step, *_ in large], [rows for _, rows, _ in large], sums)
        if self._filling is None:
            return
        waiting, self._filling = self._filling, None
        steps, ended = waiting.steps[: waiting.ended], waiting.ended  # without one of a step that failed
        if steps:
            before = [weight[:ended] for weight in waiting.before]
            updates = torch._foreach_sub([weight[:ended] for weight in waiting.after], before)
            sums = self._measure(steps, waiting.passes.first(ended), before, updates)
            self._write(steps, [waiting.rows] * ended, sums)
        waiting.clear()

    def _write(self, steps: Sequence[int], rows: Sequence[int], sums: Tensor) -> None:
        """Write the figures made of the sums `[layers, 5, steps]`, all read at once: reading one makes a GPU wait."""
        assert self._writer is not None
        figures = layer_figures(sums, torch.tensor(rows, device=sums.device), self._neurons)
        values = dict(zip(steps, figures.flatten(0, 1).T.tolist(), strict=True))
        write_scalars(self._writer, figure_tags(list(self._layers)), values)
        if time.monotonic() - self._drawn > SECONDS_BETWEEN_DRAWINGS:
            self._draw_heat_map()

    def _finish(self, trainer: Trainer) -> None:
        self._write_waiting()
        if self._writer is None or not self._moments.items:
            return
        self._draw_heat_map()
        first, last = self._moments.items[0], self._moments.items[-1]
        if self._latest is not None and self._latest.step > last.step:
            last = self._latest
        middle = min(self._moments.items, key=lambda moment: abs(2 * moment.step - last.step))
        moments = {moment.step: moment for moment in (first, middle, last)}
        linear = list(self._layers.values())
        picture = network(
            list(moments.values()),
            ["features", *self._layers],
            [linear[0].in_features, *(layer.out_features for layer in linear)],
        )
        if picture is not None:
            write_whole(folder_of(trainer).backprop_picture, picture, wait=False)

    def _draw_heat_map(self) -> None:
        steps, columns = zip(*self._heat.items, strict=True)
        rows = [min(layer.out_features, HEAT_MAP_ROWS) for layer in self._layers.values()]
        values = torch.stack(columns, dim=1).split(rows)
        layers = [(name, value.numpy()) for name, value in zip(self._layers, values, strict=True)]
        picture = heat_map(steps, layers)
        if self._writer is not None and picture is not None:
            write_picture(self._writer, "error_contributions", picture, steps[-1])
        self._drawn = time.monotonic()


class _Waiting:
    """Records of steps with batches of one size, to be worked up together.

    Args:
        example: such a pass.
        weights: of the layers, which the steps change.
        room: how many records there is room for.
    """

    def __init__(self, example: BackwardPass, weights: Sequence[Tensor], room: int) -> None:
        self.rows = example.deltas[0].shape[1]
        self.room = room
        self.passes = PassMemory(example, room)
        self.steps: list[int] = []
        self.ended = 0
        """Of these, how many the optimizer has made."""
        self.before, self.after = (
            [weight.new_empty(room, *weight.shape) for weight in weights] for _ in range(2)
        )
        self._weights = list(weights)

    @property
    def is_full(self) -> bool:
        return self.ended == self.room

    def begin(self, step: int, passed: BackwardPass) -> None:
        number = len(self.steps)
        self.passes.keep(number, passed)
        torch._foreach_copy_([kept[number] for kept in self.before], self._weights)
        self.steps.append(step)

    def end(self) -> None:
        torch._foreach_copy_([kept[self.ended] for kept in self.after], self._weights)
        self.ended += 1

    def clear(self) -> None:
        self.steps, self.ended = [], 0


def _column(step: int, layers: list[LayerContributions], index: int) -> tuple[int, Tensor]:
    """The step, and all layers' neurons in a row; of wide layers the largest of each group of neighbours."""
    deltas = [layer.mean_abs_delta[index] for layer in layers]
    return step, torch.cat(
        [
            delta
            if len(delta) <= HEAT_MAP_ROWS
            else functional.adaptive_max_pool1d(delta[None], HEAT_MAP_ROWS)[0]
            for delta in deltas
        ]
    ).cpu()


def _moment(step: int, layers: list[LayerContributions], index: int) -> Moment:
    weights = [layer.layer.weight[index] for layer in layers]
    shown = [_some(weights[0].shape[1]), *(_some(len(weight)) for weight in weights)]
    return Moment(
        step,
        [
            weight[neurons[:, None], sources].cpu()
            for weight, sources, neurons in zip(weights, shown[:-1], shown[1:], strict=True)
        ],
        [
            layer.mean_abs_delta[index, neurons].cpu()
            for layer, neurons in zip(layers, shown[1:], strict=True)
        ],
    )


@cache
def _some(neurons: int) -> Tensor:
    """Which neurons are drawn: all, or evenly spaced ones."""
    return torch.linspace(0, neurons - 1, min(neurons, DRAWN_NEURONS)).round().long()
