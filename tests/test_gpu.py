"""On a GPU training is what it is on the CPU, to rounding, and nothing waits for it at each step."""

import json
import warnings
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
import torch

from tests.conftest import Call, TrainedRun
from tests.test_chunk import experiment
from tests.test_train import metrics_of, weights_of

Train = Callable[..., TrainedRun]

pytestmark = pytest.mark.skipif(
    not torch.cuda.is_available(), reason="needs an NVIDIA GPU; this machine has none"
)

RUNS = [
    ["data=moons"],
    ["data=iris", "optimizer=adam", "scheduler=cosine", "model.hidden=[6,4]", "model.activation=tanh"],
    ["data=digits", "model.backward=autograd", "data.batch_size=100"],
    ["data=iris", "optimizer=lbfgs", "optimizer.max_iter=2", "data.batch_size=full"],
    ["data=moons", "loss.class_weight=balanced", "loss.label_smoothing=0.1", "trainer.gradient_clip_val=0.05"],
]  # fmt: skip


def assert_close(ours: Path, theirs: Path) -> None:
    expected, found = weights_of(theirs), weights_of(ours)
    for name in expected:
        torch.testing.assert_close(found[name], expected[name], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("options", RUNS, ids=str)
def test_gpu_trains_what_the_cpu_trains(train: Train, options: list[str]) -> None:
    cpu, gpu = (train(*options, f"trainer={kind}", folder=kind) for kind in ("cpu", "gpu"))
    assert gpu.summary["device"].startswith("cuda")
    assert gpu.result.err == ""
    assert_close(gpu.path, cpu.path)
    for ours, theirs in zip(metrics_of(gpu.path), metrics_of(cpu.path), strict=True):
        assert ours == pytest.approx(theirs, rel=1e-3, abs=1e-3)


def test_reviews_train_on_a_gpu(train: Train, tmp_path: Path) -> None:
    """Rows of text are sparse."""
    words = ["good", "fine", "lovely", "poor", "bad", "awful"]
    rows = [(f"{words[i % 6]} {words[(i + i // 6) % 3 + i % 6 // 3 * 3]}", i % 6 < 3) for i in range(120)]
    pd.DataFrame(rows, columns=["text", "label"]).to_csv(tmp_path / "reviews.csv", index=False)
    options = ["data=text", "data.path=reviews.csv", "data.target=label", "data.column=text"]
    cpu, gpu = (train(*options, f"trainer={kind}", folder=kind) for kind in ("cpu", "gpu"))
    assert_close(gpu.path, cpu.path)


def test_the_same_bits_each_time_also_after_a_stop(train: Train, call: Call) -> None:
    options = ["data=moons", "optimizer=adam", "scheduler=exponential", "trainer=gpu"]
    first, again = (train(*options, "trainer.max_epochs=6", folder=name) for name in ("first", "again"))
    stopped = train(*options, "trainer.max_epochs=4", folder="stopped")
    result = call("train", "resume=stopped", "trainer.max_epochs=6")
    assert result.code == 0, result.err
    expected = weights_of(first.path)
    for run in (again, stopped):
        assert all(torch.equal(weights_of(run.path)[name], expected[name]) for name in expected)
        assert (run.path / "metrics.csv").read_bytes() == (first.path / "metrics.csv").read_bytes()


@pytest.mark.parametrize("graphs", ["false", "true"])
def test_nothing_waits_for_the_gpu_at_each_step(tmp_path: Path, graphs: str) -> None:
    def waits(batch_size: int) -> int:
        """How often the CPU waited for the GPU in three epochs of 2,048 rows."""
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            torch.cuda.set_sync_debug_mode("warn")
            try:
                run = experiment(
                    tmp_path / f"{batch_size}", "data.n_samples=2048", "data.val_fraction=0", "data.test_fraction=0",
                    f"data.batch_size={batch_size}", "trainer=gpu", "callbacks.backprop.cadence=epoch",
                    "callbacks.gradients.histogram_every_n_steps=0", f"trainer.cuda_graphs={graphs}",
                )  # fmt: skip
            finally:
                torch.cuda.set_sync_debug_mode("default")
        assert run.trainer.global_step == 3 * 2048 // batch_size
        return sum("synchronizing CUDA operation" in str(warning.message) for warning in caught)

    waits(32)  # what is set up once
    assert waits(8) <= waits(32) + 3  # 576 more steps


@pytest.mark.parametrize(
    "options",
    [
        ["optimizer.momentum=0.9", "optimizer.nesterov=true", "trainer.gradient_clip_val=0.05"],
        ["optimizer=adam", "scheduler=exponential"],
        ["optimizer=adam", "model.hidden=[400,40]"],
        ["optimizer=adamw", "loss.label_smoothing=0.1", "loss.class_weight=balanced"],
        ["optimizer=rmsprop", "optimizer.momentum=0.5"],
    ],
    ids=str,
)
def test_graphs_make_the_steps_that_are_made_without(train: Train, call: Call, options: list[str]) -> None:
    """300 rows in batches of 32: the last one is smaller."""
    shared = ["data=moons", "data.n_samples=430", "trainer=gpu", *options]
    eager = train(*shared, "trainer.max_epochs=5", folder="eager")
    graphs = train(*shared, "trainer.max_epochs=5", "trainer.cuda_graphs=true", folder="graphs")
    assert_close(graphs.path, eager.path)
    assert graphs.summary["steps"] == eager.summary["steps"] == 50
    parts = train(*shared, "trainer.max_epochs=3", "trainer.cuda_graphs=true", folder="parts")
    assert call("train", "resume=parts", "trainer.max_epochs=5").code == 0
    assert_close(parts.path, graphs.path)


def test_graphs_refuse_what_they_cannot_repeat(call: Call) -> None:
    for option in ("model.backward=autograd", "optimizer=lbfgs"):
        result = call("train", "trainer=gpu", "trainer.cuda_graphs=true", option)
        assert result.code == 2
        assert "trainer.cuda_graphs=true: only" in result.err


@pytest.mark.parametrize(
    "options", [["optimizer=sgd"], ["optimizer=adam", "model.backward=autograd"]], ids=str
)
def test_a_member_of_a_population_is_its_single_run(
    call: Call, train: Train, tmp_path: Path, options: list[str]
) -> None:
    shared = ["data=iris", "trainer=gpu", "trainer.max_epochs=5", *options]
    result = call("train", "-m", *shared, "seed=range(4)", "hydra.sweep.dir=sweep")
    assert result.code == 0, result.err
    for seed in range(4):
        alone = train(*shared, f"seed={seed}", folder=f"alone{seed}")
        trial = tmp_path / "sweep" / str(seed)
        assert "backlight.population" in (trial / "train.log").read_text()
        assert json.loads((trial / "summary.json").read_text())["device"].startswith("cuda")
        assert_close(trial, alone.path)


def test_a_run_of_a_gpu_is_used_like_any_other(call: Call, train: Train, tmp_path: Path) -> None:
    run = train("data=moons", "trainer=gpu", "optimizer=adam")
    (tmp_path / "rows.csv").write_text("x0,x1\n0.1,0.2\n1.5,-0.5\n")
    said = []
    for kind in ("cpu", "gpu"):
        said.append(call("evaluate", "run=run", f"accelerator={kind}").out)
        result = call("predict", "run=run", "input=rows.csv", f"output={kind}.csv", f"accelerator={kind}")
        assert result.code == 0, result.err
    assert said[0] == said[1]
    ours, theirs = (pd.read_csv(tmp_path / f"{kind}.csv") for kind in ("gpu", "cpu"))
    pd.testing.assert_frame_equal(ours, theirs, rtol=1e-4, atol=1e-5)
    for command in (["explain", "run=run"], ["diagnose", "run=run"], ["gradcheck", "run=run"]):
        result = call(*command)
        assert result.code == 0, result.err
    assert run.summary["diagnosis"] is not None
