"""What a person finds in TensorBoard, read back from the event files."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData
from torch.utils.tensorboard import SummaryWriter

from backlight.callbacks.tensorboard import write_histograms
from tests.conftest import TrainedRun

Train = Callable[..., TrainedRun]


def events(run: TrainedRun) -> EventAccumulator:
    return events_in(run.path)


def events_in(run: Path) -> EventAccumulator:
    return EventAccumulator(str(run / "tensorboard"), {"images": 0, "scalars": 0, "histograms": 0}).Reload()


def test_everything_is_there(train: Train) -> None:
    run = train("data=moons", "trainer.max_epochs=12", "model.hidden=[4,3]", pictures=True)
    reader = events(run)
    tags = reader.Tags()
    layers = [f"layers.{layer}" for layer in range(3)]
    assert {
        "train/loss", "train/accuracy", "train/step_loss", "val/loss", "val/auroc", "test/loss", "test/f1", "lr",
        "gradient_norm/total", *(f"gradient_norm/{layer}" for layer in layers),
    } <= set(tags["scalars"])  # fmt: skip
    assert "hp_metric" not in tags["scalars"]
    assert set(tags["histograms"]) == {
        f"{kind}/{layer}.{part}" for kind in ("weights", "gradients") for layer in layers for part in ("weight", "bias")
    } | {f"deltas/{layer}" for layer in layers}  # fmt: skip
    assert {
        "decision_boundary", "error_contributions", "test/confusion_matrix", "test/roc", "test/precision_recall",
        "test/calibration",
    } == set(tags["images"])  # fmt: skip
    assert tags["graph"]
    assert "config/text_summary" in tags["tensors"]
    assert b"hidden:" in reader.Tensors("config/text_summary")[0].tensor_proto.string_val[0]

    assert [event.step for event in reader.Scalars("train/step_loss")] == list(range(0, 12 * 22, 10))
    assert len(reader.Scalars("train/loss")) == 12
    assert [event.step for event in reader.Histograms("weights/layers.0.weight")] == [0, 100, 200]
    # Pictures at epochs 1, 2, 3, 4, 5, 7, 9, 12: evenly spaced on a log scale.
    assert len(reader.Images("decision_boundary")) == 8
    total = reader.Scalars("gradient_norm/total")[3].value
    parts = [reader.Scalars(f"gradient_norm/{layer}")[3].value for layer in layers]
    assert total == pytest.approx(sum(part**2 for part in parts) ** 0.5, rel=1e-5)


def test_names_are_no_formulas(train: Train, tmp_path: Path) -> None:
    rows = "".join(f"{i % 7},{i % 3},{'$x^{$ one' if i % 2 else 'two'}\n" for i in range(120))
    (tmp_path / "odd.csv").write_text("$\\frac{a$,b,y\n" + rows)
    run = train("data=table", f"data.path={tmp_path}/odd.csv", "data.target=y", pictures=True)
    assert {"decision_boundary", "test/confusion_matrix", "test/roc"} <= set(events(run).Tags()["images"])


def test_hparams_carry_the_final_metrics(train: Train) -> None:
    run = train("data=iris", "optimizer.lr=0.25")
    reader = events(run)
    start = HParamsPluginData.FromString(
        reader.SummaryMetadata("_hparams_/session_start_info").plugin_data.content
    ).session_start_info
    assert start.hparams["optimizer.lr"].number_value == 0.25
    assert start.hparams["model.hidden"].string_value == "[5]"
    experiment = HParamsPluginData.FromString(
        reader.SummaryMetadata("_hparams_/experiment").plugin_data.content
    ).experiment
    named = {info.name.tag for info in experiment.metric_infos}
    assert named == set(run.summary["metrics"])
    for tag in named:
        assert reader.Scalars(tag)[-1].value == pytest.approx(run.summary["metrics"][tag], rel=1e-6)


def test_what_is_null_is_off(train: Train) -> None:
    run = train(
        "data=moons",
        "callbacks.backprop=null",
        "callbacks.gradients=null",
        "callbacks.evaluation_plots=null",
        "callbacks.decision_boundary=null",
    )
    tags = events(run).Tags()
    assert not tags["images"]
    assert not tags["histograms"]
    assert not any(tag.startswith("gradient_norm") for tag in tags["scalars"])


def test_first_gradient_norm_is_that_of_autograd(train: Train) -> None:
    import torch

    from backlight.assemble import build_data
    from backlight.model import SigmoidMLP

    run = train("data=moons", "data.batch_size=full", "trainer.gradient_clip_val=1e-6")
    data = build_data({"source": "moons", "seed": 0}, run_seed=0)
    data.setup()
    x, y = data.part("train")
    model = SigmoidMLP(2, [5], seed=0)
    torch.nn.functional.binary_cross_entropy_with_logits(model(x), y).backward()
    expected = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None]).norm().item()
    assert events(run).Scalars("gradient_norm/total")[0].value == pytest.approx(expected, rel=1e-5)


def test_lbfgs_logs_each_step_once(train: Train) -> None:
    run = train("data=moons", "optimizer=lbfgs", "data.batch_size=full", "trainer.log_every_n_steps=1")
    steps = [event.step for event in events(run).Scalars("gradient_norm/total")]
    assert steps == [0, 1, 2]


def test_histograms_count_every_entry(tmp_path: Path) -> None:
    torch.manual_seed(0)
    tensors = {
        "normal": torch.randn(300, 70),
        "same": torch.full((5,), 2.0),
        "none": torch.tensor([1.0, torch.nan]),
    }
    with SummaryWriter(str(tmp_path)) as writer:
        write_histograms(writer, tensors, 7)
    events = EventAccumulator(str(tmp_path), {"histograms": 0}).Reload()
    assert set(events.Tags()["histograms"]) == {"normal", "same"}
    for tag in ("normal", "same"):
        (event,), values = events.Histograms(tag), tensors[tag].double().numpy().ravel()
        found = event.histogram_value
        assert event.step == 7
        low = values.min() - (0.5 if tag == "same" else 0)
        edges = np.array([low, *found.bucket_limit])
        assert abs(np.histogram(values, edges)[0] - found.bucket).max() <= 1  # one at an edge, rounded
        assert (found.num, sum(found.bucket)) == (len(values), len(values))
        assert found.sum == pytest.approx(values.sum(), rel=1e-4, abs=0.01)
        assert found.sum_squares == pytest.approx((values**2).sum(), rel=1e-5)


def test_a_histogram_of_deltas_too_small_for_bins(tmp_path: Path) -> None:
    """As those of the first of hundreds of layers."""
    with SummaryWriter(str(tmp_path)) as writer:
        write_histograms(writer, {"deltas": torch.tensor([0.0, 1e-44, 2e-44])}, 0)
    events = EventAccumulator(str(tmp_path), {"histograms": 0}).Reload()
    assert sum(events.Histograms("deltas")[0].histogram_value.bucket) == 3
