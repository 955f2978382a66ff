"""The error contribution of every neuron, as training computes it."""

import io
import math
import time
from dataclasses import dataclass, field, replace
from functools import cache, partial
from typing import Any, Literal

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.tensorboard import SummaryWriter

from backlight.backprop.activations import Activation
from backlight.backprop.contributions import LayerContributions, contributions
from backlight.backprop.equations import ForwardPass
from backlight.backprop.step import BackwardPass, join
from backlight.backprop.trace import LayerTrace, layers_of
from backlight.callbacks.backprop_plots import Moment, heat_map, network
from backlight.callbacks.history import History
from backlight.callbacks.reach import folder_of, steps_per_epoch, writer_of
from backlight.callbacks.tensorboard import write_histogram, write_scalars
from backlight.classifier import Classifier, StepObserver
from backlight.files import write_whole
from backlight.model import SigmoidMLP
from backlight.ranges import Count

Cadence = Literal["log_spaced", "every_n_steps", "epoch"]

LOG_SPACED = frozenset(math.ceil(10 ** (index / 12)) - 1 for index in range(12 * 12))
"""Steps of which each power of ten has about twelve."""
WAITING_ENTRIES = 2**16  # numbers in records that are worked up together: small ones cost mostly overhead
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


class BackpropMonitor(StepObserver, Callback):
    """Shows in TensorBoard what back-propagation computed at some steps, and draws `backprop.png`.

    Per layer the scalars `rms_delta`, `survival`, `saturation`, `update_to_weight` and `gsnr` (see
    `LayerContributions`) and now and then histograms of the deltas; a heat map of every neuron's mean
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
        self._clips = False
        self._steps_per_epoch = self._steps = self._weight_entries = 0
        self._weights: list[Tensor] = []
        self._before: list[Tensor] = []
        self._waiting: list[_Record] = []
        self._records = 0
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
        self._clips = pl_module.gradient_clip_val is not None
        assert trainer.max_epochs is not None
        self._steps_per_epoch = steps_per_epoch(trainer)
        self._steps = trainer.max_epochs * self._steps_per_epoch
        self._drawn = time.monotonic()
        self._writer = writer_of(trainer)
        if self._writer is not None:
            self._writer.add_custom_scalars(LAYOUT)

    def is_due(self, step: int) -> bool:
        if self._writer is None:
            return False
        if self.cadence == "epoch":
            return step % self._steps_per_epoch == 0
        if self.cadence == "every_n_steps":
            return step % self.every_n_steps == 0
        return step in LOG_SPACED or step + 1 == self._steps

    def on_backward(self, step: int, passed: BackwardPass) -> None:
        """Take the record of the step that is being made.

        Records of small networks wait, since the figures of many cost hardly more than those of one;
        a record of a large one is worked up at once, since keeping it costs memory.
        """
        assert self._writer is not None
        if self._records in LOG_SPACED:
            for name, delta in zip(self._layers, passed.deltas, strict=True):
                write_histogram(self._writer, f"deltas/{name}", delta, step)
        self._records += 1
        entries = sum(delta.numel() for delta in passed.deltas) + self._weight_entries
        record = _Record(step, passed, entries)
        previous = self._waiting[-1] if self._waiting else None
        if self._waiting and self._waiting[0].rows != record.rows:
            self._write()
        self._waiting.append(record)
        if record.is_large:
            torch._foreach_copy_(self._before, self._weights)
            record.before = [weight[None] for weight in self._weights]
            self._measure([record])
        else:
            if previous is not None and previous.step + 1 == step and previous.after:
                record.before = previous.after
            else:
                record.before = [weight.clone()[None] for weight in self._weights]
            if self._clips:  # in place
                gradients = [(weight.clone(), bias.clone()) for weight, bias in passed.gradients]
                record.passed = replace(passed, gradients=gradients)

    def on_update(self, step: int) -> None:
        record = self._waiting[-1]
        if record.is_large:
            # In place and all layers at once: a copy of wide layers costs more than the arithmetic.
            sizes = torch._foreach_norm(self._before)
            torch._foreach_sub_(self._before, self._weights)
            record.update_to_weight = torch.stack(torch._foreach_norm(self._before)) / torch.stack(sizes)
            self._write()
        else:
            record.after = [weight.clone()[None] for weight in self._weights]
            if len(self._waiting) * record.entries > WAITING_ENTRIES:
                self._write()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._waiting:
            self._write()

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._finish(trainer)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        if isinstance(exception, Exception):  # an interrupted run shall stop at once; it can go on later
            self._finish(trainer)

    def state_dict(self) -> dict[str, Any]:
        # Few large tensors: each costs a checkpoint as much as thousands of numbers.
        heat, moments = self._heat.state_dict(), self._moments.state_dict()
        heat["items"] = [[step for step, _ in self._heat.items], _stacked([[c] for _, c in self._heat.items])]
        moments["items"] = [
            [moment.step for moment in self._moments.items],
            _stacked([moment.weights for moment in self._moments.items]),
            _stacked([moment.mean_abs_delta for moment in self._moments.items]),
        ]
        return {"records": self._records, "heat": heat, "moments": moments}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        heat, moments = dict(state_dict["heat"]), dict(state_dict["moments"])
        steps, columns = heat["items"]
        heat["items"] = [(step, column) for step, (column,) in zip(steps, _unstacked(columns), strict=True)]
        steps, weights, deltas = moments["items"]
        moments["items"] = [
            Moment(*moment) for moment in zip(steps, _unstacked(weights), _unstacked(deltas), strict=True)
        ]
        self._records = state_dict["records"]
        self._heat.load_state_dict(heat)
        self._moments.load_state_dict(moments)

    @torch.no_grad()
    def _measure(self, records: list["_Record"]) -> None:
        """Turn records of batches of one size into figures."""
        passed = join([record.passed for record in records])
        before = _joined([record.before for record in records])
        updates = None
        if records[0].after:
            updates = torch._foreach_sub(_joined([record.after for record in records]), before)
        traced = layers_of(list(self._layers), before, passed, self._activation)
        layers = contributions(traced, updates)
        figures = torch.stack([torch.stack(_figures(layer)) for layer in layers]).cpu()
        for index, record in enumerate(records):
            record.figures = figures[..., index]
            self._heat.append(partial(_column, record.step, layers, index))
            self._moments.append(partial(_moment, record.step, traced, index))
        self._latest = _moment(record.step, traced, index)
        for record in records:
            record.forget()

    def _write(self) -> None:
        """Write the figures of the records that wait."""
        records, self._waiting = self._waiting, []
        unmeasured = [record for record in records if record.after]  # not of a step that failed
        if unmeasured:
            self._measure(unmeasured)
        assert self._writer is not None
        steps = {}
        for record in records:
            values = {
                f"{figure}/{name}": value
                for name, figures in zip(self._layers, record.figures.tolist(), strict=False)
                for figure, value in zip(FIGURES, figures, strict=True)
            }
            if record.update_to_weight is not None:
                updates = zip(self._layers, record.update_to_weight.tolist(), strict=True)
                values |= {f"update_to_weight/{name}": value for name, value in updates}
            steps[record.step] = values
        write_scalars(self._writer, steps)
        if time.monotonic() - self._drawn > SECONDS_BETWEEN_DRAWINGS:
            self._draw_heat_map()

    def _finish(self, trainer: Trainer) -> None:
        if self._waiting:
            self._write()
        if self._writer is None or not self._moments.items:
            return
        self._draw_heat_map()
        first, last = self._moments.items[0], self._latest or self._moments.items[-1]
        middle = min(self._moments.items, key=lambda moment: abs(2 * moment.step - last.step))
        moments = {moment.step: moment for moment in (first, middle, last)}
        linear = list(self._layers.values())
        figure = network(
            list(moments.values()),
            ["features", *self._layers],
            [linear[0].in_features, *(layer.out_features for layer in linear)],
        )
        if figure is not None:
            picture = io.BytesIO()
            figure.savefig(picture, format="png", pil_kwargs={"compress_level": 2})
            write_whole(folder_of(trainer).backprop_picture, picture.getvalue())

    def _draw_heat_map(self) -> None:
        steps, columns = zip(*self._heat.items, strict=True)
        rows = [min(layer.out_features, HEAT_MAP_ROWS) for layer in self._layers.values()]
        values = torch.stack(columns, dim=1).split(rows)
        layers = [(name, value.numpy()) for name, value in zip(self._layers, values, strict=True)]
        figure = heat_map(steps, layers)
        if self._writer is not None and figure is not None:
            self._writer.add_figure("error_contributions", figure, steps[-1])
        self._drawn = time.monotonic()


@dataclass
class _Record:
    """What back-propagation computed at a step; then, measured, its figures."""

    step: int
    passed: BackwardPass
    entries: int
    """How many numbers it keeps, about."""
    before: list[Tensor] = field(default_factory=list)
    """Each layer's weight `[1, out, in]` before the step."""
    after: list[Tensor] = field(default_factory=list)
    """And after it, of a record that waits to be measured."""
    figures: Tensor = field(default_factory=lambda: torch.empty(0))
    """`[layers, FIGURES]`, none before it is measured."""
    update_to_weight: Tensor | None = None
    """`[layers]`, of a large record."""

    def __post_init__(self) -> None:
        self.rows = self.passed.deltas[0].shape[1]
        self.is_large = self.entries > WAITING_ENTRIES

    def forget(self) -> None:
        """Give up what was measured, which may be all that keeps it in memory."""
        self.passed = BackwardPass(ForwardPass(torch.empty(0), [], []), [], [])
        self.before, self.after = [], []


def _figures(layer: LayerContributions) -> list[Tensor]:
    """In the order of `FIGURES`, each `[records]`."""
    # The last layer's survival is 1 by definition: no curve.
    survival = layer.survival if layer.above is not None else torch.full_like(layer.rms_delta, torch.nan)
    return [layer.rms_delta, survival, layer.layer_saturation, layer.layer_gsnr, layer.update_to_weight]


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


def _moment(step: int, layers: list[LayerTrace], index: int) -> Moment:
    shown = [_some(layers[0].weight.shape[-1]), *(_some(layer.weight.shape[-2]) for layer in layers)]
    return Moment(
        step,
        [
            layer.weight[index, neurons][:, sources].cpu()
            for layer, sources, neurons in zip(layers, shown[:-1], shown[1:], strict=True)
        ],
        [
            layer.delta[index][:, neurons].abs().mean(dim=0).cpu()
            for layer, neurons in zip(layers, shown[1:], strict=True)
        ],
    )


@cache
def _some(neurons: int) -> Tensor:
    """Which neurons are drawn: all, or evenly spaced ones."""
    return torch.linspace(0, neurons - 1, min(neurons, DRAWN_NEURONS)).round().long()


def _stacked(items: list[list[Tensor]]) -> list[Tensor]:
    """Of lists of tensors alike: all first ones as one tensor, all second ones, …"""
    return [torch.stack(same) for same in zip(*items, strict=True)]


def _joined(items: list[list[Tensor]]) -> list[Tensor]:
    """The same along an axis that they have."""
    return [torch.cat(same) if len(same) > 1 else same[0] for same in zip(*items, strict=True)]


def _unstacked(tensors: list[Tensor]) -> list[list[Tensor]]:
    """What `_stacked` was given."""
    return [list(item) for item in zip(*tensors, strict=True)]
