"""What the monitor shows of back-propagation: the numbers, when, and the pictures."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from tensorboard.plugins.custom_scalar import layout_pb2
from torch.optim import SGD

from backlight.assemble import build_data
from backlight.callbacks import backprop
from backlight.callbacks.history import History
from backlight.model import SigmoidMLP
from tests.conftest import Call, TrainedRun
from tests.test_tensorboard import events

Train = Callable[..., TrainedRun]

EVERY_STEP = ("callbacks.backprop.cadence=every_n_steps", "callbacks.backprop.every_n_steps=1")


def series(run: TrainedRun, tag: str) -> dict[int, float]:
    return {event.step: event.value for event in events(run).Scalars(tag)}


@pytest.mark.parametrize("backward", ["equations", "autograd"])
def test_scalars_are_those_of_plain_autograd(train: Train, backward: str) -> None:
    run = train(
        "data=moons",
        "data.batch_size=full",
        "optimizer.lr=0.5",
        "optimizer.momentum=0",
        f"model.backward={backward}",
        *EVERY_STEP,
    )
    data = build_data({"source": "moons", "seed": 0}, run_seed=0)
    data.setup()
    x, y = data.part("train")
    model = SigmoidMLP(2, [5], seed=0)
    pre_activations = []
    for step in range(3):
        z1 = model.layers[0](x)
        z2 = model.layers[1](torch.sigmoid(z1))
        pre_activations = [z1, z2]
        for z in pre_activations:
            z.retain_grad()
        model.zero_grad()
        torch.nn.functional.binary_cross_entropy_with_logits(z2, y).backward()
        rms = [z.grad.square().mean().sqrt().item() for z in pre_activations]
        slopes = [torch.sigmoid(z) * (1 - torch.sigmoid(z)) for z in pre_activations]
        for index, layer in enumerate(model.linear_layers):
            expected = {
                "rms_delta": rms[index],
                "saturation": (slopes[index] < 0.05).float().mean().item(),
                "update_to_weight": (0.5 * layer.weight.grad.norm() / layer.weight.norm()).item(),
            }
            for figure, value in expected.items():
                found = series(run, f"{figure}/layers.{index}")[step]
                assert found == pytest.approx(value, rel=1e-4, abs=1e-9), (figure, index, step)
        assert series(run, "survival/layers.0")[step] == pytest.approx(rms[0] / rms[1], rel=1e-4)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter -= 0.5 * parameter.grad


def test_clipping_changes_the_update_and_not_the_signal(train: Train) -> None:
    arguments = ("data=moons", "data.batch_size=full", *EVERY_STEP)
    free = train(*arguments, folder="free")
    clipped = train(*arguments, "trainer.gradient_clip_val=1e-4", folder="clipped")
    for figure in ("rms_delta", "gsnr"):
        tag = f"{figure}/layers.0"
        assert series(clipped, tag)[0] == pytest.approx(series(free, tag)[0], rel=1e-4)
    update = "update_to_weight/layers.0"
    assert series(clipped, update)[0] < 0.1 * series(free, update)[0]


@pytest.mark.parametrize("clip", ["null", "1e-3"])
def test_records_of_large_networks_say_the_same(
    train: Train, monkeypatch: pytest.MonkeyPatch, clip: str
) -> None:
    arguments = ("data=iris", "model.hidden=[4,3]", f"trainer.gradient_clip_val={clip}", *EVERY_STEP)
    together = events(train(*arguments, folder="together"))
    monkeypatch.setattr(backprop, "WAITING_ENTRIES", 0)
    alone = events(train(*arguments, folder="alone"))
    tags = [tag for tag in together.Tags()["scalars"] if "/layers." in tag and "norm" not in tag]
    assert len(tags) == 5 * 3 - 1
    for tag in tags:
        for one, other in zip(alone.Scalars(tag), together.Scalars(tag), strict=True):
            assert (one.step, one.value) == (other.step, pytest.approx(other.value, rel=1e-4))


@pytest.mark.parametrize(
    ("options", "steps", "doubled"),
    [
        ({"cadence": "every_n_steps", "every_n_steps": 20}, [0, 20, 40, 60], [0, 20, 40]),
        ({"cadence": "epoch"}, [0, 22, 44], [0, 22, 44]),
        # The steps whose number, counted from 1, crosses a twelfth of a power of ten; and the last.
        (
            {},
            [0, 1, 2, 3, 4, 5, 6, 8, 9, 12, 14, 17, 21, 26, 31, 38, 46, 56, 65],
            [0, 1, 3, 8, 17, 31, 65],
        ),
    ],
)
def test_cadence(train: Train, options: dict[str, object], steps: list[int], doubled: list[int]) -> None:
    run = train("data=moons", *(f"callbacks.backprop.{key}={value}" for key, value in options.items()))
    assert list(series(run, "rms_delta/layers.0")) == steps
    assert [event.step for event in events(run).Histograms("deltas/layers.0")] == doubled


@pytest.mark.parametrize("optimizer", ["lbfgs", "adam"])
def test_each_step_is_observed_once(train: Train, optimizer: str) -> None:
    run = train("data=moons", f"optimizer={optimizer}", "data.batch_size=full", *EVERY_STEP)
    assert list(series(run, "update_to_weight/layers.1")) == [0, 1, 2]


def test_one_page_shows_every_layer_side_by_side(train: Train) -> None:
    run = train("data=iris", "model.hidden=[4,3]")
    accumulator = events(run)
    content = accumulator.Tensors("custom_scalars__config__")[0].tensor_proto.string_val[0]
    layout = layout_pb2.Layout.FromString(content)
    (page,) = layout.category
    assert page.title == "Back-propagation"
    charts = {chart.title: list(chart.multiline.tag) for chart in page.chart}
    scalars = accumulator.Tags()["scalars"]
    for title, tags in charts.items():
        for pattern in tags:
            assert [tag for tag in scalars if re.fullmatch(pattern, tag)], title
    assert [tag for tag in scalars if tag.startswith("survival/")] == [
        "survival/layers.0",
        "survival/layers.1",
    ]
    assert "deltas/layers.2" in accumulator.Tags()["histograms"]
    assert "error_contributions" in accumulator.Tags()["images"]


def test_pictures_of_small_wide_and_deep_networks(train: Train) -> None:
    for number, hidden in enumerate(("[1]", "[300]", "[2,2,2,2,2,2]")):
        run = train("data=moons", f"model.hidden={hidden}", folder=f"run{number}")
        with Image.open(run.path / "backprop.png") as picture:
            width, height = picture.size
        assert 300 < width < 2000
        assert 200 < height < 2500


def test_a_run_that_diverged_has_its_picture(call: Call, tmp_path: Path) -> None:
    result = call("train", "data=moons", "optimizer.lr=1e38", "model.activation=relu", "hydra.run.dir=run")
    assert result.code == 2
    assert (tmp_path / "run" / "backprop.png").read_bytes().startswith(b"\x89PNG")


def test_a_run_that_fails_in_its_first_step_says_so(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("planted")

    monkeypatch.setattr(SGD, "step", fail)
    result = call("train", "data=moons", "hydra.run.dir=run")
    assert result.code == 1
    assert "RuntimeError: planted" in result.out + result.err


def test_switched_off_it_leaves_nothing(train: Train) -> None:
    run = train("data=moons", "callbacks.backprop=null")
    assert not (run.path / "backprop.png").exists()
    tags = events(run).Tags()
    assert not [tag for tag in tags["scalars"] if tag.startswith("rms_delta")]
    assert "custom_scalars__config__" not in tags["tensors"]


def test_a_resumed_run_draws_what_came_before(train: Train, call: Call, tmp_path: Path) -> None:
    options = ["data=moons", "callbacks.backprop.cadence=epoch"]
    run = train(*options, "trainer.max_epochs=2")
    result = call("train", "resume=run", "trainer.max_epochs=4")
    assert result.code == 0, result.err
    whole = train(*options, "trainer.max_epochs=4", folder="whole")
    checkpoint = torch.load(run.path / "checkpoints" / "last.ckpt", weights_only=True)
    (state,) = [state for key, state in checkpoint["callbacks"].items() if "BackpropMonitor" in key]
    assert state["heat"]["items"][0] == [0, 22, 44, 66]
    assert state["moments"]["items"][0] == [0, 22, 44, 66]
    assert (run.path / "backprop.png").read_bytes() == (whole.path / "backprop.png").read_bytes()


@given(st.integers(1, 8).map(lambda half: 2 * half), st.integers(0, 200))
def test_a_history_is_bounded_and_evenly_spaced(capacity: int, given_items: int) -> None:
    history: History[int] = History(capacity)
    for item in range(given_items):
        history.append(lambda item=item: item)
    assert len(history.items) <= capacity
    assert history.items == list(range(0, given_items, history.stride))
    if given_items > capacity:
        assert len(history.items) >= capacity / 2
