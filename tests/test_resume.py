"""Runs that were stopped and go on."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.summary.writer.event_file_writer import EventFileWriter

from tests.conftest import Call, TrainedRun
from tests.test_train import metrics_of, weights_of

Train = Callable[..., TrainedRun]
TRAIN = str(Path(__file__).parents[1] / "train.py")
OPTIONS = ["data=moons", "optimizer=adam", "scheduler=exponential", "callbacks=early_stopping"]


def test_resumed_run_is_the_uninterrupted_one_bit_for_bit(train: Train, call: Call) -> None:
    whole = train(*OPTIONS, "trainer.max_epochs=9", folder="whole")
    parts = train(*OPTIONS, "trainer.max_epochs=4", folder="parts")
    result = call("train", "resume=parts", "trainer.max_epochs=9")
    assert result.code == 0, result.err
    for checkpoint in ("last", "best"):
        expected, resumed = weights_of(whole.path, checkpoint), weights_of(parts.path, checkpoint)
        assert all(torch.equal(expected[name], resumed[name]) for name in expected)
    assert (parts.path / "metrics.csv").read_bytes() == (whole.path / "metrics.csv").read_bytes()
    assert parts.summary["metrics"] == whole.summary["metrics"]
    assert (parts.summary["epochs"], parts.summary["steps"]) == (9, whole.summary["steps"])
    assert "max_epochs: 9" in (parts.path / ".hydra" / "config.yaml").read_text()
    overrides = (parts.path / ".hydra" / "overrides.yaml").read_text()
    assert "optimizer=adam" in overrides


def test_killed_run_repeats_only_what_its_checkpoint_lacks(train: Train, call: Call) -> None:
    # What a kill between the metrics row and the checkpoint leaves: rows and events of a lost epoch.
    whole = train(*OPTIONS, "trainer.max_epochs=5", folder="whole")
    killed = train(*OPTIONS, "trainer.max_epochs=3", folder="killed")
    earlier = (killed.path / "checkpoints" / "last.ckpt").read_bytes()
    assert call("train", "resume=killed", "trainer.max_epochs=4").code == 0
    (killed.path / "checkpoints" / "last.ckpt").write_bytes(earlier)
    (killed.path / "summary.json").unlink()
    assert len(metrics_of(killed.path)) == 4
    with (killed.path / "metrics.csv").open("a") as file:
        file.write("1")  # of a row that a full disk cut short

    assert call("train", "resume=killed", "trainer.max_epochs=5").code == 0

    assert (killed.path / "metrics.csv").read_bytes() == (whole.path / "metrics.csv").read_bytes()
    reader = EventAccumulator(str(killed.path / "tensorboard")).Reload()
    steps = [event.step for event in reader.Scalars("train/loss")]
    assert len(steps) == len(set(steps)) == 5


def test_a_run_killed_after_its_last_epoch_is_tested_and_summed_up(train: Train, call: Call) -> None:
    run = train("data=moons")
    expected = run.summary
    (run.path / "summary.json").unlink()
    assert call("train", "resume=run").code == 0
    for key in ("status", "metrics", "epochs", "steps", "diagnosis"):
        assert run.summary[key] == expected[key], key


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["resume=nowhere"], "resume=nowhere: not a run folder"),
        (["resume=run"], "the run is complete (3 epochs); give trainer.max_epochs above 3"),
        (["resume=run", "optimizer.lr=1"], "optimizer.lr=1: cannot change"),
        (["resume=run", "optimizer=adam"], "optimizer=adam: cannot change"),
        (["resume=run", "trainer.max_epochs=x"], "trainer.max_epochs=x: must be an integer"),
    ],
)
def test_refuses_and_changes_nothing(
    train: Train, call: Call, arguments: list[str], message: str, tmp_path: Path
) -> None:
    run = train("data=moons")
    before = {
        path: path.read_bytes() for path in run.path.rglob("*") if path.is_file() and path.suffix != ".log"
    }
    result = call("train", *arguments)
    assert result.code == 2
    assert message in result.err
    assert result.err.count("\n") == 1
    assert all(path.read_bytes() == content for path, content in before.items())
    assert not (tmp_path / "nowhere").exists()


def test_cosine_fixes_the_number_of_epochs(train: Train, call: Call) -> None:
    train("data=moons", "scheduler=cosine")
    result = call("train", "resume=run", "trainer.max_epochs=5")
    assert result.code == 2
    assert "scheduler=cosine" in result.err


def test_changed_data_is_refused(train: Train, call: Call, tmp_path: Path) -> None:
    rows = [f"{row % 7},{row % 2}" for row in range(60)]
    (tmp_path / "t.csv").write_text("a,y\n" + "\n".join(rows))
    train("data=table", "data.path=t.csv", "data.target=y")
    (tmp_path / "t.csv").write_text("a,y\n" + "\n".join([*rows, "1000,1"]))
    result = call("train", "resume=run", "trainer.max_epochs=5")
    assert result.code == 2
    assert "differ from those of the run" in result.err


def test_checkpoint_of_another_network_is_refused(train: Train, call: Call) -> None:
    run = train("data=moons")
    other = train("data=moons", "model.hidden=[7]", folder="other")
    (run.path / "checkpoints" / "last.ckpt").write_bytes(
        (other.path / "checkpoints" / "last.ckpt").read_bytes()
    )
    result = call("train", "resume=run", "trainer.max_epochs=5")
    assert result.code == 2
    assert "holds the network" in result.err


def test_a_checkpoint_of_another_version_is_read_but_not_trained_on(train: Train, call: Call) -> None:
    run = train("data=moons")
    last = run.path / "checkpoints" / "last.ckpt"
    checkpoint = torch.load(last, weights_only=True)
    checkpoint["form"] -= 1
    checkpoint["loss"] = {"label_smoothing": 0.0, "positive_weight": [3.0]}  # as form 2 has it
    torch.save(checkpoint, last)
    assert call("evaluate", "run=run", "checkpoint=last").code == 0
    result = call("train", "resume=run", "trainer.max_epochs=5")
    assert result.code == 2
    assert "last.ckpt: another version of Backlight left it" in result.err
    assert result.err.count("\n") == 1
    assert call("evaluate", "run=run", "checkpoint=last").code == 0


@pytest.mark.parametrize("content", [b"- a list", b"a: [", b"\xff\xfe", b"{}"])
def test_config_that_cannot_be_read(train: Train, call: Call, content: bytes) -> None:
    run = train("data=moons")
    (run.path / ".hydra" / "config.yaml").write_bytes(content)
    for result in (call("train", "resume=run", "trainer.max_epochs=5"), call("evaluate", "run=run")):
        assert result.code == 2
        assert ".hydra/config.yaml" in result.err
        assert result.err.count("\n") == 1


def test_config_that_lacks_a_key(train: Train, call: Call) -> None:
    run = train("data=moons")
    path = run.path / ".hydra" / "config.yaml"
    path.write_text(path.read_text().replace("  max_epochs: 3\n", ""))
    for result in (call("train", "resume=run", "trainer.max_epochs=5"), call("diagnose", "run=run")):
        assert result.code == 2
        assert ".hydra/config.yaml: not the config of a run; trainer.max_epochs is missing\n" in result.err
        assert result.err.count("\n") == 1


def test_ctrl_c_lets_what_is_being_written_end(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    """An interruption amid TensorBoard's `put` leaves its queue locked, and closing it then waits for ever."""
    write = EventFileWriter.add_event
    written = []

    def interrupt(writer: EventFileWriter, event: Event) -> None:
        if event.step and not written:
            os.kill(os.getpid(), signal.SIGINT)
            written.append(event)
        write(writer, event)

    monkeypatch.setattr(EventFileWriter, "add_event", interrupt)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        result = call("train", "data=moons", "trainer.max_epochs=9", "hydra.run.dir=run")
    finally:
        signal.signal(signal.SIGINT, before)
    assert written, "nothing came between the interruption and the write"
    assert result.code == 130
    assert "resume=run" in result.out


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "code", "status"),
    [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "interrupted"), (signal.SIGKILL, -9, None)],
)
def test_signals(
    tmp_path: Path, call: Call, train: Train, number: int, code: int, status: str | None
) -> None:
    process = subprocess.Popen(
        [sys.executable, TRAIN, *OPTIONS[:3], "trainer.max_epochs=100000", "hydra.run.dir=run"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        text=True,
        # A shell starts what it runs in the background with SIGINT ignored.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    checkpoint = tmp_path / "run" / "checkpoints" / "last.ckpt"
    deadline = time.monotonic() + 60
    while not checkpoint.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(0.5)
    os.kill(process.pid, number)
    out, _ = process.communicate(timeout=30)
    assert process.returncode == code
    assert ("to go on: python train.py resume=run" in out) == (status is not None)

    run = TrainedRun(tmp_path / "run", None)  # type: ignore[arg-type]
    assert (run.summary["status"] if status else None) == status
    assert (run.path / "summary.json").exists() == (status is not None)
    done = torch.load(checkpoint, weights_only=True)["epoch"] + 1
    epochs = done + 2
    assert call("train", "resume=run", f"trainer.max_epochs={epochs}").code == 0
    whole = train(*OPTIONS[:3], f"trainer.max_epochs={epochs}", folder="whole")
    assert (run.path / "metrics.csv").read_bytes() == (whole.path / "metrics.csv").read_bytes()
    resumed, expected = weights_of(run.path), weights_of(whole.path)
    assert all(torch.equal(resumed[name], expected[name]) for name in expected)
