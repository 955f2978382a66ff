"""What TensorBoard is told: a run's config, graph and hyper-parameters once, scalars and histograms as they come."""

import struct
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import compress
from math import isfinite
from typing import Any

import google_crc32c
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import HistogramProto, Summary
from tensorboard.summary.writer import event_file_writer
from tensorboard.summary.writer.record_writer import RecordWriter
from torch import Tensor, nn
from torch.utils.tensorboard import SummaryWriter
from torch.utils.tensorboard.summary import hparams

from backlight.callbacks.graph import graph_of
from backlight.callbacks.reach import writer_of


class Framed(bytes):
    """Whole records of TensorBoard's file format, one after the other."""


def framed(events: Iterable[Event]) -> Framed:
    """Events as records: the length, the content, and a checksum of each."""
    records = []
    for event in events:
        content = event.SerializeToString()
        length = struct.pack("<Q", len(content))
        records += [length, _checksum(length), content, _checksum(content)]
    return Framed(b"".join(records))


def _checksum(data: bytes) -> bytes:
    crc: int = google_crc32c.value(data)
    return struct.pack("<I", (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF)


class _RecordWriter(RecordWriter):  # type: ignore[misc]  # TensorBoard is untyped
    """Takes many records at once, and computes checksums in C.

    TensorBoard's own does so in Python, 0.15 µs per byte, during which its writing thread keeps training waiting.
    """

    def write(self, data: bytes) -> None:
        """Write a serialized event, or what is framed already."""
        if not isinstance(data, Framed):
            length = struct.pack("<Q", len(data))
            data = b"".join([length, _checksum(length), data, _checksum(data)])
        self._writer.write(data)


event_file_writer.RecordWriter = _RecordWriter

LARGEST_BIN = 1e20
BINS = 64


class RunDescription(Callback):
    """Writes the config as text and the graph of the network when training starts.

    Args:
        config: as YAML.
    """

    def __init__(self, config: str) -> None:
        self.config = config

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        writer, model = writer_of(trainer), pl_module.model
        assert isinstance(model, nn.Module)
        if writer is None:
            return
        writer.add_text("config", f"```yaml\n{self.config}\n```", trainer.global_step)
        drawn = graph_of(model).SerializeToString()
        writer._get_file_writer().add_event(Event(graph_def=drawn, wall_time=time.time()))


def write_scalars(writer: SummaryWriter, tags: Sequence[str], steps: Mapping[int, Sequence[float]]) -> None:
    """Write the values of each step as one event, which costs little more than one scalar; gaps where not finite.

    Many steps are handed to the writing thread at once: waking it costs more than what it does.
    """
    writer._get_file_writer().event_writer._async_writer.write(framed(scalar_events(tags, steps)))


def scalar_events(tags: Sequence[str], steps: Mapping[int, Sequence[float]]) -> Iterator[Event]:
    """One and the same event over and over, with the values of each step: making one takes longer than writing it."""
    event = Event(wall_time=time.time())
    shown: list[bool] = []
    for step, values in steps.items():
        is_finite = list(map(isfinite, values))
        if is_finite != shown:
            shown = is_finite
            event.ClearField("summary")
            scalars = [event.summary.value.add(tag=tag) for tag in compress(tags, shown)]
        event.step = step
        for scalar, value in zip(scalars, compress(values, shown), strict=True):
            scalar.simple_value = value
        yield event


def scalars_of(values: Mapping[str, float]) -> Summary:
    """One summary of all values that are finite."""
    return Summary(
        value=[Summary.Value(tag=tag, simple_value=value) for tag, value in values.items() if isfinite(value)]
    )


def write_histograms(writer: SummaryWriter, tensors: Mapping[str, Tensor], step: int) -> None:
    """Write the distribution of each tensor's entries, unless some have no place on an axis, as one event.

    PyTorch's own takes milliseconds, for 1,500 bins of which TensorBoard shows 30.
    """
    found = {tag: _histogram(tensor) for tag, tensor in tensors.items()}
    values = [
        Summary.Value(tag=tag, histo=histogram) for tag, histogram in found.items() if histogram is not None
    ]
    writer._get_file_writer().add_summary(Summary(value=values), step)


def _histogram(tensor: Tensor) -> HistogramProto | None:
    values = tensor.detach().flatten().cpu()  # a GPU has no deterministic histogram
    low, high = torch.stack(torch.aminmax(values)).tolist()
    if not (abs(low) < LARGEST_BIN and abs(high) < LARGEST_BIN):
        return None  # also NaN; the norms show those
    if (
        high - low < BINS * torch.finfo(torch.float32).tiny
    ):  # all the same, or too close for bins between them
        low, high = low - 0.5, high + 0.5
    width = (high - low) / BINS
    # A third of the time of torch.histc; in place, since fresh memory takes longer than what is computed in it.
    bins = (values - low).div_(width).int().clamp_(max=BINS - 1)
    total, squares = torch.stack([values.sum(), torch.dot(values, values)]).tolist()
    return HistogramProto(
        min=low,
        max=high,
        num=len(values),
        sum=total,
        sum_squares=squares,
        bucket_limit=[low + width * edge for edge in range(1, BINS + 1)],
        bucket=torch.bincount(bins, minlength=BINS).tolist(),
    )


def write_picture(writer: SummaryWriter, tag: str, png: bytes, step: int) -> None:
    """Write a picture as it is encoded; `add_image` would encode it again."""
    width, height = struct.unpack(">II", png[16:24])
    image = Summary.Image(width=width, height=height, colorspace=3, encoded_image_string=png)
    writer._get_file_writer().add_summary(Summary(value=[Summary.Value(tag=tag, image=image)]), step)


def write_hparams(writer: SummaryWriter, config: Mapping[str, Any], metrics: Mapping[str, float]) -> None:
    """Show this run in TensorBoard's HParams page; the writer is that of the scalars named in `metrics`."""
    file_writer = writer._get_file_writer()
    for summary in hparams_of(config, metrics):
        file_writer.add_summary(summary)


def hparams_of(config: Mapping[str, Any], metrics: Mapping[str, float]) -> tuple[Summary, ...]:
    """What the HParams page reads of a run.

    Args:
        config: nested; its leaves are the hyper-parameters, named by their full keys. What only shows and
            records (`callbacks`) is none.
        metrics: final value of each metric.
    """
    parameters = _leaves({key: value for key, value in config.items() if key != "callbacks"})
    summaries: tuple[Summary, ...] = hparams(parameters, dict(metrics))
    return summaries


def _leaves(node: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    leaves: dict[str, Any] = {}
    for key, value in node.items():
        if isinstance(value, Mapping):
            leaves |= _leaves(value, f"{prefix}{key}.")
        elif value is not None:
            leaves[prefix + key] = value if isinstance(value, bool | int | float | str) else str(value)
    return leaves
