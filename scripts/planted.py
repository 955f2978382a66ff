"""Runs whose illness is known, and healthy ones: what the diagnosis is calibrated on, and judged by.

There are two sets. They share no seed, and differ in data, depths, widths and rates: thresholds are chosen on
`calibration`, and what `scripts/benchmark.py diagnosis` reports is of `report`.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import chain, product
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pandas as pd
import torch
import yaml
from hydra import compose, initialize_config_dir
from sklearn.datasets import make_blobs, make_circles, make_classification, make_moons

from backlight.assemble import assemble
from backlight.command import config_folder
from backlight.config import plain, task_of
from backlight.diagnose import Diagnosis
from backlight.errors import BacklightError
from backlight.examination import Evidence
from backlight.population.training import Population
from backlight.run_folder import RunFolder
from backlight.sweep.members import MemberBuilder

BEHIND = 0.05
"""Of a training accuracy: a run so far below the median of the runs on such data has not learned what there is to learn."""
SILENT = ("progress", "backprop", "gradients", "evaluation_plots", "decision_boundary")
SETS = ("calibration", "report")


@dataclass(frozen=True)
class Case:
    """A run.

    Attributes:
        overrides: of the command line.
        symptom: planted; None is a healthy run.
        also: symptoms that may as well be called the main one.
    """

    overrides: list[str]
    symptom: str | None = None
    also: set[str] = field(default_factory=set)


ALSO = {
    "plateau": {"base_rate"},
    "dead_units": {"oscillating"},
    "diverging": {"saturated_neurons"},
    "oscillating": {"diverging"},
    "underfitting": {"plateau"},
}

SICK: dict[str, dict[str, list[str]]] = yaml.safe_load(Path(__file__).with_suffix(".yaml").read_text())

HEALTHY_DATA = (
    (("data=moons", 40), ("data=circles", 60), ("data=blobs", 30), ("data.n_samples=4000 data.class_sep=1.5", 10),
     ("data=iris", 40), ("data=wine", 20), ("data=breast_cancer", 6), ("data=digits", 12),
     ("data=hastie data.n_samples=12000", 8), ("data=xor", 60)),
    (("data.n_classes=3 data.n_samples=4000", 30), ("data=gaussian_quantiles data.n_samples=4000", 40),
     ("data=parity data.n_bits=3", 60)),
)  # fmt: skip
"""Rows and epochs, in groups: one that is added leaves the seeds of the others."""
HEALTHY_OPTIMIZER = {
    "sgd": "optimizer.lr=0.1",
    "adam": "optimizer.lr=0.01",
    "adamw": "optimizer.lr=0.01 optimizer.weight_decay=0.05",
    "rmsprop": "optimizer.lr=0.005",
    "lbfgs": "data.batch_size=full optimizer.max_iter=2",
}
LBFGS_EPOCHS = {
    "data=wine": 5, "data=breast_cancer": 5, "data=moons": 40, "data=xor": 40, "data=hastie data.n_samples=12000": 60,
    "data.n_classes=3 data.n_samples=4000": 60, "data=gaussian_quantiles data.n_samples=4000": 60,
    "data=parity data.n_bits=3": 40,
}  # fmt: skip
HEALTHY_NETWORK = {
    "calibration": (
        "model.hidden=[16]", "model.hidden=[32] model.activation=tanh",
        "model.hidden=[24,24] model.activation=relu", "model.hidden=[64] model.activation=gelu",
        "model.hidden=[20,20] model.activation=tanh", "model.hidden=[24]",
        "model.hidden=[12,12] model.activation=tanh", "model.hidden=[48] model.activation=relu",
        "model.hidden=[16,16,16] model.activation=gelu", "model.hidden=[256] model.activation=tanh",
    ),
    "report": (
        "model.hidden=[20]", "model.hidden=[40] model.activation=tanh model.init=xavier",
        "model.hidden=[32,16] model.activation=relu", "model.hidden=[128] model.activation=gelu",
        "model.hidden=[16,16,16] model.activation=tanh", "model.hidden=[12] model.activation=tanh",
    ),
}  # fmt: skip


REFERENCES = (
    "model.hidden=[8] model.activation=tanh optimizer=adam optimizer.lr=0.01",
    "model.hidden=[32] model.activation=tanh optimizer=adam optimizer.lr=0.01",
    "model.hidden=[64,64] model.activation=relu optimizer=adam optimizer.lr=0.003",
    "model.hidden=[32] model.activation=gelu optimizer=adamw optimizer.lr=0.01 optimizer.weight_decay=0.1",
)
"""What a healthy run on any of the rows may look like; one learns as long as its validation loss falls."""
UNTIL_IT_RISES = "trainer.max_epochs=100 callbacks=early_stopping"


def references(case: Case) -> list[list[str]]:
    """Healthy runs on the rows of a sick one, where there are any."""
    sick = ("data.batch_size", "data.standardize")
    rows = [
        override
        for override in case.overrides
        if override.lstrip("+").startswith(("data=", "data.", "seed=")) and not override.startswith(sick)
    ]
    weight = ["loss.class_weight=balanced"] if case.symptom == "class_imbalance" else []
    return [[*rows, *line.split(), *UNTIL_IT_RISES.split(), *weight] for line in REFERENCES]


def planted(which: str) -> Iterator[Case]:
    """The sick cases of a set."""
    number = SETS.index(which)
    for symptom, sets in SICK.items():
        for seed, line in enumerate(sets[which]):
            reference = "experiment=reference" in line
            yield Case(
                line.split() + ([] if reference else [f"seed={100 * number + seed}"]),
                symptom,
                ALSO.get(symptom, set()),
            )


def healthy(which: str) -> Iterator[Case]:
    """Runs that learn what there is to learn: every network on every data set, each time with another optimizer."""
    runs = chain.from_iterable(product(HEALTHY_NETWORK[which], group) for group in HEALTHY_DATA)
    for index, (network, (data, epochs)) in enumerate(runs):
        optimizer = list(HEALTHY_OPTIMIZER)[
            (index + index // 10 + SETS.index(which)) % len(HEALTHY_OPTIMIZER)
        ]
        if optimizer == "lbfgs":
            epochs = LBFGS_EPOCHS.get(data, 12)
        yield Case(
            [*data.split(), f"optimizer={optimizer}", *HEALTHY_OPTIMIZER[optimizer].split(), *network.split(),
             f"trainer.max_epochs={epochs}", f"seed={1000 * (SETS.index(which) + 1) + index}"],
        )  # fmt: skip


def healthy_runs(which: str) -> tuple[list[tuple[Case, Diagnosis]], list[Case]]:
    """The healthy runs of a set; and those that were not, whatever is said of them, and gave way to another seed."""
    runs = [(case, examined(case)) for case in healthy(which)]
    reached: dict[str, list[float]] = {}
    for case, diagnosis in runs:
        reached.setdefault(case.overrides[0], []).append(_accuracy(diagnosis))
    left_out = []
    for place, (case, diagnosis) in enumerate(runs):
        needed = median(reached[case.overrides[0]]) - BEHIND
        while _accuracy(diagnosis) < needed:
            left_out.append(case)
            *others, seed = case.overrides
            case = Case([*others, f"seed={int(seed.removeprefix('seed=')) + 10_000}"])
            diagnosis = examined(case)
        runs[place] = case, diagnosis
    return runs, left_out


def _accuracy(diagnosis: Diagnosis) -> float:
    return diagnosis.seen.last("train/accuracy")


def examined(case: Case) -> Diagnosis:
    """Train a case, in the shortest way, and examine it."""
    silent = [f"callbacks.{name}=null" for name in SILENT]
    with initialize_config_dir(str(config_folder()), version_base="1.3"):
        node = plain(task_of(compose("train", [*case.overrides, *silent])))
    member = MemberBuilder().member(node)
    if member is None:
        with TemporaryDirectory() as path:
            return _examined_alone(node, RunFolder(path))
    for _ in Population(torch.device("cpu"), 1).train([member]):
        pass
    names = member.history[0] if member.history else {}
    series = {name: np.array([epoch[name] for epoch in member.history], dtype=np.float64) for name in names}
    evidence = Evidence(case.overrides, series, member.model if member.history else None, member.error)
    return Diagnosis.of(node, evidence, member.data)


def _examined_alone(node: dict[str, Any], folder: RunFolder) -> Diagnosis:
    experiment = assemble(node, folder)
    error = None
    try:
        experiment.trainer.fit(experiment.classifier, experiment.data)
    except BacklightError as failure:
        error = str(failure)
    return Diagnosis.of(node, Evidence.of(folder, error), experiment.data)


def write_tables(folder: Path) -> None:
    """The files of the cases of leakage, where a fifth of the rows is there twice, and of numbers that lie far off."""
    for seed in range(6):
        for name, make in (("moons", make_moons), ("circles", make_circles)):
            x, y = make(400, noise=0.15 + 0.03 * seed, random_state=seed)
            _with_copies(pd.DataFrame(x).assign(y=y), folder / f"{name}{seed}.csv")
        x, y = make_blobs(500, 4, centers=3 + seed % 2, cluster_std=2.0, random_state=seed)
        _with_copies(pd.DataFrame(x).assign(y=y), folder / f"blobs{seed}.csv")
        x, y = make_classification(1200, 8, n_informative=6, n_redundant=0, class_sep=1.5, random_state=seed)
        # Heavy tails, or a number that stands for a missing one.
        is_missing = np.random.default_rng(seed).random(x.shape) < 0.05
        far = np.exp(3 * x) if seed % 2 == 0 else np.where(is_missing, -9999, x)
        pd.DataFrame(far).add_prefix("x").assign(y=y).to_csv(folder / f"heavy{seed}.csv", index=False)


def _with_copies(frame: pd.DataFrame, path: Path) -> None:
    frame.columns = frame.columns.astype(str)
    pd.concat([frame, frame.iloc[: len(frame) // 5]]).to_csv(path, index=False)
