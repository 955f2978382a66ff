"""Entry point: write the report of a sweep that has ended."""

from pathlib import Path

from omegaconf import DictConfig
from rich import get_console

from backlight.config import build, plain
from backlight.run_folder import RunFolder
from backlight.sweep.leaderboard import Leaderboard
from backlight.sweep.report import Report


def run(config: DictConfig) -> None:
    """Write `report.html` into the sweep folder again.

    Raises:
        BacklightError: there is no such sweep.
    """
    build(write, plain(config), "")


def write(*, folder: str) -> None:
    """Write it.

    Args:
        folder: of the sweep.
    """
    path = Report(Leaderboard.read(Path(folder))).write()
    get_console().print(RunFolder(path).shown, soft_wrap=True, highlight=False, markup=False)
