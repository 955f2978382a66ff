"""One page, in one file, about a sweep."""

import json
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import cached_property
from importlib.resources import files
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from omegaconf import OmegaConf

from backlight.config import as_typed
from backlight.errors import BacklightError
from backlight.examination import read_series
from backlight.files import write_whole
from backlight.run_folder import RunFolder
from backlight.sweep.importance import binned, in_order, label, main_effects
from backlight.sweep.leaderboard import Leaderboard, Row, short

Figure = dict[str, Any]

BEST, GROUPS, MEMBERS, PAIRS = 15, 5, 100, 3
MANY_VALUES = 12  # beyond which boxes become a cloud
SEEDS = ("seed", "data.seed")


class Report:
    """`report.html` of a sweep.

    Args:
        board: its trials.
        importance: of each key, if known better than from the trials themselves.
    """

    def __init__(self, board: Leaderboard, importance: dict[str, float] | None = None) -> None:
        self._board = board
        self._metric = board.metric
        self._measured = [row for row in board.best if _is_number(row.get(self._metric))]
        self._seeds = [key for key in board.keys if key in SEEDS]
        self._choices = [key for key in board.keys if key not in SEEDS]
        self._known_importance = importance

    def write(self) -> Path:
        """Write the page into the sweep folder; returns where."""
        page = Environment(
            loader=PackageLoader("backlight.sweep", "."), autoescape=True, undefined=StrictUndefined,
            trim_blocks=True, lstrip_blocks=True,
        ).get_template("report.html.j2")  # fmt: skip
        board = self._board
        columns = [*board.keys, *board.shown_metrics]
        path = board.folder / "report.html"
        html = page.render(
            name=board.folder.absolute().name,
            command=self._command(),
            facts=self._facts(),
            caution=board.caution,
            columns=[board.title(column) for column in columns],
            best=[
                {
                    "number": row["trial"],
                    "run": str(row["run"]),
                    "cells": [short(row.get(column, "")) for column in columns],
                    "verdict": row["verdict"],
                }
                for row in board.best[:BEST]
            ],
            sections=[section for section in self._sections() if section["figures"]],
            failures=self._failures(),
            plotly=files("plotly").joinpath("package_data/plotly.min.js").read_text(encoding="utf-8"),
        )
        write_whole(path, html.encode())
        return path

    def _command(self) -> str:
        try:
            overrides = OmegaConf.load(self._board.folder / "multirun.yaml").hydra.overrides.task
        except (OSError, AttributeError):
            return ""
        return "python train.py -m " + " ".join(as_typed(overrides))

    def _facts(self) -> list[tuple[str, str]]:
        """What a person wants to know first, and the numbers."""
        rows = self._board.rows
        states = Counter(row["status"] for row in rows)
        facts = [("trials", f"{len(rows):,}"), *((state, f"{count:,}") for state, count in states.items())]
        if self._measured:
            best = self._measured[0]
            facts.append((f"best {self._metric}", f"{short(best[self._metric])} (trial {best['trial']})"))
        healthy = sum(row["verdict"] == "healthy" for row in rows)
        early = self._board.ended_early
        return [*facts, ("healthy", f"{healthy:,}"), *([("ended early", f"{early:,}")] if early else [])]

    def _sections(self) -> Iterator[dict[str, Any]]:
        if self.importance:
            yield {
                "title": "What mattered",
                "text": "The share of the metric's variance that each key accounts for alone (functional ANOVA). "
                "What is left to all of them together is how keys act on each other.",
                "figures": [self._importance_bars()],
            }
            yield {
                "title": f"Each hyper-parameter against {self._metric}",
                "text": "Every point is a trial; a box is half of them, its line the median.",
                "figures": [self._against(key) for key in self._by_importance if key not in self._seeds],
            }
            yield {
                "title": "How two hyper-parameters act together",
                "text": f"The median of {self._metric} over all trials with both values.",
                "figures": [self._together(*pair) for pair in self._pairs()],
            }
            yield {
                "title": "All at once",
                "text": "Every line is a trial. Drag along an axis to keep the trials that cross it there.",
                "figures": [self._parallel()] if len(self._board.keys) > 1 else [],
            }
        yield {
            "title": "How the best learned",
            "text": "The median over seeds, and between which values eight in ten of them are.",
            "figures": self._learning_curves(),
        }
        yield {
            "title": "What ails them",
            "text": "How many of the trials with a value show a symptom.",
            "figures": [self._ailments(key) for key in self._choices] if self._symptoms else [],
        }

    @cached_property
    def importance(self) -> dict[str, float]:
        """The share of the metric's variance that each key accounts for; none where it does not vary."""
        if self._known_importance is not None:
            return self._known_importance
        if len(self._measured) < 2:
            return {}
        columns = {key: [row[key] for row in self._measured] for key in self._board.keys}
        return main_effects(columns, np.array([self._scaled(row) for row in self._measured]))

    @cached_property
    def _is_wide(self) -> bool:
        """Whether the metric is looked at on a logarithmic scale, lest a few trials hide all others."""
        return bool(_log_if_wide([row[self._metric] for row in self._measured]))

    def _scaled(self, row: Row) -> float:
        value = float(row[self._metric])
        return math.log10(value) if self._is_wide else value

    @property
    def _by_importance(self) -> list[str]:
        return sorted(self._board.keys, key=lambda key: -self.importance.get(key, 0))

    def _importance_bars(self) -> Figure:
        shares = dict(reversed(self.importance.items()))
        bars = {
            "type": "bar", "orientation": "h", "x": list(shares.values()), "y": list(shares),
            "texttemplate": "%{x:.0%}", "hovertemplate": "%{y}: %{x:.1%}<extra></extra>", "cliponaxis": False,
        }  # fmt: skip
        layout = {"xaxis": {"tickformat": ".0%", "range": [0, 1.08]}, "yaxis": {"type": "category"}}
        return _figure([bars], layout, height=110 + 34 * len(shares), wide=True)

    def _against(self, key: str) -> Figure:
        rows = self._measured
        values, metric = [row[key] for row in rows], [row[self._metric] for row in rows]
        y = {"title": {"text": self._metric}, **_log_if_wide(metric)}
        x: Figure = {"title": {"text": key}}
        names = [f"trial {row['trial']}" for row in rows]
        if len(set(map(label, values))) <= MANY_VALUES:
            order = in_order(values)
            trace: Figure = {
                "type": "box", "x": [label(value) for value in values], "y": metric, "text": names,
                "boxpoints": "all" if len(rows) <= 2000 else "outliers", "jitter": 0.5, "pointpos": 0,
                "marker": {"size": 4, "opacity": 0.5}, "line": {"width": 1.5},
            }  # fmt: skip
            x |= {"type": "category", "categoryorder": "array", "categoryarray": order}
        else:
            trace = {
                "type": "scattergl" if len(rows) > 2000 else "scatter", "mode": "markers", "x": values, "y": metric,
                "text": names, "marker": {"size": 5, "opacity": 0.6},
            }  # fmt: skip
            x |= _log_if_wide(values)
        return _figure([trace], {"xaxis": x, "yaxis": y})

    def _pairs(self) -> list[tuple[str, str]]:
        """Of the keys that matter most."""
        keys = [key for key in self._by_importance if key in self._choices]
        return list(combinations(keys, 2))[:PAIRS]

    def _together(self, across: str, up: str) -> Figure:
        columns = [[row[key] for row in self._measured] for key in (across, up)]
        cells: dict[tuple[str, str], list[float]] = {}
        for x, y, row in zip(*map(binned, columns), self._measured, strict=True):
            cells.setdefault((x, y), []).append(self._scaled(row))
        xs, ys = map(in_order, columns)
        z = [[float(np.median(cells[x, y])) if (x, y) in cells else None for x in xs] for y in ys]
        shown = [
            [None if value is None else short(10**value if self._is_wide else value) for value in row]
            for row in z
        ]
        heat = {
            "type": "heatmap", "x": xs, "y": ys, "z": z, "text": shown, "colorscale": "Viridis",
            "reversescale": self._board.improves_downwards, "xgap": 1, "ygap": 1,
            "colorbar": {"title": {"text": self._metric}, "tickprefix": "10^" if self._is_wide else ""},
            "texttemplate": "%{text}" if len(xs) <= MANY_VALUES else "",
            "hovertemplate": "%{x}, %{y}: %{text}<extra></extra>",
        }  # fmt: skip
        layout = {
            "xaxis": {"title": {"text": across}, "type": "category"},
            "yaxis": {"title": {"text": up}, "type": "category"},
        }
        return _figure([heat], layout)

    def _parallel(self) -> Figure:
        rows = self._measured[::-1]  # the best are drawn last, over the others
        dimensions = []
        for key in [*self._board.keys, self._metric]:
            values = [row[key] for row in rows]
            title = self._board.title(key)
            if all(map(_is_number, values)):
                log = bool(_log_if_wide(values))
                place = np.log10(values).tolist() if log else values
                dimension: Figure = {"label": title, "values": place}
                # Every value of a key has a tick; those of the metric would cover each other.
                if log or (key != self._metric and len(set(values)) <= MANY_VALUES):
                    ticks = sorted(set(values)) if len(set(values)) <= MANY_VALUES else _powers(values)
                    dimension |= {
                        "tickvals": [math.log10(tick) if log else tick for tick in ticks],
                        "ticktext": [short(tick) for tick in ticks],
                    }
            else:
                names = in_order(values)
                dimension = {
                    "label": title,
                    "values": [names.index(label(value)) for value in values],
                    "tickvals": list(range(len(names))),
                    "ticktext": names,
                }
            dimensions.append(dimension)
        colors = dimensions[-1]["values"]
        trace = {
            "type": "parcoords", "dimensions": dimensions,
            "line": {"color": colors, "colorscale": "Viridis", "reversescale": self._board.improves_downwards},
        }  # fmt: skip
        return _figure([trace], {"margin": {"t": 60, "l": 70, "r": 70}}, height=420, wide=True)

    def _learning_curves(self) -> list[Figure]:
        part = self._metric if not self._metric.startswith("test/") else "val/loss"
        groups: dict[tuple[str, ...], list[Row]] = {}
        for row in self._measured:
            groups.setdefault(tuple(label(row[key]) for key in self._choices), []).append(row)
        sign = 1 if self._board.improves_downwards else -1
        best = sorted(
            groups.items(), key=lambda group: sign * np.median([row[self._metric] for row in group[1]])
        )
        traces: list[Figure] = []
        for index, (values, rows) in enumerate(best[:GROUPS]):
            curves = [curve for row in rows[:MEMBERS] if len(curve := self._series(row, part))]
            if curves:
                name = ", ".join(
                    f"{self._board.title(key)} {value}"
                    for key, value in zip(self._choices, values, strict=True)
                )
                traces += _band(name or part, curves, index)
        if not traces:
            return []
        every = [value for trace in traces for value in trace["y"]]
        layout = {
            "xaxis": {"title": {"text": "epoch"}}, "yaxis": {"title": {"text": part}, **_log_if_wide(every)},
            "showlegend": True, "legend": {"orientation": "h", "y": -0.25},
        }  # fmt: skip
        return [_figure(traces, layout, height=460, wide=True)]

    def _series(self, row: Row, name: str) -> np.ndarray[Any, np.dtype[np.float64]]:
        try:
            series = read_series(RunFolder(self._board.folder / str(row["run"])).metrics)
        except BacklightError:
            return np.empty(0)
        return series.get(name, series.get("train/loss", np.empty(0)))

    @cached_property
    def _symptoms(self) -> list[str]:
        """Those that occur, the most frequent first."""
        counts = Counter(symptom for row in self._board.rows for symptom in _symptoms_of(row))
        return [symptom for symptom, _ in counts.most_common()]

    def _ailments(self, key: str) -> Figure:
        rows = self._board.rows
        column = [row.get(key, "") for row in rows]
        names = binned(column)
        totals = Counter(names)
        found = Counter(
            (symptom, name) for row, name in zip(rows, names, strict=True) for symptom in _symptoms_of(row)
        )
        xs = in_order(column)
        heat = {
            "type": "heatmap", "x": xs, "y": self._symptoms,
            "z": [[found[symptom, x] / totals[x] for x in xs] for symptom in self._symptoms],
            "customdata": [[f"{found[symptom, x]} of {totals[x]}" for x in xs] for symptom in self._symptoms],
            "hovertemplate": "%{y} at %{x}: %{customdata}<extra></extra>", "zmin": 0, "zmax": 1,
            "colorscale": "Reds", "xgap": 1, "ygap": 1, "colorbar": {"tickformat": ".0%"},
            "texttemplate": "%{z:.0%}" if len(xs) <= MANY_VALUES else "",
        }  # fmt: skip
        layout = {
            "xaxis": {"title": {"text": key}, "type": "category"},
            "yaxis": {"type": "category", "autorange": "reversed"},
        }
        return _figure([heat], layout, height=170 + 30 * len(self._symptoms))

    def _failures(self) -> list[dict[str, Any]]:
        """Reasons, and the trials of each."""
        reasons: dict[str, list[Any]] = {}
        for row in self._board.rows:
            if row["status"] != "completed":
                reasons.setdefault(self._reason(row), []).append(row["trial"])
        listed = sorted(reasons.items(), key=lambda item: -len(item[1]))
        return [{"reason": reason, "count": len(trials), "trials": trials[:20]} for reason, trials in listed]

    def _reason(self, row: Row) -> str:
        try:
            path = RunFolder(self._board.folder / str(row["run"])).summary
            return str(json.loads(path.read_text(encoding="utf-8"))["error"])
        except (OSError, ValueError, LookupError):
            return "it left no summary"


def _figure(traces: list[Figure], layout: Figure, *, height: int = 380, wide: bool = False) -> Figure:
    """For the page: how it is drawn is the page's."""
    return {"traces": traces, "layout": {"height": height, **layout}, "wide": wide}


def _band(
    label: str, curves: Sequence[np.ndarray[Any, np.dtype[np.float64]]], index: int
) -> Iterator[Figure]:
    """The median of curves, and 10 % to 90 % of them; those that ended count as long as they last."""
    longest = max(map(len, curves))
    table = np.full((len(curves), longest), np.nan)
    for row, curve in zip(table, curves, strict=True):
        row[: len(curve)] = curve
    low, median, high = (values.tolist() for values in np.nanquantile(table, [0.1, 0.5, 0.9], axis=0))
    epochs = list(range(1, longest + 1))
    # One epoch, as of trials that successive halving ended there, is a point.
    shared = {
        "type": "scatter",
        "mode": "lines" if longest > 1 else "markers",
        "legendgroup": label,
        "colorIndex": index,
    }
    if len(curves) > 2:
        hidden = {**shared, "line": {"width": 0}, "showlegend": False, "hoverinfo": "skip"}
        yield {**hidden, "x": epochs, "y": low}
        yield {**hidden, "x": epochs, "y": high, "fill": "tonexty"}
    name = f"{label} ({len(curves)})" if len(curves) > 1 else label
    yield {**shared, "name": name, "x": epochs, "y": median, "line": {"width": 2}}


def _symptoms_of(row: Row) -> list[str]:
    return [] if row["verdict"] in ("", "healthy") else str(row["verdict"]).split(", ")


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def _log_if_wide(values: Sequence[Any]) -> Figure:
    """A logarithmic axis for positive numbers that differ much."""
    numbers = [value for value in values if _is_number(value)]
    is_wide = len(numbers) == len(values) and min(numbers) > 0 and max(numbers) / min(numbers) >= 50
    return {"type": "log"} if is_wide else {}


def _powers(values: Sequence[float]) -> list[float]:
    low, high = (math.log10(value) for value in (min(values), max(values)))
    return [10.0**power for power in range(math.ceil(low), math.floor(high) + 1)]
