"""The trials of a sweep beside each other, the best first."""

import csv
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from rich import get_console
from rich.markup import escape
from rich.table import Table
from yaml import YAMLError

from backlight.config import build, plain
from backlight.data.source import PARTS
from backlight.errors import BacklightError
from backlight.files import whole_file
from backlight.run_folder import RunFolder
from backlight.sweep.compose import Trial, swept
from backlight.sweep.settings import Settings

SHOWN = 10
BEFORE, AFTER = ["trial", "status", "epochs", "max_epochs"], ["verdict", "run"]
"""Columns of `leaderboard.csv` that are neither keys nor metrics."""
Row = Mapping[str, Any]


@dataclass(frozen=True)
class Leaderboard:
    """All trials of a sweep.

    Attributes:
        folder: of the sweep.
        keys: that it gives different values.
        metrics: that are known of trials.
        rows: one per trial, in the order of the sweep: `trial`, `status`, how many `epochs` of `max_epochs` it
            made, the keys, the metrics, `verdict`, and its folder in that of the sweep as `run`.
        metric: trials are sorted by; where the wanted one is not known, the training loss.
        improves_downwards: whether less of it is better.
    """

    folder: Path
    keys: list[str]
    metrics: list[str]
    rows: list[Row]
    metric: str
    improves_downwards: bool

    @classmethod
    def of(
        cls,
        folder: Path,
        trials: Sequence[Trial],
        results: Mapping[int, Mapping[str, Any]],
        settings: Settings,
    ) -> "Leaderboard":
        """That of these trials.

        Args:
            folder: of the sweep.
            trials: all of them.
            results: by number, what `summary.json` holds.
            settings: name the metric to sort by.
        """
        keys = swept(trials)
        metrics = sorted({name for result in results.values() for name in result["metrics"]} - {"lr"})
        rows = [_row(trial, results[trial.number], keys) for trial in trials]
        return cls._sorted(folder, keys, metrics, rows, settings)

    @classmethod
    def read(cls, folder: Path) -> "Leaderboard":
        """That of a sweep folder.

        Raises:
            BacklightError: it holds no sweep that came to its end, or what it holds cannot be read.
        """
        path = folder / "leaderboard.csv"
        if not path.is_file():
            raise BacklightError(
                f"{folder}: no sweep that came to its end; it has no leaderboard.csv (sweep.resume goes on)"
            )
        try:
            with path.open(encoding="utf-8", newline="") as file:
                rows = list(csv.DictReader(file))
            columns = [column for column in rows[0] if column not in (*BEFORE, *AFTER)]
            metrics = [column for column in columns if column.startswith(tuple(f"{part}/" for part in PARTS))]
            keys = [column for column in columns if column not in metrics]
            settings = plain(OmegaConf.load(folder / "multirun.yaml").sweep)
            typed = [
                {
                    name: value if name in ("status", "verdict", "run") else _read(value)
                    for name, value in row.items()
                }
                for row in rows
            ]
        except (
            OSError, ValueError, TypeError, LookupError, AttributeError, csv.Error, YAMLError, OmegaConfBaseException,
        ) as error:  # fmt: skip
            raise BacklightError(
                f"{folder}: not the files of a sweep: {' '.join(str(error).split())}"
            ) from error
        return cls._sorted(folder, keys, metrics, typed, build(Settings, settings, "sweep"))

    @classmethod
    def _sorted(
        cls, folder: Path, keys: list[str], metrics: list[str], rows: Sequence[Row], settings: Settings
    ) -> "Leaderboard":
        is_known = settings.metric in metrics
        return cls(
            folder,
            keys,
            metrics,
            list(rows),
            settings.metric if is_known else "train/loss",
            settings.improves_downwards or not is_known,
        )

    @property
    def best(self) -> list[Row]:
        """Those that came to their end, the best first."""
        return sorted((row for row in self.rows if row["status"] == "completed"), key=self._rank)

    @property
    def ended_early(self) -> int:
        """How many of those, since they had stopped to improve, fell behind others, or learned nothing."""
        epochs = [(row.get("epochs"), row.get("max_epochs")) for row in self.best]
        return sum(isinstance(made, int) and isinstance(most, int) and made < most for made, most in epochs)

    @property
    def caution(self) -> str:
        """Why its metric does not compare the trials, and which would; empty where it does."""
        keys = " and ".join(key for key in self.keys if key.startswith("loss."))
        if not keys or not self.metric.endswith("/loss"):
            return ""
        other = "val/balanced_accuracy" if "val/balanced_accuracy" in self.metrics else "train/accuracy"
        return f"losses do not compare trials that differ in {keys}; sweep.metric={other} does (sweep.resume sorts again)"

    @property
    def shown_metrics(self) -> list[str]:
        """Those worth a column beside the best."""
        wanted = dict.fromkeys([self.metric, "val/accuracy", "test/accuracy"])
        return [name for name in wanted if name in self.metrics]

    def write(self) -> None:
        """Write `leaderboard.csv`, one row per trial, in the order of the sweep."""
        with (
            whole_file(self.folder / "leaderboard.csv") as path,
            path.open("w", encoding="utf-8", newline="") as file,
        ):
            columns = [*BEFORE, *self.keys, *self.metrics, *AFTER]
            writer = csv.DictWriter(file, columns, restval="", extrasaction="ignore", lineterminator="\n")
            writer.writeheader()
            writer.writerows(self.rows)

    def show(self, importance: Mapping[str, float]) -> None:
        """Print the best trials, how many failed or ended early, and which share of the metric's variance a key has."""
        failed = sum(row["status"] != "completed" for row in self.rows)
        table = Table(
            title=f"the best of {len(self.rows)} trials by {self.metric} of best.ckpt", title_justify="left"
        )
        columns = ["trial", *self.keys, *self.shown_metrics, "verdict"]
        for column in columns:
            table.add_column(
                self.title(column).replace("/", "/\n"),
                overflow="fold",
                min_width=8 if column == "verdict" else None,
            )
        for row in self.best[:SHOWN]:
            table.add_row(*(escape(short(row.get(column, ""))) for column in columns))
        get_console().print(table)
        where = RunFolder(self.folder).shown
        lines = [
            f"sweep folder {where}",
            f"report       {RunFolder(self.folder / 'report.html').shown}",
            f"TensorBoard  tensorboard --logdir '{where}'",
        ]
        if importance:
            shares = ", ".join(f"{key} {share:.0%}" for key, share in importance.items())
            lines.insert(0, f"mattered     {shares}")
        if self.ended_early:
            lines.insert(0, f"ended early  {self.ended_early} of {len(self.rows)}; why is in each train.log")
        if self.caution:
            lines.insert(0, f"careful      {self.caution}")
        if failed:
            lines.insert(0, f"failed       {failed} of {len(self.rows)}; why is in each summary.json")
        get_console().print("\n".join(lines), soft_wrap=True, highlight=False, markup=False)

    def title(self, column: str) -> str:
        """The column without the group of its key, where that leaves it its own."""
        last = column.rpartition(".")[2]
        return last if sum(key.rpartition(".")[2] == last for key in self.keys) == 1 else column

    def _rank(self, row: Row) -> float:
        value = row.get(self.metric)
        if not isinstance(value, float) or math.isnan(value):
            return math.inf
        return value if self.improves_downwards else -value


def short(value: object) -> str:
    """As a table shows it."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _row(trial: Trial, result: Mapping[str, Any], keys: Sequence[str]) -> dict[str, Any]:
    symptoms = [str(finding["symptom"]).replace("_", " ") for finding in result["diagnosis"]]
    return {
        "trial": trial.number,
        "status": result["status"],
        "epochs": result.get("epochs", 0),
        "max_epochs": trial.node["trainer"].get("max_epochs"),
        **trial.values(keys),
        **result["metrics"],
        "verdict": ", ".join(symptoms) or ("healthy" if result["status"] == "completed" else ""),
        "run": trial.subfolder,
    }


def _read(value: str) -> Any:
    """A cell as what it was: a number or a name."""
    try:
        return json.loads(value) if value[:1] in "-0123456789" and value else value
    except ValueError:
        return value
