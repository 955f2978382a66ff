"""The benchmark's own arithmetic, and that its peers do the same work."""

from importlib.metadata import version
from pathlib import Path
from types import ModuleType

import pandas as pd
import pytest
from rich.table import Table

ROOT = Path(__file__).parents[1]


@pytest.fixture
def speed(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    import speed

    return speed


def test_each_benchmark_has_its_section(speed: ModuleType, tmp_path: Path) -> None:
    from report_file import Report

    def written(name: str, value: str) -> str:
        report = Report()
        table = Table("what", "value")
        table.add_row(name, value)
        report.show(table)
        report.note(f"so it is: {value}")
        report.write(tmp_path / "B.md", name, f"benchmark.py {name}")
        return (tmp_path / "B.md").read_text()

    written("run", "1.0")
    written("growth", "2.0")
    text = written("run", "3.0")
    assert text.count("## ") == 2
    assert text.index("## growth") < text.index("| growth | 2.0 |") < text.index("## run")
    assert "| run | 3.0 |\n\nso it is: 3.0" in text
    assert "1.0" not in text.split("## run")[1].split("| run")[1]
    assert f"torch {version('torch')}" in text


def test_slopes_are_exponents(speed: ModuleType) -> None:
    from growth import DIMENSIONS, Point, growing, slope

    values = DIMENSIONS["width"].values
    assert slope(values, [3e-9 * value**2 for value in values]) == pytest.approx(2)
    points = [Point(1.0, 10**9 + 4 * value**2) for value in values]
    assert slope(values, growing(points, Point(1.0, 10**9))) == pytest.approx(2)
    assert slope([10, 100, 1000, 10**4, 10**5], [1.0, 1.0, 1e6, 1e8, 1e9], noise=2e7) == pytest.approx(1)


def test_the_ratio_is_the_median_of_those_within_repeats(speed: ModuleType) -> None:
    log: list[str] = []

    def cost(name: str, seconds: list[float]) -> "object":
        log.append(name)
        return speed.Cost(seconds.pop(0))

    ours, theirs = [1.0, 9.0, 2.0], [2.0, 3.0, 8.0]
    row = speed.Row("work", lambda: cost("ours", ours), lambda: cost("theirs", theirs), 1.0, 3)
    assert speed.ratio(*speed.compared(row)) == 0.5
    assert log == ["ours", "theirs", "theirs", "ours", "ours", "theirs"]


@pytest.mark.slow
def test_peers_do_the_same_work(speed: ModuleType, tmp_path: Path) -> None:
    large = speed.Large(tmp_path, 3000)
    speed.measured([str(ROOT / "scripts/predict.py"), f"run={large.run}", *large.predict("ours")])
    speed.measured([str(speed.PEERS / "bare_predict.py"), str(large.weights), *large.predict("theirs")])
    ours, theirs = (pd.read_parquet(tmp_path / f"{whose}.parquet") for whose in ("ours", "theirs"))
    assert list(ours.columns) == list(theirs.columns)
    assert ours["label"].equals(theirs["label"])
    numbers = ["probability", "p_0", "p_1"]
    pd.testing.assert_frame_equal(ours[numbers], theirs[numbers], rtol=1e-5)
    assert all(large.measured(whose).seconds > 0 for whose in ("ours", "theirs"))
