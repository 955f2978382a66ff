"""Launches the trials of a sweep, here or on a cluster, and compares what came of them."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from hydra.core.config_loader import ConfigLoader
from hydra.core.utils import JobReturn, JobStatus
from omegaconf import DictConfig
from rich import get_console

from backlight.config import build
from backlight.processes import leave_the_terminal_to_us
from backlight.run_folder import RunFolder
from backlight.sweep.compose import Composer, Trial, swept
from backlight.sweep.leaderboard import Leaderboard
from backlight.sweep.report import Report
from backlight.sweep.settings import Settings
from backlight.sweep.trials import Alone, Summaries, TrialRunner


class Sweep:
    """The trials of one sweep folder.

    Args:
        loader: Hydra's.
        master: config of the sweep.
        alone: trains one trial as a single run, given its overrides and number.
        failed: is called if any trial failed.
        smallest: population; see `TrialRunner`.
    """

    def __init__(
        self,
        loader: ConfigLoader,
        master: DictConfig,
        alone: Alone,
        failed: Callable[[], None],
        smallest: int = 2,
    ) -> None:
        self._composer = Composer(loader, master)
        self._path = Path(master.hydra.sweep.dir)
        self._alone = alone
        self._failed = failed
        self._smallest = smallest
        self._trials: list[Trial] = []
        self._runner: TrialRunner | None = None
        self._board: Leaderboard | None = None

    def launch(self, overrides: Sequence[Sequence[str]], first_number: int) -> list[JobReturn]:
        """Run these trials; returns the metrics of each, in their order.

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
            results = self._run(trials, settings)
        except (KeyboardInterrupt, SystemExit):  # the latter of a trial that is trained alone
            _say(f"interrupted; to go on: the same command with sweep.resume={RunFolder(self._path).shown}")
            raise
        self._board = Leaderboard.of(self._path, self._trials, results, settings)
        self._board.write()
        if any(result["status"] == "failed" for result in results.values()):
            self._failed()
        return [_returned(trial, results[trial.number]) for trial in trials]

    def finish(self, importance: dict[str, float] | None = None) -> None:
        """Write the report, and print the best trials.

        Args:
            importance: of each key, where the sweep knows it.
        """
        if self._board is not None:
            report = Report(self._board, importance)
            report.write()
            self._board.show(report.importance)

    def _run(self, trials: Sequence[Trial], settings: Settings) -> Summaries:
        if self._runner is None:
            self._runner = TrialRunner(self._path, settings, self._alone, self._smallest)
        missing = self._runner.missing(trials)
        if len(missing) < len(trials):
            _say(f"{len(trials) - len(missing)} of {len(trials)} trials are there already")
        keys = swept(self._trials)
        if settings.cluster is not None and missing:
            from backlight.sweep.cluster import train_on_cluster

            found = train_on_cluster(missing, keys, self._path, settings, self._alone)
            self._runner.results |= found
            # Again from the files: a worker may have been lost in the midst of its share.
            missing = self._runner.missing([trial for trial in missing if trial.number not in found])
        self._runner.run(missing, keys)
        return self._runner.results


def _returned(trial: Trial, result: dict[str, Any]) -> JobReturn:
    returned = JobReturn(overrides=trial.overrides, status=JobStatus.COMPLETED)
    returned.return_value = result["metrics"]
    return returned


def _say(line: str) -> None:
    get_console().print(line, soft_wrap=True, highlight=False, markup=False)
