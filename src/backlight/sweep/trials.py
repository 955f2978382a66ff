"""Trains trials of a sweep in this process: together where they can be, and each leaves a run folder."""

import json
import logging
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

import torch
from rich import get_console

from backlight.accelerator import Accelerator, device_of, free_bytes
from backlight.data.batches import EVALUATION_ROWS
from backlight.data.source import PARTS
from backlight.errors import BacklightError
from backlight.examination import read_series
from backlight.population.halving import SuccessiveHalving
from backlight.population.member import Member
from backlight.population.sick import StopSick
from backlight.population.training import Judge, Population
from backlight.processes import MAY_FORK, forked_map, is_abandoned
from backlight.run_folder import RunFolder
from backlight.sweep.compose import Trial
from backlight.sweep.members import MemberBuilder
from backlight.sweep.progress import SharedProgress, progress
from backlight.sweep.record import Recorder
from backlight.sweep.settings import Settings

log = logging.getLogger(__name__)

Kin = list[tuple[Trial, Member]]
Alone = Callable[[Sequence[str], int], object]
Summaries = dict[int, dict[str, Any]]

MOST_MEMBERS = 1024  # beyond which nothing is gained
MEMORY_SHARE = 0.5
"""Of the memory that is free: the rest is for what is not counted here."""
WORTH_A_PROCESS = 64  # trials


class TrialRunner:
    """Trains trials, or takes what is there of them, and keeps their summaries.

    Args:
        path: the sweep folder.
        settings: of the sweep.
        alone: trains one trial as a single run, given its overrides and number.
        smallest: population: fewer trials of a kind are trained alone, and show more in TensorBoard.
    """

    def __init__(self, path: Path, settings: Settings, alone: Alone, smallest: int = 2) -> None:
        self._smallest = smallest
        self._path = path
        self._settings = settings
        self._alone = alone
        self.results: Summaries = {}
        """By number, the summaries of those that have ended."""
        self._memory_share = MEMORY_SHARE
        self._judges: list[Judge] = [StopSick()] if settings.stop_sick else []
        self._halving: SuccessiveHalving | None = None
        if settings.factor is not None:
            self._halving = SuccessiveHalving(
                settings.metric,
                improves_downwards=settings.improves_downwards,
                factor=settings.factor,
                min_epochs=settings.min_epochs,
            )
            self._judges.append(self._halving)

    def missing(self, trials: Sequence[Trial]) -> list[Trial]:
        """Those that did not come to their end in an earlier start of this sweep.

        Raises:
            BacklightError: the folder of one holds another trial.
        """
        return [trial for trial in trials if not self._is_done(trial)]

    def run(self, trials: Sequence[Trial], swept: Sequence[str]) -> None:
        """Train these, which are missing.

        Args:
            trials: to train.
            swept: keys that the sweep gives different values.
        """
        if self._settings.population:
            trials = self._train_by_processes(trials, swept)
        begun, fresh = self._by_whether_begun(trials)
        families, lonely = self._plan(fresh) if self._settings.population else ([], fresh)
        for kin in families:
            with progress(f"{len(kin)} trials", sum(member.max_epochs for _, member in kin)) as advance:
                lonely += self._train(kin, swept, advance)
        for trial in sorted([*begun, *lonely], key=lambda trial: trial.number):
            get_console().print(
                f"trial {trial.number}  {' '.join(trial.overrides)}",
                soft_wrap=True,
                highlight=False,
                markup=False,
            )
            folder = self._folder(trial)
            if trial not in begun and folder.config.exists():
                folder.discard()  # what a population left that could not be trained
            going_on = [f"resume={folder.path}", f"sweep.stop_sick={self._settings.stop_sick}"]
            self._alone(going_on if trial in begun else trial.overrides, trial.number)
            self.results[trial.number] = _read(folder)

    def _by_whether_begun(self, trials: Sequence[Trial]) -> tuple[list[Trial], list[Trial]]:
        """Those with a checkpoint to go on from, and those without."""
        begun = [trial for trial in trials if self._folder(trial).checkpoint("last").exists()]
        return begun, [trial for trial in trials if trial not in begun]

    def _train_by_processes(self, trials: Sequence[Trial], swept: Sequence[str]) -> Sequence[Trial]:
        """Where they are many, train what can be trained together in several processes; returns the rest."""
        _, fresh = self._by_whether_begun(trials)
        processes = min(torch.get_num_threads(), len(fresh) // WORTH_A_PROCESS)
        # Successive halving compares all; and a GPU has one queue.
        is_divisible = self._halving is None and _all_on_cpu(fresh)
        if processes < 2 or not MAY_FORK or not is_divisible:
            return trials
        fresh.sort(key=_rows)  # each set of rows is then made, looked at and shuffled by one of them
        size = -(-len(fresh) // processes)
        shares = [fresh[start : start + size] for start in range(0, len(fresh), size)]
        self._memory_share = MEMORY_SHARE / processes
        bar = SharedProgress(f"{len(fresh)} trials", sum(map(_max_epochs, fresh)))

        def train(share: Sequence[Trial]) -> Summaries:
            for kin in self._plan(share)[0]:
                self._train(kin, swept, bar.advance)
            return {
                trial.number: self.results[trial.number] for trial in share if trial.number in self.results
            }

        try:
            with bar:
                for summaries in forked_map(train, shares, 2, bar.show):
                    self.results |= summaries
        except BrokenProcessPool:
            log.warning("a process that trained trials was killed; what it has not finished is trained here")
            return self.missing(trials)
        finally:
            self._memory_share = MEMORY_SHARE
        return [trial for trial in trials if trial.number not in self.results]

    def _is_done(self, trial: Trial) -> bool:
        """Whether it is there; what it had left behind without a checkpoint to go on from is deleted."""
        folder = self._folder(trial)
        if not folder.config.exists():
            return False
        if _of_the_task(folder.read_overrides()) != _of_the_task(trial.overrides):
            raise BacklightError(
                f"{folder.path}: holds the trial {' '.join(folder.read_overrides())}, not "
                f"{' '.join(trial.overrides)}; give another hydra.sweep.dir, or the command of that sweep"
            )
        summary = _read(folder)
        if summary["status"] in ("completed", "failed"):
            self.results[trial.number] = summary
            if self._halving is not None:
                self._halving.note(read_series(folder.metrics))
            return True
        if not folder.checkpoint("last").exists():
            folder.discard()
        return False

    def _plan(self, trials: Sequence[Trial]) -> tuple[list[Kin], list[Trial]]:
        """Those that can be trained together, and the trials that are trained alone.

        What cannot be built is among these: what is wrong with it shows there, and is recorded.
        """
        builder = MemberBuilder()
        families: dict[tuple[object, ...], Kin] = {}
        lonely = []
        for trial in trials:
            try:
                member = builder.member(trial.node)
            except Exception:
                member = None
            if member is None:
                lonely.append(trial)
            else:
                families.setdefault(member.kinship, []).append((trial, member))
        small = [kin for kin in families.values() if len(kin) < self._smallest]
        lonely += [trial for kin in small for trial, _ in kin]
        return [kin for kin in families.values() if len(kin) >= self._smallest], lonely

    def _train(self, kin: Kin, swept: Sequence[str], advance: Callable[[int], None]) -> list[Trial]:
        """Train kin together, and write the folder of each when it has ended.

        Args:
            kin: trials and what they train.
            swept: keys that the sweep gives different values.
            advance: is told how many epochs were made, or will not be.

        Returns:
            Trials that could not be trained together, if any.
        """
        first, some = kin[0]
        device = _device(first)
        trials = {id(member): trial for trial, member in kin}
        recorder = None

        def with_trials(members: Iterable[Member]) -> Kin:
            return [(trials[id(member)], member) for member in members]

        try:
            recorder = Recorder(self._path, first.node, device, swept, self._take)
            population = Population(
                device,
                self._settings.max_members or most_members(some, device, self._memory_share),
                self._judges,
            )

            def after_epoch(members: int) -> None:
                if is_abandoned():
                    raise KeyboardInterrupt
                advance(members)
                recorder.update(lambda: with_trials(population.members()))

            for left in population.train([member for _, member in kin], after_epoch):
                advance(sum(member.max_epochs - len(member.history) for member in left))
                recorder.add(with_trials(left))
        except OSError:
            raise
        except Exception as error:  # as when memory does not suffice
            log.warning("%d trials are trained one by one, for together: %s", len(kin), error)
        finally:
            if recorder is not None:
                recorder.write_ended()
        return [trial for trial, _ in kin if trial.number not in self.results]

    def _take(self, trial: Trial, summary: dict[str, Any]) -> None:
        """Take the summary of a trial that has ended."""
        self.results[trial.number] = summary
        if summary["error"]:
            log.error("trial %d: %s", trial.number, summary["error"])

    def _folder(self, trial: Trial) -> RunFolder:
        return RunFolder(self._path / trial.subfolder)


def most_members(member: Member, device: torch.device, share: float = MEMORY_SHARE) -> int:
    """How many like this one fit into this share of the memory that is free."""
    weights = sum(parameter.numel() for parameter in member.model.parameters())
    neurons = sum(layer.out_features for layer in member.model.linear_layers)
    rows = {part: len(member.data.part(part)[0]) for part in PARTS}
    held_out = max(rows["val"], rows["test"])
    features, outputs = member.data.num_features, member.data.num_outputs
    numbers = (
        # and gradients, what the optimizer keeps, copies of the best and the last epoch, and of a step looked at
        15 * weights
        + 8 * member.data.rows_per_step * (features + neurons)  # a step, and a look at one
        + 8 * rows["train"] * outputs
        + min(EVALUATION_ROWS, held_out) * (features + neurons)
        + 16 * held_out * outputs
    )
    return max(2, min(MOST_MEMBERS, int(share * free_bytes(device) / (4 * numbers))))


def _of_the_task(overrides: Sequence[str]) -> list[str]:
    """Without those of how the sweep goes about it, which may change from start to start."""
    return [override for override in overrides if not override.startswith(("sweep=", "sweep."))]


def _rows(trial: Trial) -> str:
    """Of trials on the same rows the same."""
    return str([trial.node.get(key) for key in ("data", "seed")])


def _max_epochs(trial: Trial) -> int:
    epochs = trial.node["trainer"].get("max_epochs")
    return epochs if isinstance(epochs, int) else 0


def _device(trial: Trial) -> torch.device:
    return device_of(_accelerator(trial), "trainer.accelerator")


def _accelerator(trial: Trial) -> Accelerator:
    accelerator: Accelerator = trial.node["trainer"].get("accelerator", "auto")
    return accelerator


def _all_on_cpu(trials: Sequence[Trial]) -> bool:
    """Whether none of them may train on another device; one may name what is no accelerator."""
    others = {str(_accelerator(trial)) for trial in trials} - {"cpu"}
    return not others or device_of("auto", "").type == "cpu"


def _read(folder: RunFolder) -> dict[str, Any]:
    """The summary of a trial, or that it has none."""
    unfinished = {"status": "unfinished", "metrics": {}, "diagnosis": []}
    try:
        summary = json.loads(folder.summary.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return unfinished
    return summary if isinstance(summary, dict) and unfinished.keys() <= summary.keys() else unfinished
