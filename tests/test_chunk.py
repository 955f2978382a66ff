"""Many optimizer steps in one `training_step` are the steps one by one."""

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from hydra import compose, initialize_config_dir
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch.utils.data import DataLoader, TensorDataset

from backlight.assemble import Experiment, assemble
from backlight.classifier import Classifier
from backlight.command import config_folder
from backlight.config import plain, task_of
from backlight.model import SigmoidMLP
from backlight.run_folder import RunFolder


class EveryStep(Callback):
    """Somebody else's callback, which counts on being called at each step."""

    def __init__(self) -> None:
        self.steps: list[int] = []

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        self.steps.append(trainer.global_step)


def experiment(folder: Path, *overrides: str, callbacks: tuple[Callback, ...] = ()) -> Experiment:
    with initialize_config_dir(str(config_folder()), version_base="1.3"):
        options = ["data.n_samples=300", "trainer.max_epochs=3", "callbacks.progress=null", *overrides]
        config = plain(task_of(compose("train", options)))
    built = assemble(config, RunFolder(folder))
    built.trainer.callbacks[:0] = callbacks  # type: ignore[attr-defined]
    built.trainer.fit(built.classifier, built.data)
    return built


def scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    reader = EventAccumulator(str(folder / "tensorboard")).Reload()
    return {tag: [(e.step, e.value) for e in reader.Scalars(tag)] for tag in reader.Tags()["scalars"]}


pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")


@pytest.mark.parametrize(
    "overrides",
    [
        ["trainer.log_every_n_steps=2", "callbacks.backprop.cadence=epoch"],
        ["optimizer=adam", "trainer.gradient_clip_val=0.01", "loss.label_smoothing=0.1"],
        ["optimizer=adamw", "model.hidden=[401,40]", "scheduler=exponential"],
        ["optimizer=lbfgs", "optimizer.max_iter=3"],
        ["model.backward=autograd"],
    ],
)
def test_chunks_change_no_bit(tmp_path: Path, overrides: list[str]) -> None:
    counter = EveryStep()
    overrides = ["trainer=cpu", *overrides]  # a GPU's norm hangs on where a gradient begins in its memory
    one_by_one = experiment(tmp_path / "steps", *overrides, callbacks=(counter,))
    chunked = experiment(tmp_path / "chunks", *overrides)

    assert counter.steps == list(range(1, 22))
    assert (one_by_one.trainer.num_training_batches, chunked.trainer.num_training_batches) == (7, 1)
    assert one_by_one.trainer.global_step == chunked.trainer.global_step == 21
    expected = one_by_one.classifier.state_dict()
    assert all(torch.equal(expected[name], value) for name, value in chunked.classifier.state_dict().items())
    written = scalars(tmp_path / "chunks")
    assert written == scalars(tmp_path / "steps")
    assert [step for step, _ in written["train/loss"]] == [6, 13, 20]
    assert (tmp_path / "chunks/metrics.csv").read_text() == (tmp_path / "steps/metrics.csv").read_text()


def test_anyones_loader_and_trainer_can_train_a_classifier(tmp_path: Path) -> None:
    x = torch.randn(40, 3, generator=torch.Generator().manual_seed(0))
    model = SigmoidMLP(3, [4])
    before = model.layers[0].weight.detach().clone()
    classifier = Classifier(model, torch.optim.SGD(model.parameters(), lr=0.1))
    trainer = Trainer(
        max_steps=8, accelerator="cpu", default_root_dir=tmp_path, enable_checkpointing=False, log_every_n_steps=3,
        enable_progress_bar=False, enable_model_summary=False, logger=CSVLogger(tmp_path, name="", version=""),
    )  # fmt: skip
    trainer.fit(classifier, DataLoader(TensorDataset(x, (x[:, :1] > 0).float()), batch_size=10))
    assert trainer.global_step == 8
    written = pd.read_csv(tmp_path / "metrics.csv")
    assert written["step"][written["train/step_loss"].notna()].tolist() == [0, 3, 6]
    assert written["step"][written["train/loss"].notna()].tolist() == [3, 7]
    assert not torch.equal(before, model.layers[0].weight)


def test_anyones_callbacks_and_trainer_are_told_the_figures(tmp_path: Path) -> None:
    best = ModelCheckpoint(tmp_path, monitor="val/loss")
    made = experiment(tmp_path, "data.standardize=false", callbacks=(best,))
    assert best.best_model_score == min(value for _, value in scalars(tmp_path)["val/loss"])
    (figures,) = made.trainer.validate(made.classifier, made.data, verbose=False)
    x, y = made.data.part("val")
    loss = torch.nn.functional.binary_cross_entropy_with_logits(made.classifier(x), y)
    assert figures["val/loss"] == pytest.approx(loss.item(), rel=1e-5)
    assert figures["val/loss"] == pytest.approx(made.trainer.callback_metrics["val/loss"].item())


def test_what_was_trained_in_chunks_goes_on_with_anyones_loader(tmp_path: Path) -> None:
    """The second training steps with torch.optim itself, on what the first left of its state."""
    first = experiment(tmp_path, "optimizer=adam")
    model, optimizer = first.classifier.model, first.classifier.optimizer
    x, y = first.data.part("train")
    expected = SigmoidMLP(10, [5])
    expected.load_state_dict(model.state_dict())
    alone = torch.optim.Adam(expected.parameters(), lr=optimizer.param_groups[0]["lr"])
    state = optimizer.state_dict()
    for number, of_one in state["state"].items():
        state["state"][number] = {name: value.clone() for name, value in of_one.items()}
    alone.load_state_dict(state)
    trainer = Trainer(
        max_epochs=1, accelerator="cpu", default_root_dir=tmp_path, logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(first.classifier, DataLoader(TensorDataset(x, y), batch_size=32))
    for rows, targets in zip(x.split(32), y.split(32), strict=True):
        alone.zero_grad()
        torch.nn.functional.binary_cross_entropy_with_logits(expected(rows), targets).backward()
        alone.step()
    for parameter, other in zip(model.parameters(), expected.parameters(), strict=True):
        torch.testing.assert_close(parameter, other)
