"""Trains the trials of a sweep: together where they can be, and each leaves a run folder."""

import json
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from hydra.core.config_loader import ConfigLoader
from hydra.core.utils import JobReturn, JobStatus
from omegaconf import DictConfig
from rich import get_console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from backlight.accelerator import device_of, free_bytes
from backlight.config import build
from backlight.data.module import EVALUATION_ROWS, PARTS
from backlight.errors import BacklightError
from backlight.examination import read_series
from backlight.population.halving import SuccessiveHalving
from backlight.population.training import Member, Population
from backlight.processes import leave_the_terminal_to_us
from backlight.run_folder import RunFolder
from backlight.sweep.compose import Composer, Trial, swept
from backlight.sweep.leaderboard import Leaderboard
from backlight.sweep.members import MemberBuilder
from backlight.sweep.record import Recorder
from backlight.sweep.report import Report
from backlight.sweep.settings import Settings

log = logging.getLogger(__name__)

Kin = list[tuple[Trial, Member]]

MOST_MEMBERS = 1024  # beyond which nothing is gained
MEMORY_SHARE = 0.5
"""Of the memory that is free: the rest is for what is not counted here."""


class Sweep:
    """The trials of one sweep folder.

    Args:
        loader: Hydra's.
        master: config of the sweep.
        alone: trains one trial as a single run, given its overrides and number.
        failed: is called if any trial failed.
    """

    def __init__(
        self,
        loader: ConfigLoader,
        master: DictConfig,
        alone: Callable[[Sequence[str], int], JobReturn],
        failed: Callable[[], None],
    ) -> None:
        self._composer = Composer(loader, master)
        self._path = Path(master.hydra.sweep.dir)
        self._alone = alone
        self._failed = failed
        self._trials: list[Trial] = []
        self._results: dict[int, dict[str, Any]] = {}
        self._board: Leaderboard | None = None

    def launch(self, overrides: Sequence[Sequence[str]], first_number: int) -> list[JobReturn]:
        """Run these trials; returns the final metrics of each, in their order.

        Raises:
            BacklightError: the settings of the sweep itself are wrong, or its folder holds another one.
            HydraException, OmegaConfBaseException: a trial cannot be composed.
        """
        leave_the_terminal_to_us()
        trials = list(self._composer.trials(overrides, first_number))
        settings = build(Settings, trials[0].sweep, "sweep")
        self._trials += trials
        self._path.mkdir(parents=True, exist_ok=True)
        try:
            self._run(trials, settings)
        except KeyboardInterrupt:
            _say(f"interrupted; to go on: the same command with sweep.resume={RunFolder(self._path).shown}")
            raise
        self._board = Leaderboard.of(self._path, self._trials, self._results, settings)
        self._board.write()
        if any(result["status"] == "failed" for result in self._results.values()):
            self._failed()
        return [_returned(trial, self._results[trial.number]) for trial in trials]

    def finish(self, importance: dict[str, float] | None = None) -> None:
        """Write the report, and print the best trials.

        Args:
            importance: of each key, where the sweep knows it.
        """
        if self._board is not None:
            report = Report(self._board, importance)
            report.write()
            self._board.show(report.importance)

    def _run(self, trials: Sequence[Trial], settings: Settings) -> None:
        missing = [trial for trial in trials if not self._is_done(trial)]
        if len(missing) < len(trials):
            _say(f"{len(trials) - len(missing)} of {len(trials)} trials are there already")
        begun = [trial for trial in missing if self._folder(trial).checkpoint("last").exists()]
        fresh = [trial for trial in missing if trial not in begun]
        families, lonely = self._plan(fresh) if settings.population else ([], fresh)
        halving = self._halving(settings)
        for kin in families:
            lonely += self._train(kin, settings.max_members, halving)
        for trial in sorted([*begun, *lonely], key=lambda trial: trial.number):
            _say(f"trial {trial.number}  {' '.join(trial.overrides)}")
            folder = self._folder(trial)
            if trial not in begun and folder.config.exists():
                folder.discard()  # what a population left that could not be trained
            self._alone([f"resume={folder.path}"] if trial in begun else trial.overrides, trial.number)
            self._results[trial.number] = _read(folder)

    def _is_done(self, trial: Trial) -> bool:
        """Whether the trial came to its end in an earlier start of this sweep.

        What it had left behind without a checkpoint to go on from is deleted.

        Raises:
            BacklightError: the folder holds another trial.
        """
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
            self._results[trial.number] = summary
            return True
        if not folder.checkpoint("last").exists():
            folder.discard()
        return False

    def _halving(self, settings: Settings) -> SuccessiveHalving | None:
        if settings.factor is None:
            return None
        halving = SuccessiveHalving(
            settings.metric,
            improves_downwards=settings.improves_downwards,
            factor=settings.factor,
            min_epochs=settings.min_epochs,
        )
        for trial in self._trials:
            if trial.number in self._results:
                halving.note(read_series(self._folder(trial).metrics))
        return halving

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
        lonely += [kin[0][0] for kin in families.values() if len(kin) == 1]
        return [kin for kin in families.values() if len(kin) > 1], lonely

    def _train(self, kin: Kin, places: int | None, halving: SuccessiveHalving | None) -> list[Trial]:
        """Train kin together, and write the folder of each when it has ended.

        Args:
            kin: trials and what they train.
            places: how many are in training at once; None is what memory allows.
            halving: ends those that lag.

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
            recorder = Recorder(self._path, first.node, device, swept(self._trials), self._take)
            population = Population(device, places or most_members(some, device), halving)
            with _progress(f"{len(kin)} trials", sum(member.max_epochs for _, member in kin)) as advance:

                def after_epoch(members: int) -> None:
                    advance(members)
                    recorder.update(with_trials(population.members))

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
        return [trial for trial, _ in kin if trial.number not in self._results]

    def _take(self, trial: Trial, summary: dict[str, Any]) -> None:
        """Take the summary of a trial that has ended."""
        self._results[trial.number] = summary
        if summary["error"]:
            log.error("trial %d: %s", trial.number, summary["error"])

    def _folder(self, trial: Trial) -> RunFolder:
        return RunFolder(self._path / trial.subfolder)


def most_members(member: Member, device: torch.device) -> int:
    """How many like this one fit into the memory that is free."""
    weights = sum(parameter.numel() for parameter in member.model.parameters())
    neurons = sum(layer.out_features for layer in member.model.linear_layers)
    rows = {part: len(member.data.part(part)[0]) for part in PARTS}
    held_out = max(rows["val"], rows["test"])
    features, outputs = member.data.num_features, member.data.num_outputs
    numbers = (
        12 * weights  # and gradients, what the optimizer keeps, copies of the best and the last epoch
        + 4 * member.data.rows_per_step * (features + neurons)
        + 8 * rows["train"] * outputs
        + min(EVALUATION_ROWS, held_out) * (features + neurons)
        + 16 * held_out * outputs
    )
    return max(2, min(MOST_MEMBERS, int(MEMORY_SHARE * free_bytes(device) / (4 * numbers))))


def _of_the_task(overrides: Sequence[str]) -> list[str]:
    """Without those of how the sweep goes about it, which may change from start to start."""
    return [override for override in overrides if not override.startswith(("sweep=", "sweep."))]


def _device(trial: Trial) -> torch.device:
    return device_of(trial.node["trainer"].get("accelerator", "auto"), "trainer.accelerator")


@contextmanager
def _progress(what: str, epochs: int) -> Iterator[Callable[[int], None]]:
    """A bar over all epochs of all members, in a terminal; gives what moves it on."""
    console = get_console()
    bar = Progress(
        TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:>3.0f} %"),
        TimeRemainingColumn(compact=True), console=console, transient=True, disable=not console.is_terminal,
    )  # fmt: skip
    with bar:
        task = bar.add_task(what, total=epochs)
        yield lambda members: bar.advance(task, members)


def _read(folder: RunFolder) -> dict[str, Any]:
    """The summary of a trial, or that it has none."""
    unfinished = {"status": "unfinished", "metrics": {}, "diagnosis": []}
    try:
        summary = json.loads(folder.summary.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return unfinished
    return summary if isinstance(summary, dict) and unfinished.keys() <= summary.keys() else unfinished


def _returned(trial: Trial, result: dict[str, Any]) -> JobReturn:
    returned = JobReturn(overrides=trial.overrides, status=JobStatus.COMPLETED)
    returned.return_value = result["metrics"]
    return returned


def _say(line: str) -> None:
    get_console().print(line, soft_wrap=True, highlight=False, markup=False)
