"""How time per step and memory grow; for `benchmark.py growth`, which runs this file once per measurement."""

import json
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from lightning.pytorch import Callback, LightningModule, Trainer
from matplotlib.figure import Figure
from speed import BARE, ONLY_TRAIN, measured, prepared, quiet

USUAL = {"rows": 20_000, "width": 64, "depth": 2, "batch": 128, "classes": 2}
FEATURES = 10
TINY = {"rows": 1000, "width": 8, "depth": 1, "batch": 1, "classes": 2}
SECONDS = 1.5  # of each measurement, about
NOISE = 0.05  # of the program's own memory: by so much it differs from process to process


@dataclass(frozen=True)
class Dimension:
    """What grows, its values, the rest, and how time and memory then must grow: as `value ** exponent`."""

    values: list[int]
    others: dict[str, int]
    time_exponent: float
    memory_exponent: float


DIMENSIONS = {
    "rows": Dimension([10**n for n in range(3, 8)], {}, 0, 1),
    "width": Dimension([8, 32, 128, 512, 1024, 2048, 4096], {}, 2, 2),
    "depth": Dimension([1, 2, 4, 8, 16, 32], {"width": 512}, 1, 1),
    "batch": Dimension([4**n for n in range(9)], {"rows": 200_000, "width": 256}, 1, 1),
    "classes": Dimension([2, 10, 30, 100, 300, 1000], {"width": 256}, 1, 1),
}


@dataclass(frozen=True)
class Point:
    """A measurement: seconds of a step, and the peak of memory in bytes."""

    seconds: float
    peak: int


def point(setting: dict[str, int]) -> Point:
    """Measured in a process of its own."""
    with tempfile.NamedTemporaryFile("r") as said:
        cost = measured([__file__, json.dumps(setting), said.name])
        return Point(float(said.read()), cost.peak)


def slope(values: list[int], costs: list[float], noise: float = 0.0) -> float:
    """On logarithmic axes, over the upper half of the range, where the terms that do not grow count least.

    Of costs that rise, those below the noise are left out, but for the last two.
    """
    counted = max(2, sum(cost > noise for cost in costs[len(values) // 2 :]))
    return float(np.polyfit(np.log(values[-counted:]), np.log(costs[-counted:]), 1)[0])


def growing(points: list[Point], base: Point) -> list[float]:
    """The bytes above those of a tiny network, which are those of the program."""
    return [max(1.0, point.peak - base.peak) for point in points]


def plot(measurements: dict[str, list[Point]], base: Point, path: Path) -> None:
    """Time above, memory below, one column per dimension, with the theoretical slope through the last point."""
    figure = Figure(figsize=(3.2 * len(measurements), 6), dpi=110, layout="constrained")
    axes = figure.subplots(2, len(measurements))
    for column, (name, points) in enumerate(measurements.items()):
        dimension = DIMENSIONS[name]
        values = np.array(dimension.values)
        for row, (costs, start, exponent, unit) in enumerate(
            [
                ([1e3 * point.seconds for point in points], 0.0, dimension.time_exponent, "ms per step"),
                (
                    [point.peak / 1e6 for point in points],
                    base.peak / 1e6,
                    dimension.memory_exponent,
                    "peak memory, MB",
                ),
            ]
        ):
            place = axes[row, column]
            place.loglog(values, costs, "o-", label="measured")
            theory = (costs[-1] - start) * (values / values[-1]) ** exponent + start
            place.loglog(values, theory, "--", color="grey", label=f"theory: {name}^{exponent:g}")
            place.set(
                xlabel=name, ylabel=unit if column == 0 else "", ylim=(0.5 * min(costs), 2 * max(costs))
            )
            place.grid(alpha=0.3)
            place.legend(fontsize="small")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)


class Stopwatch(Callback):
    """When the steps so far had been made."""

    takes_chunks = True

    def __init__(self) -> None:
        self.laps: list[tuple[int, float]] = []

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        self.laps.append((trainer.global_step, time.perf_counter()))
        if self.laps[-1][1] - self.laps[0][1] > SECONDS and len(self.laps) > 2:
            trainer.should_stop = True


def seconds_per_step(rows: int, width: int, depth: int, batch: int, classes: int) -> float:
    """Of training, after the first steps."""
    random = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        np.save(Path(folder, "x.npy"), random.standard_normal((rows, FEATURES), dtype=np.float32))
        np.save(Path(folder, "y.npy"), np.arange(rows) % classes)
        overrides = [
            "data=arrays", f"data.path={folder}/x.npy", f"data.labels={folder}/y.npy", "data.stratify=false",
            f"data.batch_size={batch}", f"model.hidden={[width] * depth}", "trainer.max_epochs=1000",
            *ONLY_TRAIN, *BARE, "callbacks.stop_hopeless=null",
        ]  # fmt: skip
        with prepared(overrides) as (_, experiment):
            watch = Stopwatch()
            experiment.trainer.callbacks.append(watch)  # type: ignore[attr-defined]  # it is a list
            experiment.trainer.fit(experiment.classifier, experiment.data)
    (first, began), *_, (last, ended) = watch.laps
    return (ended - began) / (last - first)


if __name__ == "__main__":
    quiet()
    Path(sys.argv[2]).write_text(str(seconds_per_step(**json.loads(sys.argv[1]))))
