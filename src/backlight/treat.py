"""Entry point: try remedies on a sick run, and keep what helps."""

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from hydra._internal.callbacks import Callbacks
from hydra._internal.core_plugins.basic_launcher import BasicLauncher
from hydra.core.global_hydra import GlobalHydra
from hydra.types import HydraContext, RunMode
from omegaconf import DictConfig
from rich import get_console

from backlight import train
from backlight.config import build, plain
from backlight.diagnose import Diagnosis, diagnosis_of
from backlight.diagnosis.finding import Finding
from backlight.diagnosis.knowledge import has_rare_class
from backlight.diagnosis.objective_remedies import UNTIL_IT_RISES
from backlight.errors import BacklightError
from backlight.examination import best_epoch
from backlight.ranges import Count
from backlight.recipe import Recipe, together
from backlight.run_folder import RunFolder
from backlight.sweep.launch import Sweep

log = logging.getLogger(__name__)

AT_ONCE = 4  # remedies of one round: the likeliest come first
LONGER = 4  # times as many epochs, for what is healthy
HELPS = 0.01  # by how much, relative, what is missing to perfect predictions must be less
OF_THE_DATA = ("leakage", "label_noise")  # only other rows, or other labels, are a cure
SEVERITY = {"fatal": 3, "serious": 2, "warning": 1}


@dataclass(frozen=True)
class Patient:
    """A run, what ails it and how well it does."""

    folder: RunFolder
    recipe: Recipe
    diagnosis: Diagnosis
    changes: tuple[str, ...] = ()
    """What was changed in the run that is treated, one after the other."""

    @classmethod
    def of(cls, folder: RunFolder, recipe: Recipe | None = None, changes: tuple[str, ...] = ()) -> "Patient":
        """The run of this folder.

        Raises:
            BacklightError: it cannot be read.
        """
        return cls(folder, recipe or Recipe.of(folder), diagnosis_of(folder), changes)

    @property
    def ailments(self) -> list[Finding]:
        """What a setting might cure; the first is the main one."""
        return [finding for finding in self.diagnosis.findings if finding.symptom not in OF_THE_DATA]

    @property
    def is_healthy(self) -> bool:
        """Whether nothing is left to cure."""
        return not self.ailments

    @property
    def holds_out(self) -> bool:
        """Whether validation rows say what it is worth."""
        return len(self.diagnosis.seen.loss("val")) > 0

    @property
    def loss(self) -> float:
        """Of `best.ckpt`, on the validation rows or, where there are none, the training rows; infinite if the run failed."""
        seen = self.diagnosis.seen
        if seen.error is not None or not len(seen.loss("train")):
            return math.inf
        return float(seen.series["val/loss" if self.holds_out else "train/loss"][best_epoch(seen.series)])

    @property
    def progress(self) -> float:
        """How far `best.ckpt` came from the best constant prediction (0) to perfect ones (1)."""
        base, floor = self.diagnosis.seen.base_loss, self.diagnosis.seen.floor_loss
        return (base - self.loss) / (base - floor)

    @property
    def missing(self) -> float:
        """What `best.ckpt` lacks to perfect predictions, where knowing the class shares only lacks 1.

        So losses that are weighted or smoothed compare. Where a class is rare little is missing to who takes no row for it,
        and a few rows decide the loss that is weighted: there it is what lacks in the share found of each class.
        """
        seen = self.diagnosis.seen
        balanced = seen.series.get("val/balanced_accuracy")
        if not (
            math.isfinite(self.loss) and self.holds_out and balanced is not None and has_rare_class(seen)
        ):
            return 1 - self.progress
        return float(1 - balanced[best_epoch(seen.series)]) / (1 - 1 / len(seen.data.class_shares))

    @property
    def illness(self) -> tuple[int, float]:
        """What to bring down: how bad the main symptom is, and among equals what is missing."""
        return SEVERITY[self.ailments[0].severity] if self.ailments else 0, self.missing

    @property
    def verdict(self) -> str:
        names = [finding.symptom.replace("_", " ") for finding in self.diagnosis.findings]
        return ", ".join(names) or "healthy"

    def knows_more_than(self, other: "Patient") -> bool:
        """By more than chance."""
        return self.missing < other.missing * (1 - HELPS)

    def is_better_than(self, other: "Patient") -> bool:
        """Less ill, or equally ill and knowing more."""
        (now, _), (before, _) = self.illness, other.illness
        return now < before or (now == before and self.knows_more_than(other))

    def remedies(self) -> list[str]:
        """Overrides that may help, those against the main finding first; for one that was cured, more epochs."""
        seen = self.diagnosis.seen
        if self.is_healthy:
            if not self.changes or any("callbacks=early_stopping" in change for change in self.changes):
                return []
            return [f"{UNTIL_IT_RISES} trainer.max_epochs={LONGER * seen.settings.max_epochs}"]
        # A recipe can be said anew.
        anything = replace(seen, settings=replace(seen.settings, switchable=True))
        diagnosis = Diagnosis(self.ailments, anything)
        found = [remedy.overrides for finding in self.ailments for remedy in diagnosis.against(finding)]
        return list(dict.fromkeys(overrides for overrides in found if overrides))


def run(config: DictConfig) -> Patient:
    """Treat the run that `conf/treat.yaml` names.

    Raises:
        BacklightError: the user can mend it.
    """
    return build(treat, plain(config), "")


def treat(*, run: str, folder: str, max_attempts: Count) -> Patient:
    """Train a run again with what may help, until it is healthy or nothing is left to try; returns the best.

    Args:
        run: its run folder.
        folder: for the attempts, each a run folder.
        max_attempts: rounds, in each of which the likeliest remedies are tried at once.

    Raises:
        BacklightError: the run cannot be read.
    """
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    return treated(Patient.of(RunFolder(run)), Clinic(Path(folder)), max_attempts)


def treated(sick: Patient, clinic: "Clinic", max_attempts: int) -> Patient:
    """Treat a run, and print how it goes; returns the best of all.

    In each round the likeliest remedies are tried on the best run that has any left: what helps is kept, and where
    nothing does, the next best run goes on. What is healthy then is trained until its validation loss rises, and who
    knows no less than the healthy one is treated on.
    """
    best, attempts = sick, 0
    patients = [sick]
    known = [sick.recipe.overrides]
    _say(f"{'run':13}{sick.folder.shown}", f"{'before':13}{_state(sick)}")
    while attempts < max_attempts and not (best.is_healthy and not best.holds_out):
        for patient in sorted(patients, key=lambda patient: patient.illness):
            if best.is_healthy and patient is not best and best.knows_more_than(patient):
                continue
            recipes = {
                overrides: recipe
                for overrides in patient.remedies()
                if (recipe := patient.recipe.changed(overrides, clinic.loader)).overrides not in known
            }
            if recipes:
                break
        else:
            break
        attempts += 1
        likeliest = list(recipes)[:AT_ONCE]
        known += [recipes[overrides].overrides for overrides in likeliest]
        if patient is not best:
            _say(f"{'back to':13}{_net(patient.changes) or 'the run itself'}")
        tried = clinic.train(
            [recipes[overrides] for overrides in likeliest],
            [(*patient.changes, overrides) for overrides in likeliest],
        )
        patients += tried
        best = _best_of(best, tried)
    _say(
        f"{'outcome':13}{_outcome(sick, best)}, in {attempts} of {max_attempts} attempts and {len(patients) - 1} trainings",
        f"{'before':13}{_state(sick)}",
    )
    if best is not sick:
        _say(
            f"{'after':13}{_state(best)}",
            f"{'changed':13}{_net(best.changes)}",
            f"{'run folder':13}{best.folder.shown}",
            f"{'command':13}{best.recipe.command}",
        )
    return best


def _net(changes: Sequence[str]) -> str:
    return " ".join(together(" ".join(changes).split()))


def _outcome(sick: Patient, best: Patient) -> str:
    if best.is_healthy:
        return "what is left lies in the data" if best.diagnosis.findings else "healthy"
    return "no remedy helped" if best is sick else "better, not healthy"


def _best_of(best: Patient, tried: Sequence[Patient]) -> Patient:
    """The best so far or, if that is better, of those just tried; prints which."""
    for each in tried:
        _say(f"{'tried':13}{each.changes[-1]}", f"{'':13}{_state(each)}")
    first = min(tried, key=lambda patient: patient.illness)
    if not first.is_better_than(best):
        return best
    _say(f"{'kept':13}{first.changes[-1]}")
    return first


class Clinic:
    """Trains runs, those together that can be.

    Args:
        path: below which each round has a sweep folder.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._rounds = 0
        self.loader = GlobalHydra.instance().config_loader()

    def train(self, recipes: Sequence[Recipe], changes: Sequence[tuple[str, ...]]) -> list[Patient]:
        """Train these recipes, each with what was changed in it, and look at what came of them."""
        folders = self.launch([recipe.overrides for recipe in recipes])
        return [Patient.of(*each) for each in zip(folders, recipes, changes, strict=True)]

    def launch(self, overrides: Sequence[Sequence[str]]) -> list[RunFolder]:
        """Train runs with these overrides; returns their folders."""
        folder = self._path / str(self._rounds)
        self._rounds += 1
        master = self.loader.load_configuration("train", [f"hydra.sweep.dir={folder}"], RunMode.MULTIRUN)
        basic = BasicLauncher()
        context = HydraContext(config_loader=self.loader, callbacks=Callbacks())
        basic.setup(hydra_context=context, task_function=_trained, config=master)
        sweep = Sweep(
            self.loader,
            master,
            alone=lambda overrides, number: basic.launch([overrides], number),
            failed=lambda: None,
            smallest=1,
        )
        sweep.launch(overrides, 0)
        return [RunFolder(folder / str(number)) for number in range(len(overrides))]


def _trained(config: DictConfig) -> Any:
    try:
        return train.run(config)
    except BacklightError as error:  # it is recorded
        log.info(str(error))
        return None


def _state(patient: Patient) -> str:
    seen = patient.diagnosis.seen
    at_best = f" ({seen.floor_loss:.4g} at best)" if seen.floor_loss else ""  # of soft targets
    loss = "failed" if math.isinf(patient.loss) else f"loss {patient.loss:.4g}{at_best}"
    told = [patient.verdict, loss]
    for name in ["accuracy", *(["balanced_accuracy"] if has_rare_class(seen) else [])]:
        values = seen.series.get(f"val/{name}")
        if patient.holds_out and values is not None:
            told.append(f"{name.replace('_', ' ')} {values[best_epoch(seen.series)]:.4g}")
    return ", ".join(told)


def _say(*lines: str) -> None:
    get_console().print("\n".join(lines), soft_wrap=True, highlight=False, markup=False)
