"""What needs processes of its own: data-parallel training, the installed wheel, a full disk."""

import os
import shutil
import signal
import subprocess
import sys
import time
import venv
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf

from backlight.assemble import assemble
from backlight.processes import forked_map, is_abandoned
from backlight.run_folder import RunFolder
from tests.conftest import Call, TrainedRun
from tests.test_train import metrics_of, weights_of

Train = Callable[..., TrainedRun]
ROOT = Path(__file__).parents[1]


@pytest.mark.slow
def test_two_processes_train_what_one_trains(train: Train, tmp_path: Path) -> None:
    # 70 training rows in batches of 23: the last batch has one row, which leaves one process without any.
    options = [
        "data=moons",
        "data.n_samples=100",
        "data.batch_size=23",
        "data.val_fraction=0.3",
        "data.test_fraction=0",  # to test starts all processes once more
        "optimizer=adam",
        "trainer.max_epochs=3",
    ]
    result = subprocess.run(
        [sys.executable, str(ROOT / "train.py"), "-m", *options, "model.backward=equations,autograd", "trainer=ddp",
         "trainer.accelerator=cpu", "trainer.devices=2", "hydra.sweep.dir=ddp"],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert result.stdout.count("epoch 3/3") == 2, "one process of each run says so"
    for number, backward in enumerate(("equations", "autograd")):
        alone = train(*options, f"model.backward={backward}", folder=backward)
        together = TrainedRun(tmp_path / "ddp" / str(number), alone.result)
        expected, found = weights_of(alone.path), weights_of(together.path)
        for name in expected:
            torch.testing.assert_close(found[name], expected[name], rtol=1e-4, atol=1e-5)
        for ours, theirs in zip(metrics_of(together.path), metrics_of(alone.path), strict=True):
            assert ours == pytest.approx(theirs, rel=1e-4, abs=1e-5)
        assert together.summary["metrics"] == pytest.approx(alone.summary["metrics"], rel=1e-4, abs=1e-5)
        assert together.summary["steps"] == alone.summary["steps"]
        assert [path.name for path in together.path.glob("*.log")] == ["train.log"]
    assert result.stderr == ""


@pytest.mark.slow
def test_error_in_a_spawned_process_is_one_sentence(call: Call) -> None:
    result = call(
        "train", "trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2", "model.activation=relu",
        "model.hidden=[50,50]", "optimizer.lr=1e8",
    )  # fmt: skip
    assert result.code == 2
    assert "training diverged" in result.err.splitlines()[-1]


@pytest.mark.slow
def test_wheel_carries_its_config(tmp_path: Path) -> None:
    subprocess.run(
        [
            sys.executable,
            "-m",
            "pip",
            "wheel",
            "--quiet",
            "--no-deps",
            "--wheel-dir",
            str(tmp_path),
            str(ROOT),
        ],
        check=True,
    )
    (wheel,) = tmp_path.glob("backlight-*.whl")
    # The packages that Backlight needs are those of this environment; Backlight itself is the wheel's.
    venv.create(tmp_path / "venv")
    python = tmp_path / "venv" / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--python", python]
    subprocess.run([*pip, "install", "--quiet", "--no-deps", wheel], check=True)
    (site,) = (tmp_path / "venv" / "lib").glob("python*/site-packages")
    (ours,) = {Path(path) for path in sys.path if path.endswith("site-packages")}
    (site / "packages.pth").write_text(f"{ours}\n")
    answer = subprocess.run(
        [tmp_path / "venv" / "bin" / "backlight-train", "data=iris", "trainer.max_epochs=2", "hydra.run.dir=run"],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert answer.returncode == 0, answer.stderr
    assert (tmp_path / "run" / "summary.json").exists()
    where = subprocess.run(
        [python, "-c", "import backlight.command as c; print(c.config_folder())"],
        cwd=tmp_path, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert Path(where.stdout.strip()) == site / "backlight" / "conf"


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 256 KiB, not the one of the system's temporary folder."""
    disk = tmp_path / "disk"
    disk.mkdir()
    if os.name != "posix" or os.geteuid() != 0 or shutil.which("mount") is None:
        pytest.skip("needs root and mount for a small disk")
    if subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(disk)], check=False
    ).returncode:
        pytest.skip("this machine does not let tests mount a disk")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


def test_checkpoint_that_does_not_fit_leaves_the_old_one(train: Train, small_disk: Path) -> None:
    # The run's own trainer saves, so that this fails if it is given another way to write.
    run = train("data=moons")
    config = OmegaConf.to_container(OmegaConf.load(run.path / ".hydra" / "config.yaml"), resolve=True)
    trainer = assemble(config, RunFolder(small_disk / "run")).trainer  # type: ignore[arg-type]
    path = small_disk / "last.ckpt"
    trainer.strategy.checkpoint_io.save_checkpoint({"weight": torch.ones(30_000)}, path)
    with pytest.raises(OSError, match="No space left"):
        trainer.strategy.checkpoint_io.save_checkpoint({"weight": torch.ones(60_000)}, path)
    assert torch.load(path, weights_only=True)["weight"].sum() == 30_000
    assert [file.name for file in small_disk.iterdir()] == ["last.ckpt"]


@pytest.mark.slow
def test_full_disk_is_one_sentence_and_keeps_the_checkpoint(tmp_path: Path, small_disk: Path) -> None:
    result = subprocess.run(
        [sys.executable, str(ROOT / "train.py"), "data=moons", "trainer.max_epochs=100000", "hydra.run.dir=disk/run"],
        cwd=tmp_path, capture_output=True, text=True, check=False, timeout=200,
    )  # fmt: skip
    assert result.returncode == 2
    assert "No space left on device" in result.stderr
    assert "Traceback" not in result.stderr
    checkpoint = torch.load(small_disk / "run" / "checkpoints" / "last.ckpt", weights_only=True)
    assert checkpoint["epoch"] >= 0


@pytest.mark.usefixtures("two_threads")
def test_forked_processes_share_the_work_in_its_order() -> None:
    def work(item: int) -> tuple[int, int]:
        time.sleep(0.05)
        return item, os.getpid()

    found = forked_map(work, range(5), 2)
    assert [item for item, _ in found] == list(range(5))
    assert len({process for _, process in found} - {os.getpid()}) == 2


@pytest.mark.usefixtures("two_threads")
def test_an_interruption_ends_forked_processes_early(tmp_path: Path) -> None:
    def work(item: int) -> None:
        while not is_abandoned():
            (tmp_path / str(item)).touch()
            time.sleep(0.01)

    def interrupt() -> None:
        if len(list(tmp_path.iterdir())) == 2:
            os.kill(os.getpid(), signal.SIGINT)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            forked_map(work, range(4), 2, interrupt)
    finally:
        assert signal.signal(signal.SIGINT, before) is signal.default_int_handler
    assert {path.name for path in tmp_path.iterdir()} == {"0", "1"}, "the other two were not begun"


def test_fewer_forked_processes_than_cores_compute() -> None:
    script = """
import torch
from backlight.processes import forked_map

torch.set_num_threads(4)
large = torch.ones(1000, 1000)

def total(item):
    return forked_map(lambda other: item * other * large.sigmoid().sum().item(), [1, 2], 2)

own = total(1)[0]
assert own > 0
assert forked_map(total, [1, 2], 2) == [[own, 2 * own], [2 * own, 4 * own]]
"""
    # Where a forked process has several threads it waits for ever for those of its parent.
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)


def test_forked_processes_end_when_nobody_waits_for_them(tmp_path: Path) -> None:
    script = """
import os, signal, sys, time
from pathlib import Path
import torch
from backlight.processes import forked_map, is_abandoned

folder = Path(sys.argv[1])
torch.set_num_threads(2)

def work(item):
    (folder / f"begun{item}").touch()
    while not is_abandoned():
        time.sleep(0.01)
    (folder / f"ended{item}").touch()

def die():
    if len(list(folder.iterdir())) == 2:
        os.kill(os.getpid(), signal.SIGKILL)

forked_map(work, range(2), 2, die)
"""
    # Whoever is still there has its output open, which is then waited for.
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)], capture_output=True, check=False, timeout=60
    )
    assert done.returncode == -signal.SIGKILL
    assert len(list(tmp_path.glob("ended*"))) == 2
