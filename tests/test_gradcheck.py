"""`python scripts/gradcheck.py`."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from backlight.backprop.activations import ACTIVATIONS
from tests.conftest import Call, TrainedRun


def test_fresh_and_trained_networks_agree(call: Call, train: Callable[..., TrainedRun]) -> None:
    train("data=iris", "loss.class_weight=balanced", "loss.label_smoothing=0.1")
    for arguments in (["run=run"], ["data=moons", "model.hidden=[3,3]", "model.activation=tanh"]):
        result = call("gradcheck", *arguments)
        assert result.code == 0, result.err
        assert "layers.1.weight" in result.out
        assert "differs" not in result.out


def test_disagreement_is_an_exit_code(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    right = ACTIVATIONS["sigmoid"]
    wrong = replace(right, backward_=lambda *args: right.backward_(*args) * (1 + 1e-4))
    monkeypatch.setitem(ACTIVATIONS, "sigmoid", wrong)
    result = call("gradcheck", "data=moons")
    assert result.code == 1
    assert "differs" in result.out
