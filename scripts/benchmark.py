"""Measure Backlight beside what it is compared with:  python scripts/benchmark.py run

Repeats are interleaved, and each ratio is the median of those within a repeat, so that a machine
that is slower for a while is slower for both sides.
"""

import argparse
import math
import multiprocessing
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from operator import itemgetter
from pathlib import Path
from typing import NamedTuple

import torch
from growth import DIMENSIONS, NOISE, TINY, USUAL, Point, growing, plot, point, slope
from hydra import initialize_config_dir
from planted import Case, examined, healthy_runs, planted, references, write_tables
from quality import Score, fitted, is_there, trained, tuned, uses
from report_file import Report
from rich import get_console
from rich.table import Table
from speed import (
    BARE,
    EPOCH,
    LARGE,
    MEDIUM,
    ONLY_TRAIN,
    alone_seconds,
    bare_seconds,
    compared,
    diagnosed,
    fit_seconds,
    in_matrix_products,
    in_parts,
    measured,
    quiet,
    ratio,
    rows,
)
from training_alone import RATES, population_seconds, scikit_learn_seconds

from backlight.command import config_folder
from backlight.sweep.leaderboard import Leaderboard
from backlight.treat import Clinic, Patient, treated

ROOT = Path(__file__).parents[1]

report = Report()

NETWORKS = {
    "10-5-1, batch 32": [
        "data.n_samples=20000", "model.hidden=[5]", "data.batch_size=32", "trainer.max_epochs=96",
    ],
    "784-256-256-10, batch 128": [
        "data.n_samples=20000", "data.n_features=784", "data.n_informative=20", "data.n_classes=10",
        "model.hidden=[256,256]", "data.batch_size=128", "trainer.max_epochs=48",
    ],
    "8 x 512, batch 128": [
        "data.n_samples=10000", "data.n_features=64", "model.hidden=[512,512,512,512,512,512,512,512]",
        "model.init=xavier", "data.batch_size=128", "trainer.max_epochs=24",
    ],
}  # fmt: skip

INSTRUMENTS = {
    "without": ["callbacks.backprop=null"],
    "default cadence": [],
    "every step": ["callbacks.backprop.cadence=every_n_steps", "callbacks.backprop.every_n_steps=1"],
}
DIAGNOSED = "default cadence, diagnosed"


def peak_bytes(overrides: list[str]) -> int:
    """The most memory that training took, in a process of its own."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, context) as process:
        return process.submit(_peak_bytes, overrides).result()


def _peak_bytes(overrides: list[str]) -> int:
    quiet()
    fit_seconds(overrides)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def instrument(repeats: int) -> None:
    """What recording error contributions costs.

    Time: at most 1.05 at the default cadence, with the diagnosis too, and 1.5 at every step. Memory: at most one
    more copy of the activations.
    """
    names = [*INSTRUMENTS, DIAGNOSED]
    columns = [*(f"{name}, s" for name in names), *(f"{name} / without" for name in names[1:])]
    # Within one training, so a machine whose speed changes from one to the next does not show in it.
    table = Table("network", *columns, "the last by the clock around what it adds")
    for network, overrides in NETWORKS.items():
        seconds: dict[str, list[float]] = {name: [] for name in names}
        by_clock = []
        diagnosed([*overrides, "trainer.max_epochs=1"])  # imports and first allocations
        for repeat in range(repeats):
            for name in rotated(names, repeat):
                if name == DIAGNOSED:
                    whole, added = diagnosed(overrides)
                    seconds[name].append(whole)
                    by_clock.append(whole / (whole - added))
                else:
                    seconds[name].append(fit_seconds([*overrides, *INSTRUMENTS[name]]))
        table.add_row(
            network,
            *(f"{statistics.median(values):.2f}" for values in seconds.values()),
            *(f"{median_ratio(seconds[name], seconds['without']):.3f}" for name in names[1:]),
            f"{statistics.median(by_clock):.3f}",
        )
    report.show(table)

    width, depth, batch_size = 512, 8, 16384
    overrides = [
        f"model.hidden={[width] * depth}", f"data.batch_size={batch_size}", "data.n_samples=25000",
        "data.n_features=64", "model.init=xavier", "trainer.max_epochs=2",
    ]  # fmt: skip
    activations = 4 * batch_size * width * depth
    table = Table(
        f"{depth} x {width}, batch {batch_size}", "peak memory, MB", "more, in copies of the activations"
    )
    peaks = {name: peak_bytes([*overrides, *options]) for name, options in INSTRUMENTS.items()}
    for name, peak in peaks.items():
        table.add_row(name, f"{peak / 1e6:.0f}", f"{(peak - peaks['without']) / activations:.2f}")
    report.show(table)


def run(repeats: int) -> None:
    """Training and predicting beside the loop by hand: each row of the table is asked to be below its last column.

    The largest set has ten million rows, which take 2.5 GB of disk.
    """
    table = Table("work", "Backlight", "by hand", "ratio", "at most", "peak memory, MB")
    with tempfile.TemporaryDirectory() as folder:
        for row in rows(repeats, Path(folder), millions=10):
            ours, theirs = compared(row)
            peak = max(cost.peak for cost in ours)
            table.add_row(
                row.work,
                *(f"{statistics.median(c.seconds for c in costs):.2f} s" for costs in (ours, theirs)),
                f"{ratio(ours, theirs):.2f}",
                f"{row.at_most:g}",
                f"{peak / 1e6:.0f}" if peak else "",
            )
    report.show(table)
    profile = Table("two epochs of", "who", "seconds", "of these in the same matrix products", "in all else")
    for network, overrides in {"784-256-256-10": MEDIUM, "28-300-300-1": LARGE}.items():
        twice = [*overrides, *ONLY_TRAIN, *BARE, "trainer.max_epochs=2"]
        for who, train in {"Backlight": fit_seconds, "by hand": bare_seconds}.items():
            # The shortest, since these are not of the same trainings.
            products = min(in_matrix_products(partial(train, twice)) for _ in range(repeats))
            seconds = min(train(twice) for _ in range(repeats))
            profile.add_row(network, who, *(f"{s:.2f}" for s in (seconds, products, seconds - products)))
    report.show(profile)
    parts = Table("an epoch of 784-256-256-10, by default", "ms", "of the loop by hand")
    epochs = [(in_parts(EPOCH), alone_seconds(EPOCH), bare_seconds(EPOCH)) for _ in range(5 * repeats)]
    profiles, steps, by_hand = zip(*epochs, strict=True)
    shortest = min(profiles, key=lambda parts: sum(parts.values()))
    named = {
        **dict(sorted(shortest.items(), key=itemgetter(1), reverse=True)),
        "together": sum(shortest.values()),
        "the same steps alone, with nothing around them": min(steps),
        "the loop by hand": min(by_hand),
    }
    for name, seconds in named.items():
        if seconds > 1e-3:
            parts.add_row(name, f"{1e3 * seconds:.0f}", f"{seconds / min(by_hand):.2f}")
    report.show(parts)


def gpu(repeats: int) -> None:
    """A GPU beside the loop by hand on the same GPU, the usual way and with steps as CUDA graphs."""
    if not torch.cuda.is_available():
        raise SystemExit("ERROR: benchmark.py gpu: PyTorch sees no NVIDIA GPU here")
    ways = {"Backlight": ["trainer=gpu"], "with graphs": ["trainer=gpu", "trainer.cuda_graphs=true"]}
    names = ["by hand", *ways]
    table = Table("by default", *(f"{name}, s" for name in names), *(f"{name} / by hand" for name in ways))
    for network, overrides in NETWORKS.items():
        seconds: dict[str, list[float]] = {name: [] for name in names}
        options = [*overrides, *ONLY_TRAIN, "trainer.max_epochs=12"]
        for way in ways.values():
            fit_seconds(
                [*options, *way, "trainer.max_epochs=1"]
            )  # the device, its libraries, first allocations
        for repeat in range(repeats):
            for name in rotated(names, repeat):
                seconds[name].append(
                    fit_seconds([*options, *ways[name]]) if name in ways else bare_seconds(options, "cuda")
                )
        table.add_row(
            network,
            *(f"{statistics.median(values):.2f}" for values in seconds.values()),
            *(f"{median_ratio(seconds[name], seconds['by hand']):.2f}" for name in ways),
        )
    report.show(table)
    report.note(f"On {torch.cuda.get_device_name()}.")


def growth(repeats: int) -> None:
    """How the time of a step and the memory of training grow; the plot is `outputs/benchmark/growth.png`."""
    table = Table("against", "from", "to", "time per step, slope", "theory", "memory, slope", "theory")
    measurements: dict[str, list[Point]] = {}
    base = point(TINY)
    for name, dimension in DIMENSIONS.items():
        points = [point({**USUAL, **dimension.others, name: value}) for value in dimension.values]
        measurements[name] = points
        table.add_row(
            name,
            *(f"{value:,}" for value in (dimension.values[0], dimension.values[-1])),
            f"{slope(dimension.values, [each.seconds for each in points]):.2f}",
            f"{dimension.time_exponent:g}",
            f"{slope(dimension.values, growing(points, base), NOISE * base.peak):.2f}",
            f"{dimension.memory_exponent:g}",
        )
    plot(measurements, base, ROOT / "outputs/benchmark/growth.png")
    report.show(table)
    report.note(
        "The first of the layers has fewer inputs than the others: from 8 to 32 layers, weights grow with a slope of 1.07."
    )


LISTED = ",".join(f"{rate:g}" for rate in RATES)
SWEEP = [
    "data.n_samples=1000", "data.val_fraction=0.1", "data.test_fraction=0.1", "data.batch_size=32",
    "optimizer=sgd", "optimizer.momentum=0", "trainer.max_epochs=20", f"optimizer.lr={LISTED}",
]  # fmt: skip


def sweep(repeats: int) -> None:
    """Trials per second of a grid, from the start of the process to the last file.

    Of those that take seconds for a trial only 20 are run, and a trial's share of them is what counts.
    """
    peers: dict[str, tuple[Callable[[int], tuple[float, int]], tuple[int, ...]]] = {
        "Backlight": (ours, (10, 100, 1000, 10_000)),
        "Backlight, sweep=sequential": (sequential, (20,)),
        "Lightning + Hydra, as documented": (theirs, (20,)),
        "scikit-learn, GridSearchCV(MLPClassifier, n_jobs=-1)": (grid_search, (1000,)),
    }
    costs: dict[tuple[str, int], list[tuple[float, int]]] = {}
    ours_alone, theirs_alone = [], []
    for _ in range(repeats):
        for name, (run, sizes) in peers.items():
            for trials in sizes:
                costs.setdefault((name, trials), []).append(run(trials))
        ours_alone.append(population_seconds())
        theirs_alone.append(scikit_learn_seconds())
    table = Table("what", "trials", "seconds", "trials / s", "peak memory, MB")
    for (name, trials), measurements in costs.items():
        seconds, peaks = zip(*measurements, strict=True)
        median = statistics.median(seconds)
        memory = f"{max(peaks) / 1e6:.0f}" if max(peaks) else "not measured"
        table.add_row(name, f"{trials:,}", f"{median:.1f}", f"{trials / median:.2f}", memory)
    report.show(table)
    alone = Table("training alone, 1,000 networks", "Backlight, s", "scikit-learn, s", "times as fast")
    alone.add_row(
        "10-5-1, 800 rows, batch 32, 20 epochs",
        f"{statistics.median(ours_alone):.2f}",
        f"{statistics.median(theirs_alone):.2f}",
        f"{median_ratio(theirs_alone, ours_alone):.1f}",
    )
    report.show(alone)


def sequential(trials: int) -> tuple[float, int]:
    """Seconds and peak memory of a sweep that trains one after the other."""
    return ours(trials, "sweep=sequential")


def ours(trials: int, *options: str) -> tuple[float, int]:
    """Seconds and peak memory of a sweep of Backlight's."""
    command = [str(ROOT / "train.py"), "-m", *SWEEP, f"seed=range({trials // 10})", *options]
    cost = measured(command)
    return cost.seconds, cost.peak


def theirs(trials: int) -> tuple[float, int]:
    """The same of a program that uses Lightning and Hydra as their documentation shows them."""
    command = [
        str(ROOT / "scripts/peers/lightning_hydra.py"),
        "-m",
        f"lr={LISTED}",
        f"seed=range({trials // 10})",
    ]
    cost = measured(command)
    return cost.seconds, cost.peak


def grid_search(trials: int) -> tuple[float, int]:
    """The same grid in scikit-learn: each network trained on 800 rows and scored on 100; no run folders.

    Its memory is that of its workers, and not measured.
    """
    script = f"""
import warnings
import numpy as np
from sklearn.datasets import make_classification
from sklearn.model_selection import GridSearchCV, PredefinedSplit
from sklearn.neural_network import MLPClassifier
warnings.filterwarnings("ignore")
x, y = make_classification(900, 10, n_informative=5, random_state=0)
fold = np.where(np.arange(900) < 800, -1, 0)
network = MLPClassifier(
    [5], activation="logistic", solver="sgd", momentum=0, alpha=0, batch_size=32, max_iter=20, n_iter_no_change=1000
)
grid = {{"learning_rate_init": [{LISTED}], "random_state": range({trials // 10})}}
GridSearchCV(network, grid, cv=PredefinedSplit(fold), n_jobs=-1, refit=False).fit(x, y)
"""
    environment = {**os.environ, "PYTHONWARNINGS": "ignore"}
    started = time.perf_counter()
    subprocess.run([sys.executable, "-c", script], check=True, env=environment, capture_output=True)
    return time.perf_counter() - started, 0


def rotated(names: list[str], by: int) -> list[str]:
    """Another one first in each repeat, and after another one: who comes after whom can matter."""
    order = names if by % 2 else names[::-1]
    by %= len(names)
    return [*order[by:], *order[:by]]


def median_ratio(ours: list[float], theirs: list[float]) -> float:
    """Of each repeat, and the median of these."""
    return statistics.median(a / b for a, b in zip(ours, theirs, strict=True))


def diagnosis(repeats: int) -> None:
    """What is said of runs whose illness is known: of the set that no threshold was chosen on.

    At least 0.95 of the planted symptoms are found, at least 0.9 named first, at most 0.02 of the healthy
    runs called sick.
    """
    here = Path.cwd()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        write_tables(Path(folder))
        try:
            sick = [(case, examined(case).findings) for case in planted("report")]
            well, left_out = healthy_runs("report")
        finally:
            os.chdir(here)
    table = Table("planted", "runs", "found", "named first", "named first instead")
    for symptom in dict.fromkeys(case.symptom for case, _ in sick):
        of_it = [
            (case, [finding.symptom for finding in found]) for case, found in sick if case.symptom == symptom
        ]
        firsts = [(found or ["healthy"])[0] for _, found in of_it]
        right = [first in {symptom, *case.also} for (case, _), first in zip(of_it, firsts, strict=True)]
        others = Counter(first for first, is_right in zip(firsts, right, strict=True) if not is_right)
        table.add_row(
            symptom,
            str(len(of_it)),
            str(sum(symptom in found for _, found in of_it)),
            str(sum(right)),
            ", ".join(f"{name} {count}" for name, count in others.items()),
        )
    alarms = [(case, diagnosis.findings) for case, diagnosis in well if diagnosis.findings]
    table.add_row("none", str(len(well)), "", str(len(well) - len(alarms)), f"called sick: {len(alarms)}")
    report.show(table)
    for case, found in alarms:
        names = ", ".join(finding.symptom for finding in found)
        report.note(f"called sick ({names}): {' '.join(case.overrides)}")
    for case in left_out:
        report.note(
            f"not counted, for it had not learned what others learn of such rows: {' '.join(case.overrides)}"
        )


def treatment(repeats: int) -> None:
    """How many of the runs whose illness is known are cured, of those a setting can cure.

    By `treat.py` in at most eight attempts; and by who adds the first remedy that a run names to its command line, and
    so up to four times. Cured is what is called healthy and has come at least a fifth of the way from the base rate to
    perfect predictions closer to these, on validation rows; or what knows half of all there is to know, or as much as
    a healthy run on the same rows. Rid of its illness, which is less, is what no longer shows what was planted.
    """
    table = Table(
        "planted",
        "runs",
        "rid of it",
        "cured",
        "and those that were not",
        "cured by first remedies",
        "and not",
    )
    here = Path.cwd()
    with (
        tempfile.TemporaryDirectory() as folder,
        initialize_config_dir(str(config_folder()), version_base="1.3"),
    ):
        os.chdir(folder)
        write_tables(Path(folder))
        outcomes: dict[str, list[Outcome]] = {}
        for number, case in enumerate(planted("report")):
            if case.symptom is not None and case.symptom not in INCURABLE:
                outcomes.setdefault(case.symptom, []).append(outcome(case, Clinic(Path(str(number)))))
        os.chdir(here)
    for symptom, of_it in outcomes.items():
        cells = [symptom, str(len(of_it)), str(sum(each.is_rid for each in of_it))]
        for left in ([each.by_treatment for each in of_it], [each.by_remedies for each in of_it]):
            lost = list(filter(None, left))
            cells += [str(len(of_it) - len(lost)), "; ".join(lost)]
        table.add_row(*cells)
    report.show(table)
    every = [each for of_it in outcomes.values() for each in of_it]
    report.note(
        f"Of {len(every)} runs `treat.py` rids {sum(each.is_rid for each in every)} of what was planted. It cures "
        f"{sum(not each.by_treatment for each in every)}, and first remedies {sum(not each.by_remedies for each in every)}; "
        f"on the rows of {sum(not each.is_known for each in every)} no healthy run is known."
    )


class Outcome(NamedTuple):
    """Of an illness: what treatment, and what first remedies left; nothing, or the verdict and the progress."""

    by_treatment: str
    by_remedies: str
    is_rid: bool
    """Whether the treated run shows no more what was planted."""
    is_known: bool
    """Whether a healthy run on the same rows is."""


def outcome(case: Case, clinic: Clinic) -> Outcome:
    """Of the illness of a case."""
    sick = Patient.of(clinic.launch([case.overrides])[0])
    with get_console().capture():
        results = treated(sick, clinic, max_attempts=8), obedient(sick, clinic, times=4)
        well = [Patient.of(folder) for folder in clinic.launch(references(case))]
    before = sick.progress
    healthy = [patient.progress for patient in well if patient.is_healthy]
    reached = statistics.median(healthy or [1.0])
    known = f"healthy runs {reached:.2f}" if healthy else "no healthy run known"
    treatment, remedies = (
        ""
        if result.is_healthy
        and result.progress >= min(0.5, max(0, before) + 0.2, reached - standard_error(result))
        else f"{result.verdict} (progress {before:.2f} → {result.progress:.2f}, {known})"
        for result in results
    )
    is_rid = case.symptom not in {finding.symptom for finding in results[0].diagnosis.findings}
    return Outcome(treatment, remedies, is_rid, bool(healthy))


def standard_error(patient: Patient) -> float:
    """Of the difference of two losses on these validation rows, in progress.

    0.03 on 150 rows that weigh the same: of 940 pairs of runs the median is 0.018, the root mean square 0.038.
    """
    return 0.03 * math.sqrt(150 / patient.diagnosis.seen.telling_rows)


def obedient(patient: Patient, clinic: Clinic, times: int) -> Patient:
    """Do what the run's first remedy says, and so on with the run that this gives, until it is healthy."""
    for _ in range(times):
        told = [remedy for finding in patient.ailments for remedy in patient.diagnosis.against(finding)]
        overrides = next((remedy.overrides for remedy in told if remedy.overrides), None)
        if overrides is None:
            break
        changed = patient.recipe.changed(overrides, clinic.loader)
        patient = clinic.train([changed], [(*patient.changes, overrides)])[0]
    return patient


SPACES = (
    "data=circles",
    "data=spirals",
    "data=breast_cancer",
    "data.n_classes=3 data.n_informative=4",
    "data=hastie",
)
SEARCHED = [
    "sweep=search", "sweep.sampler=random", "sweep.trials=120", "sweep.at_once=120", "trainer.max_epochs=50",
    "optimizer.lr=tag(log,interval(0.0001,30))", "model.init_scale=tag(log,interval(0.1,30))",
    "model.activation=sigmoid,tanh,relu", "model.hidden=[8],[8,8],[8,8,8,8]",
]  # fmt: skip


def stop_sick(repeats: int) -> None:
    """Which part of a random sweep's epochs `sweep.stop_sick=true` saves, and whether the best trial is the same.

    That is the one with the lowest validation loss, as in the leaderboard.
    """
    table = Table(
        "space, seed", "trials", "epochs", "with stop_sick", "saved",
        "best trial", "its val/loss", "with stop_sick", "its val/loss",
    )  # fmt: skip
    saved, same = [], []
    for space in SPACES:
        for seed in range(2000, 2000 + repeats):
            found = [
                searched([*SEARCHED, *space.split(), f"sweep.seed={seed}", *options])
                for options in ([], ["sweep.stop_sick=true"])
            ]
            (every, best, _), (some, kept, _) = found
            saved.append(1 - some / every)
            same.append(kept == best)
            trials = [text for _, trial, loss in found for text in (str(trial), f"{loss:.5f}")]
            table.add_row(f"{space}, {seed}", "120", str(every), str(some), f"{saved[-1]:.0%}", *trials)
    report.show(table)
    report.note(
        f"Saved in the mean: {statistics.mean(saved):.0%}. Of {len(same)} sweeps {sum(same)} have the same best trial."
    )


def searched(options: list[str]) -> tuple[int, int, float]:
    """The epochs of all trials of a sweep, its best trial and the validation loss of that."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, str(ROOT / "train.py"), "-m", *options, f"hydra.sweep.dir={folder}/sweep"]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
        if done.returncode not in (0, 3):  # 3: some trials failed
            raise SystemExit(done.stderr)
        board = Leaderboard.read(Path(folder, "sweep"))
    best = board.best[0]
    return sum(row["epochs"] for row in board.rows), best["trial"], best[board.metric]


def quality(repeats: int) -> None:
    """The experiments on real data beside their peers, on the same rows: means over so many seeds.

    A peer's settings are chosen by the validation rows of seed 0, as ours were. The data is brought by `get_data.py all`.
    """
    names = (
        "use",
        "test metric",
        "Backlight",
        "fit, s",
        "peer",
        "its metric",
        "its fit, s",
        "asked",
        "reached",
    )
    table = Table(*names)
    for name, use in uses().items():
        if not is_there(use):
            raise SystemExit(f"{name}: its data is absent; python scripts/get_data.py all")
        mine, peers = [], {peer: [] for peer in use.peers}  # type: tuple[list[Score], dict[str, list[Score]]]
        chosen: dict[str, str] = {}
        for seed in range(repeats):
            score, data = trained(use, seed)
            mine.append(score)
            for peer, trials in use.peers.items():
                if seed == 0:
                    chosen[peer] = tuned(trials, data, use.metric)
                    report.note(f"{name}: {peer}, the best of {len(trials)}: {chosen[peer]}")
                peers[peer].append(fitted(trials[chosen[peer]], data, use.metric, seed))
        value = statistics.mean(score.value for score in mine)
        best = max((statistics.mean(s.value for s in scores) for scores in peers.values()), default=0.0)
        asked = max(use.least, best + use.margin)
        rows = [
            [peer, mean_and_error(scores), f"{seconds(scores):.1f}"] for peer, scores in peers.items()
        ] or [["", "", ""]]
        for number, row in enumerate(rows):
            first = number == 0
            table.add_row(
                *([name, use.metric, mean_and_error(mine), f"{seconds(mine):.1f}"] if first else [""] * 4),
                *row,
                *([f"{asked:.4f}", "yes" if value >= asked else "no"] if first else []),
            )
    report.show(table)


def mean_and_error(scores: Sequence[Score]) -> str:
    """The mean over seeds and its standard error."""
    values = [score.value for score in scores]
    error = statistics.stdev(values) / len(values) ** 0.5 if len(values) > 1 else 0.0
    return f"{statistics.mean(values):.4f} ± {error:.4f}"


def seconds(scores: Sequence[Score]) -> float:
    """Of the median fit."""
    return statistics.median(score.seconds for score in scores)


INCURABLE = ("leakage", "label_noise", "base_rate")  # the last is planted as labels drawn at random
BENCHMARKS = {
    "diagnosis": diagnosis,
    "gpu": gpu,
    "growth": growth,
    "instrument": instrument,
    "quality": quality,
    "run": run,
    "stop_sick": stop_sick,
    "sweep": sweep,
    "treatment": treatment,
}


def main() -> None:
    """Run the benchmark that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("name", choices=BENCHMARKS)
    parser.add_argument("--repeats", type=int, default=5, help="of each measurement (default 5)")
    arguments = parser.parse_args()
    quiet()
    BENCHMARKS[arguments.name](arguments.repeats)
    command = f"benchmark.py {arguments.name} --repeats {arguments.repeats}"
    report.write(ROOT / "BENCHMARKS.md", arguments.name, command)


if __name__ == "__main__":
    main()
