"""Trains the trials of a sweep: together where they can be, and each leaves a run folder."""

import json
import logging
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

from hydra.core.config_loader import ConfigLoader
from hydra.core.utils import JobReturn, JobStatus
from omegaconf import DictConfig
from pydantic import Field
from rich import get_console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from backlight.accelerator import device_of
from backlight.config import build
from backlight.data.module import EVALUATION_ROWS
from backlight.errors import BacklightError
from backlight.population.training import PARTS, Member, Population
from backlight.processes import forked_map, leave_the_terminal_to_us
from backlight.run_folder import RunFolder
from backlight.sweep.compose import Composer, Trial, swept
from backlight.sweep.leaderboard import Leaderboard
from backlight.sweep.members import MemberBuilder
from backlight.sweep.record import Recorder, begin, write_failure

log = logging.getLogger(__name__)

Kin = list[tuple[Trial, Member]]

WORTH_FORKING = 64  # folders to write
MOST_MEMBERS = 1024  # beyond which nothing is gained
MEMORY_SHARE = 0.5
"""Of the memory that is free: the rest is for what is not counted here."""


def launch(
    loader: ConfigLoader,
    master: DictConfig,
    overrides: Sequence[Sequence[str]],
    first_number: int,
    *,
    alone: Callable[[Sequence[str], int], JobReturn],
    failed: Callable[[], None],
) -> list[JobReturn]:
    """Run trials; returns what came of each, in their order.

    Args:
        loader: Hydra's.
        master: config of the sweep.
        overrides: of each trial.
        first_number: of the first trial.
        alone: trains one trial as a single run.
        failed: is called if any trial failed.

    Raises:
        BacklightError: the settings of the sweep itself are wrong.
        HydraException, OmegaConfBaseException: a trial cannot be composed.
    """
    trials = list(Composer(loader, master).trials(overrides, first_number))
    settings = build(Settings, trials[0].sweep, "sweep")
    sweep = _Sweep(Path(master.hydra.sweep.dir), settings, alone, failed)
    try:
        return sweep.run(trials)
    except KeyboardInterrupt:
        get_console().print(
            f"interrupted; to go on: the same command with sweep.resume={sweep.shown}",
            soft_wrap=True,
            highlight=False,
        )
        raise


class Settings:
    """The node `sweep`.

    Args:
        population: train together what can be.
        max_members: trials trained together at most; None is what memory allows.
        metric: what the leaderboard is sorted by.
    """

    def __init__(
        self,
        *,
        population: bool = True,
        max_members: Annotated[int, Field(ge=2)] | None = None,
        metric: str = "val/loss",
    ) -> None:
        self.population = population
        self.max_members = max_members
        self.metric = metric


class _Sweep:
    """The trials of one folder."""

    def __init__(
        self,
        path: Path,
        settings: Settings,
        alone: Callable[[Sequence[str], int], JobReturn],
        failed: Callable[[], None],
    ) -> None:
        self.path = path
        self.settings = settings
        self.alone = alone
        self.failed = failed
        self.results: dict[int, dict[str, Any]] = {}

    @property
    def shown(self) -> str:
        return RunFolder(self.path).shown

    def run(self, trials: Sequence[Trial]) -> list[JobReturn]:
        leave_the_terminal_to_us()
        self.path.mkdir(parents=True, exist_ok=True)
        open_trials = [trial for trial in trials if not self._is_done(trial)]
        if len(open_trials) < len(trials):
            self._say(f"{len(trials) - len(open_trials)} of {len(trials)} trials are there already")
        kin, lonely = self._kin(open_trials)
        for members in kin:
            self._train(members, swept(trials))
        for trial in lonely:
            self._say(f"trial {trial.number}  {' '.join(trial.overrides)}")
            self.alone(trial.overrides, trial.number)
            self.results[trial.number] = _read(self._folder(trial))
        board = Leaderboard(self.path, trials, self.results, self.settings.metric)
        board.write()
        board.show()
        if any(result["status"] == "failed" for result in self.results.values()):
            self.failed()
        return [self._returned(trial) for trial in trials]

    def _is_done(self, trial: Trial) -> bool:
        """Whether the trial came to its end in an earlier start of this sweep; what it left half done goes.

        Raises:
            BacklightError: the folder holds another trial.
        """
        folder = self._folder(trial)
        if not folder.config.exists():
            return False
        if folder.read_overrides() != list(trial.overrides):
            raise BacklightError(
                f"{folder.path}: holds the trial {' '.join(folder.read_overrides())}, not "
                f"{' '.join(trial.overrides)}; give another hydra.sweep.dir, or the command of that sweep"
            )
        summary = _read(folder)
        if summary["status"] in ("completed", "failed"):
            self.results[trial.number] = summary
            return True
        folder.discard()
        return False

    def _kin(self, trials: Sequence[Trial]) -> tuple[list[Kin], list[Trial]]:
        """The populations, and the trials that are trained alone; those that cannot be built have failed."""
        if not self.settings.population:
            return [], list(trials)
        builder = MemberBuilder()
        families: dict[tuple[object, ...], Kin] = {}
        lonely = []
        for trial in trials:
            try:
                member = builder.member(trial.node)
            except BacklightError as error:
                self._fail(trial, error)
                continue
            if member is None:
                lonely.append(trial)
            else:
                families.setdefault(member.kinship, []).append((trial, member))
        lonely += [kin[0][0] for kin in families.values() if len(kin) == 1]
        populations = []
        for kin in families.values():
            if len(kin) > 1:
                at_once = self.settings.max_members or most_members(kin[0][1])
                populations += [kin[start : start + at_once] for start in range(0, len(kin), at_once)]
        return populations, sorted(lonely, key=lambda trial: trial.number)

    def _train(self, kin: Kin, keys: Sequence[str]) -> None:
        """Train a population, and write the folder of every member."""
        started = time.monotonic()
        trial, member = kin[0]
        device = device_of(trial.node["trainer"].get("accelerator", "auto"), "trainer.accelerator")
        recorder = Recorder(trial.node, device, keys)
        with _progress(f"{len(kin)} trials", len(kin) * member.max_epochs) as advance:
            Population([member for _, member in kin], device).train(advance)
        seconds = (time.monotonic() - started) / len(kin)

        def write(one: tuple[Trial, Member]) -> dict[str, Any]:
            trial, member = one
            folder = self._folder(trial)
            begin(folder, trial)
            return recorder.write(folder, trial, member, seconds)

        for (trial, member), summary in zip(kin, forked_map(write, kin, WORTH_FORKING), strict=True):
            self.results[trial.number] = summary
            if member.error:
                log.error("trial %d: %s", trial.number, member.error)

    def _fail(self, trial: Trial, error: BacklightError) -> None:
        self.results[trial.number] = write_failure(self._folder(trial), trial, str(error))
        log.error("trial %d: %s", trial.number, error)

    def _folder(self, trial: Trial) -> RunFolder:
        return RunFolder(self.path / trial.subfolder)

    def _returned(self, trial: Trial) -> JobReturn:
        summary = self.results[trial.number]
        returned = JobReturn(overrides=trial.overrides, cfg=None, status=JobStatus.COMPLETED)
        returned.return_value = summary["metrics"]
        return returned

    @staticmethod
    def _say(line: str) -> None:
        get_console().print(line, soft_wrap=True, highlight=False, markup=False)


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


def most_members(member: Member) -> int:
    """How many like this one fit into the memory that is free on this machine."""
    weights = sum(parameter.numel() for parameter in member.model.parameters())
    neurons = sum(layer.out_features for layer in member.model.linear_layers)
    rows = {part: len(member.data.part(part)[0]) for part in PARTS}
    features, outputs = member.data.num_features, member.data.num_outputs
    numbers = (
        12 * weights  # and gradients, what the optimizer keeps, copies of the best and the last epoch
        + 4 * member.data.rows_per_step * (features + neurons)
        + 8 * rows["train"] * outputs
        + min(EVALUATION_ROWS, max(rows["val"], rows["test"])) * (features + neurons)
        + 16 * max(rows["val"], rows["test"]) * outputs
    )
    free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return max(2, min(MOST_MEMBERS, int(MEMORY_SHARE * free / (4 * numbers))))


def _read(folder: RunFolder) -> dict[str, Any]:
    """The summary of a trial; of one without, that it has failed."""
    try:
        summary: dict[str, Any] = json.loads(folder.summary.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {"status": "unfinished", "metrics": {}, "diagnosis": []}
    return summary
