"""The trials of a sweep beside each other, the best first."""

import csv
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich import get_console
from rich.markup import escape
from rich.table import Table

from backlight.files import whole_file
from backlight.run_folder import RunFolder
from backlight.sweep.compose import Trial, swept
from backlight.sweep.settings import Settings

SHOWN = 10


class Leaderboard:
    """`leaderboard.csv`, and the best trials in the terminal.

    Args:
        folder: of the sweep.
        trials: all of them.
        results: by number, what `summary.json` holds.
        settings: name the metric to sort by; where no trial has it, it is the training loss.
    """

    def __init__(
        self,
        folder: Path,
        trials: Sequence[Trial],
        results: Mapping[int, Mapping[str, Any]],
        settings: Settings,
    ) -> None:
        self.folder = folder
        self.metrics = sorted({name for result in results.values() for name in result["metrics"]} - {"lr"})
        is_known = settings.metric in self.metrics
        self.metric = settings.metric if is_known else "train/loss"
        self.improves_downwards = settings.improves_downwards or not is_known
        self.keys = swept(trials)
        self.rows = [_row(trial, results[trial.number], self.keys) for trial in trials]

    def write(self) -> None:
        """Write one row per trial, in the order of the sweep."""
        with (
            whole_file(self.folder / "leaderboard.csv") as path,
            path.open("w", encoding="utf-8", newline="") as file,
        ):
            columns = ["trial", "status", *self.keys, *self.metrics, "verdict", "run"]
            writer = csv.DictWriter(file, columns, restval="", extrasaction="ignore", lineterminator="\n")
            writer.writeheader()
            writer.writerows(self.rows)

    def show(self) -> None:
        """Print the best trials and how many failed."""
        failed = sum(row["status"] != "completed" for row in self.rows)
        table = Table(title=f"the best of {len(self.rows)} trials by {self.metric}", title_justify="left")
        columns = ["trial", *self.keys, *self._shown_metrics(), "verdict"]
        for column in columns:
            table.add_column(self._title(column).replace("/", "/\n"), overflow="fold")
        best = sorted((row for row in self.rows if row["status"] == "completed"), key=self._rank)
        for row in best[:SHOWN]:
            table.add_row(*(escape(_short(row.get(column, ""))) for column in columns))
        get_console().print(table)
        where = RunFolder(self.folder).shown
        lines = [f"sweep folder {where}", f"TensorBoard  tensorboard --logdir '{where}'"]
        if failed:
            lines.insert(0, f"failed       {failed} of {len(self.rows)}; why is in each summary.json")
        get_console().print("\n".join(lines), soft_wrap=True, highlight=False, markup=False)

    def _shown_metrics(self) -> list[str]:
        wanted = dict.fromkeys([self.metric, "val/accuracy", "test/accuracy"])
        return [name for name in wanted if name in self.metrics]

    def _title(self, column: str) -> str:
        """The column without the group of its key, where that leaves it its own."""
        last = column.rpartition(".")[2]
        return last if sum(key.rpartition(".")[2] == last for key in self.keys) == 1 else column

    def _rank(self, row: Mapping[str, Any]) -> float:
        value = row.get(self.metric)
        if not isinstance(value, float):
            return math.inf
        return value if self.improves_downwards else -value


def _row(trial: Trial, result: Mapping[str, Any], keys: Sequence[str]) -> dict[str, Any]:
    symptoms = [str(finding["symptom"]).replace("_", " ") for finding in result["diagnosis"]]
    return {
        "trial": trial.number,
        "status": result["status"],
        **trial.values(keys),
        **result["metrics"],
        "verdict": ", ".join(symptoms) or ("healthy" if result["status"] == "completed" else ""),
        "run": trial.subfolder,
    }


def _short(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
