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

from backlight.backprop.contributions import LayerContributions, contributions
from backlight.backprop.trace import LayerTrace, stack
from backlight.callbacks.backprop_plots import Moment, heat_map, network
from backlight.callbacks.history import History
from backlight.callbacks.reach import folder_of, writer_of
from backlight.callbacks.tensorboard import write_histogram, write_scalars
from backlight.classifier import Classifier
from backlight.data.batches import Batch
from backlight.files import write_whole
from backlight.ranges import Count, Natural

Cadence = Literal["log_spaced", "every_n_steps", "epoch"]

RECORDS_PER_DECADE = 20
WAITING_ENTRIES = 2**16  # numbers in records that are worked up together: small ones cost mostly overhead
SECONDS_BETWEEN_DRAWINGS = 60
COLUMNS, HEAT_MAP_ROWS = 256, 256
MOMENTS, DRAWN_NEURONS = 16, 12
FIGURES = ("rms_delta", "survival", "saturation", "gsnr")

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


class BackpropMonitor(Callback):
    """Shows in TensorBoard what back-propagation computed at some steps, and draws `backprop.png`.

    Per layer the scalars `rms_delta`, `survival`, `saturation`, `update_to_weight` and `gsnr` (see
    `LayerContributions`) and histograms of the deltas; a heat map of every neuron's mean |delta| over
    time; a page that puts them side by side under "Custom scalars". With several processes these are of
    the rows of the first.

    Args:
        cadence: `log_spaced` takes about 20 steps per power of ten and the last; `every_n_steps`;
            `epoch` takes the first step of each.
        every_n_steps: for the cadence of that name.
        histogram_every_n_records: of these steps, every how many get histograms; 0 for none.
    """

    def __init__(
        self,
        *,
        cadence: Cadence = "log_spaced",
        every_n_steps: Count = 50,
        histogram_every_n_records: Natural = 10,
    ) -> None:
        self.cadence = cadence
        self.every_n_steps = every_n_steps
        self.histogram_every_n_records = histogram_every_n_records
        self._layers: dict[str, nn.Linear] = {}
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
        self._before = [torch.empty_like(weight) for weight in self._weights]
        self._drawn = time.monotonic()
        writer = writer_of(trainer)
        if writer is not None:
            writer.add_custom_scalars(LAYOUT)

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Batch, batch_idx: int
    ) -> None:
        assert isinstance(pl_module, Classifier)
        if self._is_due(trainer, batch_idx) and len(batch[0]) and writer_of(trainer) is not None:
            clips = pl_module.gradient_clip_val is not None  # which works in place
            pl_module.observe = partial(self._observe, trainer, keeps_gradients=not clips)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
        if not (self._waiting and self._waiting[-1].update_to_weight is None):
            return
        # In place and all layers at once: a copy of wide layers costs more than the arithmetic.
        sizes = torch._foreach_norm(self._before)
        torch._foreach_sub_(self._before, self._weights)
        updates = torch._foreach_norm(self._before)
        self._waiting[-1].update_to_weight = torch.stack(updates) / torch.stack(sizes)
        if len(self._waiting) * self._waiting[-1].entries > WAITING_ENTRIES:
            self._write(trainer)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._waiting:
            self._write(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._finish(trainer)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        if isinstance(exception, Exception):  # an interrupted run shall stop at once; it can go on later
            self._finish(trainer)

    def state_dict(self) -> dict[str, Any]:
        moments = self._moments.state_dict()
        moments["items"] = [vars(moment) for moment in self._moments.items]
        return {"records": self._records, "heat": self._heat.state_dict(), "moments": moments}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._records = state_dict["records"]
        self._heat.load_state_dict(state_dict["heat"])
        self._moments.load_state_dict(state_dict["moments"])
        self._moments.items = [Moment(**moment) for moment in state_dict["moments"]["items"]]

    def _is_due(self, trainer: Trainer, batch_idx: int) -> bool:
        step = trainer.global_step
        if self.cadence == "epoch":
            return batch_idx == 0
        if self.cadence == "every_n_steps":
            return step % self.every_n_steps == 0
        assert trainer.max_epochs is not None
        return is_log_spaced(step) or step + 1 == trainer.max_epochs * trainer.num_training_batches

    @property
    def _weights(self) -> list[Tensor]:
        return [layer.weight.detach() for layer in self._layers.values()]

    @torch.no_grad()
    def _observe(self, trainer: Trainer, layers: list[LayerTrace], *, keeps_gradients: bool) -> None:
        """Take the record of the step that is being made.

        Records of small networks wait, since the figures of many cost hardly more than those of one;
        a record of a large one is worked up at once, since keeping it costs memory.
        """
        if not keeps_gradients:
            layers = [
                replace(
                    layer,
                    weight_gradient=layer.weight_gradient.clone(),
                    bias_gradient=layer.bias_gradient.clone(),
                )
                for layer in layers
            ]
        step = trainer.global_step
        record = _Record(step, layers, sum(layer.delta.numel() + layer.weight.numel() for layer in layers))
        if self._waiting and len(self._waiting[0].layers[0].delta) != len(layers[0].delta):
            self._write(trainer)
        torch._foreach_copy_(self._before, [layer.weight for layer in layers])
        self._latest = moment = _moment(step, layers)
        self._moments.append(lambda: moment)
        if self.histogram_every_n_records and self._records % self.histogram_every_n_records == 0:
            writer = writer_of(trainer)
            assert writer is not None
            for layer in layers:
                write_histogram(writer, f"deltas/{layer.name}", layer.delta, step)
        self._records += 1
        self._waiting.append(record)
        if record.entries > WAITING_ENTRIES:
            self._measure()

    @torch.no_grad()
    def _measure(self) -> None:
        """Turn what waits to be measured into figures."""
        records = [record for record in self._waiting if record.layers]
        if not records:
            return
        layers = contributions(stack([record.layers for record in records]))
        figures = torch.stack([torch.stack(_figures(layer)) for layer in layers]).cpu()
        deltas = [layer.mean_abs_delta.cpu() for layer in layers]
        for index, record in enumerate(records):
            record.layers = []
            record.figures = figures[..., index]
            self._heat.append(partial(_column, record.step, [delta[index] for delta in deltas]))

    def _write(self, trainer: Trainer) -> None:
        """Write the figures of the records that wait."""
        self._measure()
        records, self._waiting = self._waiting, []
        writer = writer_of(trainer)
        assert writer is not None
        for record in records:
            if record.update_to_weight is None:  # the step was not made: an error came between
                continue
            update = record.update_to_weight.tolist()
            values = dict(zip((f"update_to_weight/{name}" for name in self._layers), update, strict=True))
            for name, figures in zip(self._layers, record.figures.tolist(), strict=True):
                values |= {f"{figure}/{name}": value for figure, value in zip(FIGURES, figures, strict=True)}
            write_scalars(writer, values, record.step)
        if time.monotonic() - self._drawn > SECONDS_BETWEEN_DRAWINGS:
            self._draw_heat_map(trainer)

    def _finish(self, trainer: Trainer) -> None:
        if writer_of(trainer) is None or not self._records:
            return
        self._write(trainer)
        self._draw_heat_map(trainer)
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
            figure.savefig(picture, format="png")
            write_whole(folder_of(trainer).backprop_picture, picture.getvalue())

    def _draw_heat_map(self, trainer: Trainer) -> None:
        writer = writer_of(trainer)
        steps, columns = zip(*self._heat.items, strict=True)
        rows = [min(layer.out_features, HEAT_MAP_ROWS) for layer in self._layers.values()]
        values = torch.stack(columns, dim=1).split(rows)
        layers = [(name, value.numpy()) for name, value in zip(self._layers, values, strict=True)]
        figure = heat_map(steps, layers)
        if writer is not None and figure is not None:
            writer.add_figure("error_contributions", figure, trainer.global_step)
        self._drawn = time.monotonic()


@dataclass
class _Record:
    """What back-propagation computed at a step, until it is measured; then the figures."""

    step: int
    layers: list[LayerTrace]
    entries: int
    figures: Tensor = field(default_factory=lambda: torch.empty(0))
    """`[layers, FIGURES]`"""
    update_to_weight: Tensor | None = None
    """`[layers]`; None until the step is made."""


def is_log_spaced(step: int) -> bool:
    """Whether a step belongs to those of which each power of ten has about twenty."""

    def bin_of(number: int) -> int:
        return int(RECORDS_PER_DECADE * math.log10(number))

    return step == 0 or bin_of(step + 1) > bin_of(step)


def _figures(layer: LayerContributions) -> list[Tensor]:
    """In the order of `FIGURES`, each `[records]`."""
    # The last layer's survival is 1 by definition: no curve.
    survival = layer.survival if layer.above is not None else torch.full_like(layer.rms_delta, torch.nan)
    return [layer.rms_delta, survival, layer.saturation.mean(dim=-1), layer.layer_gsnr]


def _column(step: int, deltas: list[Tensor]) -> tuple[int, Tensor]:
    """The step, and all layers' neurons in a row; of wide layers the largest of each group of neighbours."""
    return step, torch.cat(
        [
            delta
            if len(delta) <= HEAT_MAP_ROWS
            else functional.adaptive_max_pool1d(delta[None], HEAT_MAP_ROWS)[0]
            for delta in deltas
        ]
    )


def _moment(step: int, layers: list[LayerTrace]) -> Moment:
    columns = [_some(layers[0].weight.shape[1]), *(_some(layer.delta.shape[1]) for layer in layers)]
    weights, deltas = [], []
    for layer, sources, neurons in zip(layers, columns[:-1], columns[1:], strict=True):
        weights.append(layer.weight[neurons][:, sources].cpu())
        deltas.append(layer.delta[:, neurons].abs().mean(dim=0).cpu())
    return Moment(step, weights, deltas)


@cache
def _some(neurons: int) -> Tensor:
    """Which neurons are drawn: all, or evenly spaced ones."""
    return torch.linspace(0, neurons - 1, min(neurons, DRAWN_NEURONS)).round().long()
