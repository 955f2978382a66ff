"""The run folder of a member: the same files as of a single run, and they mean the same."""

import copy
import csv
import io
import os
import socket
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cache
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from torch.utils.tensorboard.summary import custom_scalars, text

from backlight.assemble import Node, assemble
from backlight.callbacks.backprop import LAYOUT
from backlight.callbacks.checkpoints import Checkpoints
from backlight.callbacks.progress import LINES, epoch_line
from backlight.callbacks.tensorboard import framed, hparams_of, scalar_events, scalars_of
from backlight.checkpoint import read_checkpoint
from backlight.data.module import ClassificationData
from backlight.diagnose import Diagnosis
from backlight.examination import Evidence, measure_rows
from backlight.files import to_yaml, write_whole
from backlight.metrics import number
from backlight.population.member import Member
from backlight.population.monitor import tags
from backlight.processes import forked_map
from backlight.run_folder import RunFolder
from backlight.summary import blank
from backlight.sweep.compose import Trial

Summaries = Iterable[tuple[Summary, int]]
"""And the step of each."""
Kin = Sequence[tuple[Trial, Member]]

TOGETHER = (
    32  # examined at once: from there on little is gained, and it takes ten times the memory of a batch
)
WORTH_FORKING = 64  # folders to write
WORTH_WRITING = 1024
SECONDS_BETWEEN_WRITING = 30
MOST_TIME = 0.05  # of the whole, to show what those in training have reached


class Recorder:
    """Writes the folders of the members of one population.

    Each is written when it has ended, together with others, since many are written by several processes;
    of those in training TensorBoard shows every half minute what they have reached.

    Args:
        path: the sweep folder.
        node: the config of one of them.
        device: they are trained on.
        swept: keys that the sweep gives different values: TensorBoard's hyper-parameters.
        take: is given each trial that has ended, and its summary.
    """

    def __init__(
        self,
        path: Path,
        node: Node,
        device: torch.device,
        swept: Sequence[str],
        take: Callable[[Trial, dict[str, Any]], None],
    ) -> None:
        self._path = path
        self._take = take
        self._ended: list[tuple[Trial, Member]] = []
        self._due = time.monotonic() + SECONDS_BETWEEN_WRITING
        self._swept = swept
        self._writer = f"{int(time.time())}.{socket.gethostname()}.{os.getpid()}"
        self._shown: dict[int, int] = {}
        """By the number of a trial that has a folder, how many epochs TensorBoard shows."""
        self._checkpoint = _checkpoint_of(node)
        self._device = str(device)
        self._loops = cache(self._loops_after)
        self._data_state = cache(ClassificationData.state_dict)

    def add(self, kin: Kin) -> None:
        """Take those that have ended; they are written when there are many, or it is time."""
        self._ended += kin
        if len(self._ended) >= WORTH_WRITING:
            self.write_ended()

    def update(self, those_in_training: Callable[[], Kin]) -> None:
        """Every half minute, write those that have ended, and let TensorBoard show the others."""
        if time.monotonic() < self._due:
            return
        started, in_training = time.monotonic(), those_in_training()
        self.write_ended()
        forked_map(self._show, in_training, WORTH_FORKING)
        self._shown |= {trial.number: len(member.history) for trial, member in in_training}
        now = time.monotonic()
        self._due = now + max(SECONDS_BETWEEN_WRITING, (now - started) / MOST_TIME)

    def write_ended(self) -> None:
        """Write those that have ended."""
        ended, self._ended = self._ended, []
        measure_rows(member.data for _, member in ended)
        groups = [ended[first : first + TOGETHER] for first in range(0, len(ended), TOGETHER)]
        summaries = chain.from_iterable(forked_map(self._finish, groups, WORTH_FORKING // TOGETHER))
        for (trial, member), summary in zip(ended, summaries, strict=True):
            member.records.clear()  # of thousands they would fill the memory
            self._shown.pop(trial.number, None)
            self._take(trial, summary)

    def _folder(self, trial: Trial) -> RunFolder:
        return RunFolder(self._path / trial.subfolder)

    def _show(self, one: tuple[Trial, Member]) -> None:
        trial, member = one
        folder = self._folder(trial)
        if trial.number not in self._shown:
            begin(folder, trial)
        self._add_events(folder, trial, member, self._epoch_summaries(trial, member))

    def _finish(self, ended: Kin) -> list[dict[str, Any]]:
        """Examine these, write the folder of each, and return their summaries."""
        runs = [(trial.node, _evidence(trial, member), member.data) for trial, member in ended]
        return [
            self._write_folder(trial, member, diagnosis)
            for (trial, member), diagnosis in zip(ended, Diagnosis.of_kin(runs), strict=True)
        ]

    def _write_folder(self, trial: Trial, member: Member, diagnosis: Diagnosis) -> dict[str, Any]:
        try:
            return self._written(self._folder(trial), trial, member, diagnosis)
        except OSError as error:  # a full disk names no file
            place = error.filename or str(self._folder(trial).path)
            raise OSError(error.errno, error.strerror, place) from error

    def _written(
        self, folder: RunFolder, trial: Trial, member: Member, diagnosis: Diagnosis
    ) -> dict[str, Any]:
        if trial.number not in self._shown:
            begin(folder, trial)
        epochs, steps = len(member.history), len(member.history) * member.data.steps_per_epoch
        metrics = {} if member.error else {**_best(member), **member.test_metrics}
        summary = blank(trial.node["seed"], trial.resolved_yaml) | {
            "status": "failed" if member.error else "completed",
            "error": member.error,
            "metrics": {name: number(value) for name, value in sorted(metrics.items())},
            "steps": steps,
            "epochs": epochs,
            "seconds": round(member.seconds, 3),
            "device": self._device,
        }
        _write_metrics(folder.metrics, member)
        summary["diagnosis"] = diagnosis.as_data()
        closing = self._closing_summaries(trial, member, summary["metrics"], diagnosis)
        self._add_events(folder, trial, member, [*self._epoch_summaries(trial, member), *closing])
        _write_log(folder, [*_epoch_lines(member), *_closing_lines(member, diagnosis)])
        if epochs:
            # Late: a trial that was killed with a checkpoint goes on from there, and needs all the rest.
            self._write_checkpoints(folder, member)
        folder.write_summary(summary, wait=False)
        return summary

    def _write_checkpoints(self, folder: RunFolder, member: Member) -> None:
        shared = {
            **self._checkpoint,
            "loss": member.loss.settings(),
            "ClassificationData": self._data_state(member.data),
        }
        epochs = len(member.history)
        kept = [
            callback for callback in (member.stop_hopeless, member.early_stopping) if callback is not None
        ]
        last = {
            **shared,
            **self._at(epochs, member),
            "state_dict": {f"model.{name}": value for name, value in member.model.state_dict().items()},
            "optimizer_states": [member.optimizer.state_dict()],
            "lr_schedulers": [] if member.schedule is None else [member.schedule.state_dict()],
            "loops": self._loops(epochs, member.data.steps_per_epoch),
            "callbacks": {callback.state_key: callback.state_dict() for callback in kept}
            | {Checkpoints.__qualname__: {"best_loss": member.best_loss}},
        }
        best = {
            **shared,
            **self._at(member.best_epoch + 1, member),
            "state_dict": {f"model.{name}": value for name, value in member.best_weights.items()},
        }
        # The last one last and at once: whoever finds it goes on from there, and then tests the best.
        _write(folder.checkpoint("best"), _saved(best))
        write_whole(folder.checkpoint("last"), _saved(last), wait=False)

    def _epoch_summaries(self, trial: Trial, member: Member) -> Summaries:
        """Of the epochs that TensorBoard does not show yet; the steps are those of a single run's."""
        shown = self._shown.get(trial.number)
        if shown is None:
            yield text("config", f"```yaml\n{trial.config_yaml}\n```"), 0
            if member.records:
                yield custom_scalars(LAYOUT), 0
        for epoch, values in enumerate(member.history[shown or 0 :], (shown or 0) + 1):
            scalars = {name: float(value) for name, value in values.items()}
            yield scalars_of({**scalars, "epoch": epoch - 1}), epoch * member.data.steps_per_epoch - 1

    def _closing_summaries(
        self, trial: Trial, member: Member, metrics: Mapping[str, float], diagnosis: Diagnosis
    ) -> Summaries:
        end = len(member.history) * member.data.steps_per_epoch
        tested = {name: value for name, value in metrics.items() if name.startswith("test/")}
        yield scalars_of(tested), end
        for summary in hparams_of(trial.values(self._swept), metrics):
            yield summary, 0
        yield text("diagnosis", diagnosis.as_markdown()), end

    def _add_events(self, folder: RunFolder, trial: Trial, member: Member, summaries: Summaries) -> None:
        """Add these, and the records of back-propagation that TensorBoard does not show yet."""
        now = time.time()
        events = [Event(wall_time=now, step=step, summary=summary) for summary, step in summaries]
        first = self._shown.get(trial.number, 0) * member.data.steps_per_epoch
        records = {step: figures.tolist() for step, figures in member.records if step >= first}
        path = folder.tensorboard / f"events.out.tfevents.{self._writer}.{trial.number}"
        if not path.exists():
            events.insert(0, Event(wall_time=now, file_version="brain.Event:2"))
        with path.open("ab") as file:
            file.write(framed(chain(events, scalar_events(tags(member.model), records))))

    def _at(self, epochs: int, member: Member) -> dict[str, int]:
        return {"epoch": epochs - 1, "global_step": epochs * member.data.steps_per_epoch}

    def _loops_after(self, epochs: int, steps_per_epoch: int) -> dict[str, Any]:
        """Lightning's counters after so many epochs, from those after one."""
        loops: dict[str, Any] = copy.deepcopy(self._checkpoint["loops"])
        fit = loops["fit_loop"]
        steps = epochs * steps_per_epoch
        fit["epoch_loop.state_dict"]["_batches_that_stepped"] = steps
        fit["epoch_loop.manual_optimization.optim_step_progress"] = {
            scope: {"ready": steps, "completed": steps} for scope in ("total", "current")
        }
        for name in fit["epoch_loop.batch_progress"]["total"]:
            fit["epoch_loop.batch_progress"]["total"][name] *= epochs
        for scope in ("total", "current"):
            made = dict.fromkeys(("ready", "started", "processed"), epochs)
            fit["epoch_progress"][scope] = made | {"completed": epochs - 1}
        return loops


def begin(folder: RunFolder, trial: Trial) -> None:
    """Write what is known of a trial before it is trained."""
    folder.refuse_if_used()
    for path in (folder.config.parent, folder.checkpoints, folder.tensorboard):
        path.mkdir(parents=True, exist_ok=True)
    _write(folder.config.with_name("overrides.yaml"), to_yaml(trial.overrides))
    _write(folder.config.with_name("hydra.yaml"), trial.hydra_yaml(folder.path.absolute()))
    _write(folder.config, trial.config_yaml)


def _write_log(folder: RunFolder, lines: Sequence[tuple[str, str, str]]) -> None:
    """Write `train.log`: level, logger and message of each line."""
    now = time.time()
    stamp = f"{time.strftime('%Y-%m-%d %H:%M:%S', time.localtime(now))},{int(now % 1 * 1000):03d}"
    _write(folder.path / "train.log", "".join(f"{stamp} {' '.join(line[:2])}: {line[2]}\n" for line in lines))


def _saved(checkpoint: dict[str, Any]) -> bytes:
    content = io.BytesIO()
    torch.save(checkpoint, content)
    return content.getvalue()


def _write(path: Path, content: str | bytes) -> None:
    """Without waiting for the disk, as a thousand trials would for half a minute."""
    path.write_bytes(content.encode() if isinstance(content, str) else content)


def _checkpoint_of(node: Node) -> dict[str, Any]:
    """What Lightning writes after one epoch of this config: the frame of every member's checkpoint."""
    short = {**node, "callbacks": {}, "trainer": {**node["trainer"], "max_epochs": 1}}
    short["scheduler"] = {"name": "constant"}
    # Nothing of the numbers is kept, and none may fail.
    short["optimizer"] = {**node["optimizer"], "lr": 1e-9}
    short["model"] = {**node["model"], "init": "default", "init_scale": 1.0}
    with tempfile.TemporaryDirectory() as path:
        folder = RunFolder(path)
        experiment = assemble(short, folder)
        experiment.trainer.fit(experiment.classifier, experiment.data)
        experiment.trainer.logger.experiment.close()  # type: ignore[union-attr]  # `assemble` gives one
        checkpoint = read_checkpoint(folder.checkpoint("last"))
    own = ("state_dict", "optimizer_states", "lr_schedulers", "callbacks", "epoch", "global_step")
    return {key: value for key, value in checkpoint.items() if key not in own}


def _evidence(trial: Trial, member: Member) -> Evidence:
    series = {name: np.array([metrics[name] for metrics in member.history]) for name in _best(member)}
    ended = member.model if member.history else None
    return Evidence(trial.overrides, series, ended, member.error, member.started)


def _best(member: Member) -> Mapping[str, np.float32]:
    """The metrics of the epoch that its `best.ckpt` keeps."""
    return member.history[member.best_epoch] if member.history else {}


def _write_metrics(path: Path, member: Member) -> None:
    if not member.history:
        return
    steps = member.data.steps_per_epoch
    names = sorted(member.history[0])
    content = io.StringIO()
    writer = csv.writer(content, lineterminator="\n")
    writer.writerow(["epoch", "step", *names])
    for epoch, metrics in enumerate(member.history, 1):
        writer.writerow([epoch, epoch * steps, *(number(metrics[name]) for name in names)])
    _write(path, content.getvalue())


def _epoch_lines(member: Member) -> Iterator[tuple[str, str, str]]:
    every = max(1, member.max_epochs // LINES)
    for epoch, metrics in enumerate(member.history, 1):
        if epoch == 1 or epoch % every == 0:
            yield "INFO", "backlight.population", epoch_line(epoch, member.max_epochs, metrics)


def _closing_lines(member: Member, diagnosis: Diagnosis) -> Iterator[tuple[str, str, str]]:
    if member.stopped:
        yield "INFO", "backlight.population", member.stopped
    if member.error:
        yield "ERROR", "backlight.population", member.error
    for name, value in sorted(member.test_metrics.items()):
        yield "INFO", "backlight.population", f"{name} {value:.6f}"
    yield "INFO", "backlight.population", f"verdict: {diagnosis.verdict}"
