"""The trials of a sweep beside each other, the best first."""

import csv
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich import get_console
from rich.table import Table

from backlight.files import whole_file
from backlight.sweep.compose import Trial

SHOWN = 10
LOWER_IS_BETTER = ("loss", "calibration_error")


class Leaderboard:
    """`leaderboard.csv`, and the best trials in the terminal.

    Args:
        folder: of the sweep.
        trials: all of them.
        results: by number, what `summary.json` holds.
        metric: to sort by; where no trial has it, the training loss.
    """

    def __init__(
        self, folder: Path, trials: Sequence[Trial], results: Mapping[int, Mapping[str, Any]], metric: str
    ) -> None:
        self.folder = folder
        self.metrics = sorted({name for result in results.values() for name in result["metrics"]} - {"lr"})
        self.metric = metric if metric in self.metrics else "train/loss"
        self.keys = _swept(trials)
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
        title = f"the best of {len(self.rows)} trials by {self.metric}"
        table = Table(
            "trial", *self.keys, *self._shown_metrics(), "verdict", title=title, title_justify="left"
        )
        for row in sorted(self.rows, key=self._rank)[:SHOWN]:
            if row["status"] == "completed":
                values = [_short(row.get(column, "")) for column in (*self.keys, *self._shown_metrics())]
                table.add_row(str(row["trial"]), *values, row["verdict"])
        console = get_console()
        console.print(table)
        if failed:
            console.print(
                f"failed       {failed} of {len(self.rows)}; why is in each summary.json", highlight=False
            )
        where = min(str(self.folder), str(_relative(self.folder)), key=len)
        console.print(f"sweep folder {where}", soft_wrap=True, highlight=False)
        console.print(f"TensorBoard  tensorboard --logdir '{where}'", soft_wrap=True, highlight=False)

    def _shown_metrics(self) -> list[str]:
        wanted = dict.fromkeys([self.metric, "val/accuracy", "test/accuracy"])
        return [name for name in wanted if name in self.metrics]

    def _rank(self, row: Mapping[str, Any]) -> float:
        value = row.get(self.metric)
        if not isinstance(value, float):
            return math.inf
        return value if self.metric.endswith(LOWER_IS_BETTER) else -value


def _swept(trials: Sequence[Trial]) -> list[str]:
    """Keys whose overrides differ from trial to trial."""
    values: dict[str, set[str]] = {}
    for trial in trials:
        for override in trial.overrides:
            key, _, value = override.partition("=")
            values.setdefault(key, set()).add(value)
    return [key for key, seen in values.items() if len(seen) > 1]


def _row(trial: Trial, result: Mapping[str, Any], keys: Sequence[str]) -> dict[str, Any]:
    given = dict(override.partition("=")[::2] for override in trial.overrides)
    symptoms = [str(finding["symptom"]).replace("_", " ") for finding in result["diagnosis"]]
    return {
        "trial": trial.number,
        "status": result["status"],
        **{key: given.get(key, "") for key in keys},
        **result["metrics"],
        "verdict": ", ".join(symptoms) or ("healthy" if result["status"] == "completed" else ""),
        "run": trial.subfolder,
    }


def _short(value: object) -> str:
    return f"{value:.4f}" if isinstance(value, float) else str(value)


def _relative(path: Path) -> Path:
    try:
        return path.resolve().relative_to(Path.cwd())
    except ValueError:
        return path
