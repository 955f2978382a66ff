"""The error contribution of every neuron, as training computes it."""

import io
import math
import time
from dataclasses import dataclass
from functools import partial
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
FIGURES = ("rms_delta", "survival", "saturation", "update_to_weight", "gsnr")

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
        self._drawn = time.monotonic()
        writer = writer_of(trainer)
        if writer is not None:
            writer.add_custom_scalars(LAYOUT)

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Batch, batch_idx: int
    ) -> None:
        assert isinstance(pl_module, Classifier)
        if self._is_due(trainer, batch_idx) and len(batch[0]) and writer_of(trainer) is not None:
            pl_module.observe = partial(self._observe, trainer)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
        if self._waiting and self._waiting[-1].updates is None:
            record = self._waiting[-1]
            record.updates = [
                self._layers[layer.name].weight.detach() - layer.weight for layer in record.layers
            ]
            if sum(record.size for record in self._waiting) > WAITING_ENTRIES:
                self._work_up(trainer)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._work_up(trainer)

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

    def _observe(self, trainer: Trainer, layers: list[LayerTrace]) -> None:
        """Keep the record of the step that is being made."""
        record = _Record(trainer.global_step, layers)
        if self._waiting and self._waiting[0].rows != record.rows:
            self._work_up(trainer)
        self._waiting.append(record)
        if self.histogram_every_n_records and self._records % self.histogram_every_n_records == 0:
            writer = writer_of(trainer)
            assert writer is not None
            for layer in layers:
                write_histogram(writer, f"deltas/{layer.name}", layer.delta, record.step)
        self._records += 1

    @torch.no_grad()
    def _work_up(self, trainer: Trainer) -> None:
        """Compute and write the figures of the records that wait."""
        records = [record for record in self._waiting if record.updates is not None]
        self._waiting = []
        writer = writer_of(trainer)
        if not records or writer is None:
            return
        updates = [torch.stack(same) for same in zip(*(r.updates or [] for r in records), strict=True)]
        layers = contributions(stack([record.layers for record in records]), updates)
        figures = torch.stack([torch.stack(_figures(layer)) for layer in layers]).cpu()
        deltas = [layer.mean_abs_delta.cpu() for layer in layers]
        for index, record in enumerate(records):
            values = {
                f"{figure}/{layer.name}": figures[row, column, index].item()
                for row, layer in enumerate(layers)
                for column, figure in enumerate(FIGURES)
                if figure != "survival" or layer.above is not None  # the last layer's is 1 by definition
            }
            write_scalars(writer, values, record.step)
            of_step = [delta[index] for delta in deltas]
            self._heat.append(partial(_column, record.step, of_step))
            self._moments.append(partial(_moment, record, of_step))
        self._latest = _moment(records[-1], [delta[-1] for delta in deltas])
        if time.monotonic() - self._drawn > SECONDS_BETWEEN_DRAWINGS:
            self._draw_heat_map(trainer)

    def _finish(self, trainer: Trainer) -> None:
        self._work_up(trainer)
        if writer_of(trainer) is None or not self._moments.items:
            return
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
        figure = heat_map(steps, layers, log_time=self.cadence == "log_spaced")
        if writer is not None and figure is not None:
            writer.add_figure("error_contributions", figure, trainer.global_step)
        self._drawn = time.monotonic()


@dataclass
class _Record:
    """What back-propagation computed at a step, and what the step then added to each layer's weight."""

    step: int
    layers: list[LayerTrace]
    updates: list[Tensor] | None = None

    @property
    def rows(self) -> int:
        return len(self.layers[0].delta)

    @property
    def size(self) -> int:
        return sum(layer.delta.numel() + layer.weight.numel() for layer in self.layers)


def is_log_spaced(step: int) -> bool:
    """Whether a step belongs to those of which each power of ten has about twenty."""

    def bin_of(number: int) -> int:
        return int(RECORDS_PER_DECADE * math.log10(number))

    return step == 0 or bin_of(step + 1) > bin_of(step)


def _figures(layer: LayerContributions) -> list[Tensor]:
    """In the order of `FIGURES`."""
    return [
        layer.rms_delta,
        layer.survival,
        layer.saturation.mean(dim=-1),
        layer.update_to_weight,
        layer.layer_gsnr,
    ]


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


def _moment(record: _Record, deltas: list[Tensor]) -> Moment:
    shown = [_some(record.layers[0].weight.shape[1]), *(_some(len(delta)) for delta in deltas)]
    return Moment(
        record.step,
        [
            layer.weight.cpu()[rows][:, columns]
            for layer, columns, rows in zip(record.layers, shown[:-1], shown[1:], strict=True)
        ],
        [delta[rows] for delta, rows in zip(deltas, shown[1:], strict=True)],
    )


def _some(neurons: int) -> Tensor:
    """Which neurons are drawn: all, or evenly spaced ones."""
    return torch.linspace(0, neurons - 1, min(neurons, DRAWN_NEURONS)).round().long()
