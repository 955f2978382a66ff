"""Trials trained by workers, some of which are lost, are the trials that one process trains."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
import submitit
from hydra import compose, initialize_config_dir

from backlight.command import config_folder
from backlight.sweep import cluster
from tests.conftest import Call
from tests.sweep.test_population import table

ROOT = Path(__file__).parents[2]
MOONS = ["-m", "data=moons", "trainer.max_epochs=300", "optimizer.lr=0.1,0.3", "seed=range(12)"]


def busy_workers() -> list[int]:
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if (process / "cmdline").read_bytes().startswith(b"ray::_train"):
                found.append(int(process.name))
        except OSError:
            continue
    return found


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/cmdline").exists(), reason="finds the workers in /proc")
def test_no_trial_is_lost_with_its_worker(call: Call, tmp_path: Path) -> None:
    command = [
        sys.executable,
        str(ROOT / "train.py"),
        *MOONS,
        "sweep=ray",
        "sweep.shares=4",
        "hydra.sweep.dir=ray",
    ]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("COV_CORE")}
    environment["RAY_worker_niceness"] = "0"  # politer workers starve beside other tests
    with (tmp_path / "log").open("w") as log:
        sweep = subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=log, stderr=subprocess.STDOUT)
    killed = None
    while sweep.poll() is None:
        if killed is None and list(tmp_path.glob("ray/*/summary.json")) and (workers := busy_workers()):
            killed = workers[0]
            os.kill(killed, signal.SIGKILL)
            ended = len(list(tmp_path.glob("ray/*/summary.json")))
        time.sleep(0.05)
    assert sweep.returncode == 0, (tmp_path / "log").read_text()
    assert killed is not None and 0 < ended < 24, "one must be lost while trials are missing"

    rows = table(tmp_path / "ray/leaderboard.csv")
    assert [row["run"] for row in rows] == [str(number) for number in range(24)]
    assert {row["status"] for row in rows} == {"completed"}
    assert call("train", *MOONS, "hydra.sweep.dir=here").code == 0
    for ours, theirs in zip(rows, table(tmp_path / "here/leaderboard.csv"), strict=True):
        assert float(ours["test/loss"]) == pytest.approx(float(theirs["test/loss"]), rel=1e-3)
        assert len(table(tmp_path / "ray" / ours["run"] / "metrics.csv")) == 300


@pytest.mark.slow
def test_jobs_of_slurm(call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = submitit.AutoExecutor

    def local(folder: Path, cluster: str) -> submitit.AutoExecutor:
        assert cluster == "slurm"
        return here(folder, cluster="local")

    monkeypatch.setattr(submitit, "AutoExecutor", local)
    options = ["sweep=slurm", "sweep.shares=2", "sweep.job.timeout_min=5", "hydra.sweep.dir=sweep"]
    result = call(
        "train", "-m", "data=moons", "trainer.max_epochs=2", "optimizer.lr=0.1,-1", "seed=0,1", *options
    )
    assert result.code == 3
    rows = table(tmp_path / "sweep/leaderboard.csv")
    assert [row["status"] for row in rows] == ["completed", "completed", "failed", "failed"]
    assert "trial 2: optimizer.lr=-1: must be greater than 0" in result.err
    assert "backlight.population" in (tmp_path / "sweep/1/train.log").read_text()


def test_what_no_worker_could_train_is_trained_here(
    call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lost(_: object, shares: Sequence[cluster.Share]) -> Iterator[cluster.Outcome]:
        yield shares[0], RuntimeError()
        yield shares[1], cluster._train(shares[1])

    monkeypatch.setattr(cluster, "_on_slurm", lost)
    options = ["sweep=slurm", "sweep.shares=2", "hydra.sweep.dir=sweep"]
    result = call("train", "-m", "data=moons", "trainer.max_epochs=2", "seed=0,1,2,3", *options)
    assert result.code == 0, result.err
    assert "2 trials are trained here, for a worker: RuntimeError" in result.err
    assert [row["status"] for row in table(tmp_path / "sweep/leaderboard.csv")] == ["completed"] * 4


@pytest.mark.parametrize("sweep", ["ray", "slurm"])
def test_configs_compose(sweep: str) -> None:
    with initialize_config_dir(str(config_folder()), version_base="1.3"):
        config = compose("train", [f"sweep={sweep}"], return_hydra_config=True)
    assert config.sweep.cluster == sweep
    assert config.hydra.launcher._target_ == "hydra_plugins.backlight_sweeps.PopulationLauncher"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["sweep=slurm"], "sweep=slurm: Could not detect \"srun\", are you indeed on a slurm cluster?"),
        (["sweep=slurm", "+sweep.job.x=1"], "sweep=slurm: Could not detect \"srun\""),
        (["sweep=ray", "sweep.factor=3"], "sweep.cluster=ray: successive halving compares all trials while they train"),
        (["sweep=ray", "sweep.shares=0"], "sweep.shares=0: must be at least 1"),
        (["sweep=ray", "sweep.address='127.0.0.1:1'"], "sweep.address=127.0.0.1:1: no cluster of Ray there"),
        (["sweep=ray", "sweep.address='ray://127.0.0.1:99999'"], "sweep.address=ray://127.0.0.1:99999: no cluster"),
    ],
)  # fmt: skip
def test_what_cannot_work_is_refused(call: Call, options: list[str], message: str) -> None:
    result = call("train", "-m", "seed=0,1", *options, "hydra.sweep.dir=sweep")
    assert result.code == 2
    assert result.err.startswith(f"ERROR: {message}")
    assert result.err.count("\n") == 1
