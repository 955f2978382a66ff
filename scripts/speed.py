"""Backlight beside the loop that people write by hand; for `benchmark.py run`."""

import gc
import logging
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet
import torch
from hydra import compose, initialize_config_dir
from lightning.pytorch import Callback, LightningModule
from numpy.typing import NDArray
from peers import bare_loop
from rich import get_console
from torch import Tensor

from backlight.assemble import Experiment, Node, assemble
from backlight.backprop.step import Backpropagation
from backlight.checkpoint import read_checkpoint
from backlight.command import config_folder
from backlight.config import plain, task_of
from backlight.data.batches import TrainingBatches
from backlight.diagnose import Diagnosis
from backlight.early_warning import EarlyWarning
from backlight.examination import Evidence
from backlight.flat import FlatOptimizer
from backlight.model import SigmoidMLP
from backlight.run_folder import RunFolder

ROOT = Path(__file__).parents[1]
PEERS = ROOT / "scripts/peers"
ONLY_TRAIN = ["data.val_fraction=0", "data.test_fraction=0", "callbacks.progress=null"]
BARE = ["callbacks.backprop=null", "callbacks.gradients=null"]

SMALL = ["data.n_samples=20000", "model.hidden=[5]", "data.batch_size=32", "trainer.max_epochs=48"]
MEDIUM = [
    "data.n_samples=60000", "data.n_features=784", "data.n_informative=20", "data.n_classes=10",
    "model.hidden=[256,256]", "data.batch_size=128", "trainer.max_epochs=10",
]  # fmt: skip
EPOCH = [*MEDIUM, *ONLY_TRAIN, "trainer.max_epochs=1"]
LARGE_HIDDEN, LARGE_BATCH, LARGE_FEATURES = [300, 300], 4096, 28
LARGE = [
    "data.n_samples=400000", f"data.n_features={LARGE_FEATURES}", f"data.batch_size={LARGE_BATCH}",
    f"model.hidden={LARGE_HIDDEN}",
]  # fmt: skip


@dataclass(frozen=True)
class Row:
    """Of the table: what is done, ours and theirs, in seconds and MB, and the ratio that is asked for."""

    work: str
    ours: Callable[[], "Cost"]
    theirs: Callable[[], "Cost"]
    at_most: float
    repeats: int


@dataclass(frozen=True)
class Cost:
    """Of one repeat: seconds, and of a process of its own the peak of its memory in bytes."""

    seconds: float
    peak: int = 0


def quiet() -> None:
    """Leave the terminal to the tables, and what was imported alone, as every command of ours does.

    Else whoever makes many objects, as a picture does, pays for a search for garbage among half a million.
    """
    gc.freeze()
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="lightning")


@contextmanager
def prepared(overrides: list[str]) -> Iterator[tuple[Node, Experiment]]:
    """The config and the objects of a run, data already made, in a folder that is deleted afterwards."""
    with initialize_config_dir(str(config_folder()), version_base="1.3"):
        config = plain(task_of(compose("train", [*overrides, "callbacks.progress=null"])))
    with tempfile.TemporaryDirectory() as folder:
        yield config, assemble(config, RunFolder(Path(folder)))


def fit_seconds(overrides: list[str]) -> float:
    """Wall time of one training, from its first step to the end."""
    with prepared(overrides) as (_, experiment):
        started = time.perf_counter()
        experiment.trainer.fit(experiment.classifier, experiment.data)
        return time.perf_counter() - started


def diagnosed(overrides: list[str]) -> tuple[float, float]:
    """The same with all that says what ails the run: while it trains, and the verdict.

    Also how many of these seconds, by the clock, the instrument and the diagnosis take.
    """
    with prepared(overrides) as (config, experiment), get_console().capture():
        folder = RunFolder(experiment.trainer.default_root_dir)
        warning = EarlyWarning(config, folder)
        experiment.trainer.callbacks.append(warning)  # type: ignore[attr-defined]  # it is a list
        spent = clocked(experiment.trainer.callbacks)  # type: ignore[attr-defined]  # it is a list
        started = time.perf_counter()
        experiment.trainer.fit(experiment.classifier, experiment.data)
        trained = time.perf_counter()
        evidence = Evidence.of(folder, start=warning.start)
        assert Diagnosis.of(config, evidence, experiment.data).verdict
        ended = time.perf_counter()
    return ended - started, spent["BackpropMonitor"] + spent["EarlyWarning"] + ended - trained


def bare_seconds(overrides: list[str], device: str = "cpu") -> float:
    """The same of the loop by hand, on the same rows."""
    with prepared(overrides) as (config, experiment):
        x, y = experiment.data.part("train")
        assert isinstance(x, Tensor)
        return bare_loop.fit(
            x.to(device),
            y.to(device),
            config["model"]["hidden"],
            config["data"]["batch_size"],
            config["trainer"]["max_epochs"],
        )


def alone_seconds(overrides: list[str]) -> float:
    """The steps of an epoch, ours on the same rows, with nothing around them: no loop of Lightning's, no callbacks."""
    with prepared(overrides) as (config, experiment):
        classifier, (x, y) = experiment.classifier, experiment.data.part("train")
        assert isinstance(classifier.model, SigmoidMLP)
        flat = FlatOptimizer(classifier.optimizer)
        propagation = Backpropagation(classifier.model, flat.gradients)
        batches = TrainingBatches(x, y, config["data"]["batch_size"], seed=0, steps_at_once=len(x))
        started = time.perf_counter()
        with torch.no_grad(), flat:
            for steps in batches:
                for rows, targets, batch_size in steps:
                    propagation.differentiate(rows, targets, None, batch_size)
                    flat.step()
        return time.perf_counter() - started


def in_parts(overrides: list[str]) -> dict[str, float]:
    """Of one training the seconds that each callback, the module and all else take."""
    with prepared(overrides) as (_, experiment):
        trainer, classifier = experiment.trainer, experiment.classifier
        spent = clocked([*trainer.callbacks, classifier])  # type: ignore[attr-defined]  # it is a list
        started = time.perf_counter()
        trainer.fit(classifier, experiment.data)
        whole = time.perf_counter() - started
    return {**spent, "Lightning: set-up, its loop, tear-down": whole - sum(spent.values())}


def clocked(parts: Iterable[Callback | LightningModule]) -> dict[str, float]:
    """Where the seconds will be counted that each takes in its hooks, without those of others called from there."""
    spent: dict[str, float] = defaultdict(float)
    within = [0.0]
    """Of each call that has begun the seconds that others took."""

    def timed(hook: Callable[..., Any], name: str) -> Callable[..., Any]:
        @wraps(hook)
        def call(*arguments: Any, **named: Any) -> Any:
            within.append(0.0)
            started = time.perf_counter()
            try:
                return hook(*arguments, **named)
            finally:
                took = time.perf_counter() - started
                spent[name] += took - within.pop()
                within[-1] += took

        return call

    for part in parts:
        kind = type(part)
        hooks = dir(kind) if isinstance(part, Callback) else vars(kind)  # not those that Lightning itself has
        for name in filter(re.compile("on_|training_step").match, list(hooks)):
            label = f"{kind.__name__}.training_step" if name == "training_step" else kind.__name__
            setattr(part, name, timed(getattr(part, name), label))
    return spent


def in_matrix_products(train: Callable[[], Any]) -> float:
    """The seconds that go into matrix products, which nobody saves."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        train()
    names = [*(f"aten::{name}" for name in ("mm", "addmm", "bmm", "baddbmm")), "mkldnn::_linear_pointwise"]
    return (
        float(sum(event.self_cpu_time_total for event in profile.key_averages() if event.key in names)) / 1e6
    )


def measured(command: list[str], **environment: str) -> Cost:
    """A Python process, in a folder that is deleted in the end.

    Not before: for half a minute after thousands of files were deleted, ext4 takes many times as long to make new ones.

    Raises:
        SystemExit: it failed.
    """
    variables = {**os.environ, "PYTHONPATH": str(ROOT / "scripts"), **environment}
    folder = tempfile.TemporaryDirectory()
    _folders.append(folder)
    with tempfile.TemporaryFile() as said:
        started = time.perf_counter()
        process = subprocess.Popen(
            [sys.executable, *command],
            stdout=said,
            stderr=said,
            cwd=folder.name,
            env=variables,
        )
        peak = ended(process)
        seconds = time.perf_counter() - started
        if process.returncode:
            said.seek(0)
            raise SystemExit(f"{' '.join(command)} failed:\n{said.read().decode()}")
    return Cost(seconds, peak)


_folders: list[tempfile.TemporaryDirectory[str]] = []


def ended(process: "subprocess.Popen[bytes]") -> int:
    """Wait for a process; returns the peak of its memory in bytes, 0 where the system does not tell.

    What `wait4` tells of a child includes the memory of its parent, of which it was a copy for a moment. With processes
    of its own it is the most that they had together, seen once a second; what they share counts once.
    """
    own = Path(f"/proc/{process.pid}")
    peak, due = 0, time.monotonic() + 1
    while process.poll() is None:
        peak = max(peak, _kilobytes(own / "status", "VmHWM"))
        if time.monotonic() > due:
            due = time.monotonic() + 1
            children = own / f"task/{process.pid}/children"
            forked = children.read_text().split() if children.exists() else []
            shares = [_kilobytes(Path(f"/proc/{pid}/smaps_rollup"), "Pss") for pid in (process.pid, *forked)]
            peak = max(peak, sum(shares) if forked else 0)
        time.sleep(0.02)
    return 1024 * peak


def _kilobytes(file: Path, name: str) -> int:
    try:
        found = re.search(rf"^{name}:\s+(\d+)", file.read_text(), re.MULTILINE)
    except OSError:  # the process has ended
        return 0
    return int(found[1]) if found else 0


def fits(overrides: list[str]) -> tuple[Callable[[], Cost], Callable[[], Cost]]:
    """Ours and theirs, in this process."""
    return lambda: Cost(fit_seconds(overrides)), lambda: Cost(bare_seconds(overrides))


def rows(repeats: int, folder: Path, millions: float) -> list[Row]:
    """The table. `folder` is for files, `millions` of rows are in the largest."""
    large = Large(folder, round(millions * 1e6))
    few = max(1, (repeats + 1) // 2)
    many = 5 * repeats  # of what takes less than a second, in which a busy machine shows most
    train, scripts = str(ROOT / "train.py"), ROOT / "scripts"
    return [
        Row(
            "experiment=reference, the whole process",
            lambda: measured([train, "experiment=reference"]),
            lambda: measured([str(PEERS / "reference.py")]),
            1.5,
            repeats,
        ),
        Row("10-5-1, batch 32: a step, by default", *fits([*SMALL, *ONLY_TRAIN]), 0.8, repeats),
        Row(
            "10-5-1, batch 32: a step, no instrument, no histograms",
            *fits([*SMALL, *ONLY_TRAIN, *BARE]),
            0.5,
            repeats,
        ),
        Row("784-256-256-10, batch 128, 60,000 rows: an epoch, by default", *fits(EPOCH), 0.75, many),
        Row(
            "784-256-256-10, batch 128, 60,000 rows: an epoch, no instrument, no histograms",
            *fits([*EPOCH, *BARE]),
            0.75,
            many,
        ),
        Row(
            "784-256-256-10, batch 128, 60,000 rows: ten epochs, by default",
            *fits([*MEDIUM, *ONLY_TRAIN]),
            0.75,
            repeats,
        ),
        Row(
            f"28-300-300-1, batch 4096, {millions:g} million rows on disk: an epoch",
            lambda: large.measured("ours"),
            lambda: large.measured("theirs"),
            0.9,
            few,
        ),
        Row(
            f"predict.py on {millions:g} million rows of Parquet, the whole process",
            lambda: measured([str(scripts / "predict.py"), f"run={large.run}", *large.predict("ours")]),
            lambda: measured([str(PEERS / "bare_predict.py"), str(large.weights), *large.predict("theirs")]),
            1.1,
            few,
        ),
        Row(
            "784-256-256-10, batch 128, 20,000 rows, in two processes: the last 30 of 40 epochs",
            lambda: longer(
                [train, *MEDIUM, *ONLY_TRAIN, "data.n_samples=20000", "trainer=ddp", "trainer.devices=2",
                 "trainer.accelerator=cpu"],
                "trainer.max_epochs=",
            ),
            lambda: longer(
                ["-m", "torch.distributed.run", "--nproc-per-node=2", str(PEERS / "bare_ddp.py"),
                 str(large.for_ddp()), "[256,256]", "128"],
                "",
            ),
            1.0,
            few,
        ),
    ]  # fmt: skip


def longer(command: list[str], epochs: str) -> Cost:
    """What 40 epochs take beyond ten: both start several processes, which takes as long as some epochs."""
    short, long = (measured([*command, f"{epochs}{count}"], OMP_NUM_THREADS="1") for count in (10, 40))
    return Cost(long.seconds - short.seconds, long.peak)


class Large:
    """Rows that are generated in chunks and stay on disk: as NumPy's arrays, and as Parquet.

    Args:
        folder: for the files.
        rows: how many.
    """

    CHUNK = 500_000

    def __init__(self, folder: Path, rows: int) -> None:
        self.folder, self.rows = folder, rows
        self.x, self.y, self.parquet = (folder / name for name in ("x.npy", "y.npy", "rows.parquet"))
        self.run, self.weights = folder / "run", folder / "weights.pt"
        if not self.weights.exists():
            self._generate()
            self._train()

    def measured(self, whose: str) -> Cost:
        """An epoch in a process of its own, which prints the seconds of its training."""
        command = [sys.executable, __file__, whose, str(self.folder)]
        with tempfile.TemporaryDirectory() as folder:
            output = Path(folder) / "said"
            with output.open("wb") as said:
                process = subprocess.Popen(command, stdout=said, cwd=folder)
                peak = ended(process)
            found = re.search(r"seconds (\S+)", output.read_text())
        if process.returncode or found is None:
            raise SystemExit(f"{' '.join(command)} failed")
        return Cost(float(found[1]), peak)

    def predict(self, whose: str) -> list[str]:
        """Input and output of predicting the Parquet file."""
        target = self.folder / f"{whose}.parquet"
        files = [str(self.parquet), str(target)]
        return files if whose == "theirs" else [f"input={files[0]}", f"output={files[1]}"]

    def for_ddp(self) -> Path:
        """The rows of the training in two processes, for the loop by hand."""
        path = self.folder / "ddp.pt"
        if not path.exists():
            with prepared([*MEDIUM, *ONLY_TRAIN, "data.n_samples=20000"]) as (_, experiment):
                torch.save(experiment.data.part("train"), path)
        return path

    def overrides(self) -> list[str]:
        """Of an epoch of ours."""
        return [
            "data=arrays", f"data.path={self.x}", f"data.labels={self.y}", f"data.batch_size={LARGE_BATCH}",
            f"model.hidden={LARGE_HIDDEN}", "trainer.max_epochs=1", *ONLY_TRAIN,
        ]  # fmt: skip

    def _generate(self) -> None:
        random = np.random.default_rng(0)
        shape = (self.rows, LARGE_FEATURES)
        x = np.lib.format.open_memmap(self.x, "w+", np.float32, shape)
        y = np.lib.format.open_memmap(self.y, "w+", np.uint8, shape[:1])
        names = [f"x{column}" for column in range(LARGE_FEATURES)]
        schema = pyarrow.schema([(name, pyarrow.float32()) for name in names])
        with pyarrow.parquet.ParquetWriter(self.parquet, schema) as file:
            for start in range(0, self.rows, self.CHUNK):
                some = slice(start, start + self.CHUNK)
                x[some] = random.standard_normal(x[some].shape, dtype=np.float32)
                noise = random.standard_normal(len(x[some]))
                y[some] = x[some, :5].sum(axis=1) + x[some, 5] * x[some, 6] + noise > 0
                columns = [np.ascontiguousarray(column) for column in x[some].T]
                file.write_table(pyarrow.table(columns, schema=schema))

    def _train(self) -> None:
        """A network for the predictions: its quality does not matter."""
        small = [np.load(path, mmap_mode="r")[:10_000] for path in (self.x, self.y)]
        np.savez(self.folder / "small.npz", x=small[0], y=small[1])
        data = ["data=arrays", f"data.path={self.folder / 'small.npz'}", f"model.hidden={LARGE_HIDDEN}"]
        measured([str(ROOT / "train.py"), *data, "trainer.max_epochs=1", f"hydra.run.dir={self.run}"])
        checkpoint = read_checkpoint(RunFolder(self.run).checkpoint("best"))
        encoder = checkpoint["ClassificationData"]["encoder"]
        weights = [w for name, w in checkpoint["state_dict"].items() if name.startswith("model.")]
        network = bare_loop.network(LARGE_FEATURES, LARGE_HIDDEN, 1)
        saved = {
            "features": LARGE_FEATURES,
            "hidden": LARGE_HIDDEN,
            "state": dict(zip(network.state_dict(), weights, strict=True)),
            "mean": torch.tensor(encoder["mean"]),
            "scale": torch.tensor(encoder["scale"]),
            "names": encoder["columns"],
        }
        torch.save(saved, self.weights)


def epoch(whose: str, folder: Path) -> float:
    """Seconds of an epoch on rows that lie on disk."""
    large = Large(folder, 0)
    if whose == "ours":
        return fit_seconds(large.overrides())
    count = len(np.load(large.y, mmap_mode="r"))
    every: NDArray[Any] = np.arange(count)
    return bare_loop.fit_file(large.x, large.y, every, LARGE_HIDDEN, LARGE_BATCH)


def compared(row: Row) -> tuple[list[Cost], list[Cost]]:
    """The repeats of ours and theirs, interleaved."""
    ours: list[Cost] = []
    theirs: list[Cost] = []
    for repeat in range(row.repeats):
        pair = [(ours, row.ours), (theirs, row.theirs)]
        for costs, run in pair if repeat % 2 == 0 else reversed(pair):
            costs.append(run())
    return ours, theirs


def ratio(ours: list[Cost], theirs: list[Cost]) -> float:
    """Of the seconds of each repeat, and the median of these."""
    return statistics.median(a.seconds / b.seconds for a, b in zip(ours, theirs, strict=True))


if __name__ == "__main__":
    quiet()
    print("seconds", epoch(sys.argv[1], Path(sys.argv[2])))
