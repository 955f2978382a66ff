"""The page about a sweep says what the trials say."""

import html
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backlight.sweep.importance import binned, in_order, main_effects
from tests.conftest import Call
from tests.sweep.test_population import table


def figures(page: str) -> list[dict[str, Any]]:
    return [json.loads(html.unescape(text)) for text in re.findall(r'data-figure="([^"]*)"', page)]


def test_page_shows_the_trials(call: Call, tmp_path: Path) -> None:
    result = call(
        "train", "-m", "data=moons", "model.hidden=[3],[4]", "optimizer.lr=0.1,1,-1", "seed=0,1",
        "trainer.max_epochs=3", "hydra.sweep.dir=sweep",
    )  # fmt: skip
    assert result.code == 3
    rows = table(tmp_path / "sweep/leaderboard.csv")
    path = tmp_path / "sweep/report.html"
    page = path.read_text()
    content = page.partition("<script>")[0]
    assert not re.search(r"<(script|img|iframe)[^>]*\bsrc=|<link|@import", page), "one file"
    assert "<td>4</td>" in content and "optimizer.lr=-1: must be greater than 0" in content
    best = min((row for row in rows if row["val/loss"]), key=lambda row: float(row["val/loss"]))
    first = content[content.index("The best") :]
    assert re.search(r'<a href="(\d+)/">\1', first)[1] == best["trial"]  # type: ignore[index]

    kinds: dict[str, list[dict[str, Any]]] = {}
    for figure in figures(page):
        for trace in figure["traces"]:
            kinds.setdefault(trace["type"], []).append(trace)
    (bars,) = kinds["bar"]
    assert set(bars["y"]) == {"model.hidden", "optimizer.lr", "seed"}
    assert re.search(rf"mattered     {bars['y'][-1]} {bars['x'][-1]:.0%}", result.out)
    measured = sorted(float(row["val/loss"]) for row in rows if row["val/loss"])
    for box in kinds["box"]:
        assert sorted(box["y"]) == pytest.approx(measured)
    together = kinds["heatmap"][0]
    cell = [
        float(row["val/loss"])
        for row in rows
        if (row["model.hidden"] == together["y"][0] and row["optimizer.lr"] == together["x"][0])
        or (row["model.hidden"] == together["x"][0] and row["optimizer.lr"] == together["y"][0])
    ]  # fmt: skip
    assert together["z"][0][0] == pytest.approx(np.median(cell))
    (parallel,) = kinds["parcoords"]
    assert [dimension["label"] for dimension in parallel["dimensions"]] == [
        "hidden",
        "lr",
        "seed",
        "val/loss",
    ]
    curves = {trace["name"]: trace["y"] for trace in kinds["scatter"] if "name" in trace}
    assert set(curves) == {f"hidden [{hidden}], lr {lr} (2)" for hidden in (3, 4) for lr in (0.1, 1)}
    pair = [table(tmp_path / "sweep" / row["run"] / "metrics.csv") for row in rows[:2]]
    medians = [np.median([float(r["val/loss"]) for r in epoch]) for epoch in zip(*pair, strict=True)]
    assert curves["hidden [3], lr 0.1 (2)"] == pytest.approx(medians)

    path.unlink()
    again = call("report", "sweep=sweep")
    assert (again.code, again.out) == (0, "sweep/report.html\n")
    assert path.read_text() == page
    board = tmp_path / "sweep/leaderboard.csv"
    board.write_text(board.read_text().replace("completed,3,3,", "completed,many,3,"))
    assert call("report", "sweep=sweep").code == 0
    assert path.read_text() == page, "what is no number counts as unknown"


def test_losses_that_do_not_compare_are_told(call: Call, tmp_path: Path) -> None:
    sweep = ["data=moons", "loss.class_weight=null,[1,5]", "trainer.max_epochs=2", "hydra.sweep.dir=sweep"]
    told = "losses do not compare trials that differ in loss.class_weight; sweep.metric=val/balanced_accuracy does"
    assert told in call("train", "-m", *sweep).out
    page = tmp_path / "sweep/report.html"
    assert told in page.read_text()
    again = call("train", "-m", *sweep, "sweep.resume=sweep", "sweep.metric=val/balanced_accuracy")
    assert "the best of 2 trials by val/balanced_accuracy" in again.out
    assert told not in again.out and told not in page.read_text()


def test_what_is_no_sweep_is_refused(call: Call, tmp_path: Path) -> None:
    result = call("report", "sweep=nowhere")
    assert result.code == 2
    assert result.err.startswith("ERROR: nowhere: no sweep that came to its end")
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken/leaderboard.csv").write_text("trial,status\n1")
    assert call("report", "sweep=broken").err.startswith("ERROR: broken: not the files of a sweep")


@given(
    st.lists(st.integers(-9, 9), min_size=1, max_size=4, unique=True),
    st.lists(st.integers(-9, 9), min_size=1, max_size=4, unique=True),
)
def test_shares_of_a_sum_are_those_of_its_terms(first: list[int], second: list[int]) -> None:
    grid = [(a, b) for a in first for b in second for _ in range(2)]
    shares = main_effects(
        {"a": [str(a) for a, _ in grid], "b": [str(b) for _, b in grid]},
        np.array([a + b for a, b in grid], float),
    )
    whole = np.var(first) + np.var(second)
    for key, terms in (("a", first), ("b", second)):
        assert shares[key] == pytest.approx(np.var(terms) / whole if whole else 0)
    assert list(shares.values()) == sorted(shares.values(), reverse=True)


def test_what_keys_do_only_together_is_nobodys() -> None:
    shares = main_effects({"a": [0, 0, 1, 1] * 2, "b": [0, 1, 0, 1] * 2}, np.array([0.0, 1, 1, 0] * 2))
    assert shares == {"a": 0, "b": 0}


def test_many_numbers_are_put_into_bins() -> None:
    numbers = list(np.linspace(3, 1, 80))
    names = binned(numbers)
    order = in_order(numbers)
    assert [names.count(name) for name in order] == [10] * 8
    assert order[0].startswith("1 …") and order[-1].endswith("… 3")
    assert in_order([10, 2, 10, 2]) == ["2", "10"]
    assert in_order(["b", "a"]) == ["a", "b"]
