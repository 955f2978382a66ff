"""Commands run in this process, in a folder of their own."""

import json
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

# Before torch is imported, here and in processes that tests start: several workers of pytest share the
# cores, and threads that wait for each other there take many times as long.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch

from backlight import command


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Slow ones first: begun last, one of them would keep a worker busy when the others are done."""
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)


@dataclass(frozen=True)
class Result:
    """What a command answered."""

    code: int
    out: str
    err: str


@dataclass(frozen=True)
class TrainedRun:
    """A finished run."""

    path: Path
    result: Result

    @property
    def summary(self) -> dict[str, Any]:
        content: dict[str, Any] = json.loads((self.path / "summary.json").read_text())
        return content


Call = Callable[..., Result]


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Call:
    """`call("train", "optimizer.lr=0.1")` runs a command in a temporary folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("HYDRA_FULL_ERROR", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))

    def run(name: str, *arguments: str) -> Result:
        monkeypatch.setattr(sys, "argv", [f"{name}.py", *arguments])
        capsys.readouterr()
        with pytest.raises(SystemExit) as stop:
            getattr(command, name)()
        captured = capsys.readouterr()
        assert isinstance(stop.value.code, int)
        return Result(stop.value.code, captured.out, captured.err)

    return run


@pytest.fixture
def train(call: Call, tmp_path: Path) -> Callable[..., TrainedRun]:
    """`train("data=moons")` trains one small run, without the pictures of its end, and returns its folder."""
    fast = [f"callbacks.{name}=null" for name in ("evaluation_plots", "decision_boundary")]

    def run(*arguments: str, folder: str = "run", pictures: bool = False) -> TrainedRun:
        options = ["trainer.max_epochs=3", *([] if pictures else fast), *arguments, f"hydra.run.dir={folder}"]
        result = call("train", *options)
        assert result.code == 0, result.err
        return TrainedRun(tmp_path / folder, result)

    return run


@pytest.fixture
def two_threads() -> Iterator[None]:
    """As many as forked processes need, whatever this machine has."""
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(threads)
