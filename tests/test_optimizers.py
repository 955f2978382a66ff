"""Schedules against their formulas; optimizers are torch's own, so only their options are checked."""

import math

import pytest
import torch
from torch import nn
from torch.optim import SGD, Optimizer

from backlight.optimizers import OPTIMIZERS, SCHEDULES


def rates(name: str, epochs: int, **options: float) -> list[float]:
    optimizer = SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    schedule = SCHEDULES[name](optimizer, epochs, **options)
    values = []
    for _ in range(epochs):
        values.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        if schedule is not None:
            schedule.step()
    return values


def test_constant() -> None:
    assert rates("constant", 3) == [1, 1, 1]


def test_step() -> None:
    assert rates("step", 5, every_n_epochs=2, factor=0.5) == [1, 1, 0.5, 0.5, 0.25]


def test_exponential() -> None:
    assert rates("exponential", 4, factor=0.9) == pytest.approx([0.9**epoch for epoch in range(4)])


def test_cosine() -> None:
    expected = [0.1 + 0.9 * (1 + math.cos(math.pi * epoch / 8)) / 2 for epoch in range(8)]
    assert rates("cosine", 8, final_fraction=0.1) == pytest.approx(expected)


@pytest.mark.filterwarnings("ignore:The epoch parameter in")  # SequentialLR's own call
def test_cosine_with_warm_up_rises_to_the_rate_and_falls_from_it() -> None:
    values = rates("cosine", 10, warmup_epochs=3)
    assert values[:4] == pytest.approx([1 / 4, 1 / 2, 3 / 4, 1])
    assert values[3:] == pytest.approx([(1 + math.cos(math.pi * epoch / 7)) / 2 for epoch in range(7)])


def test_plateau_waits_for_its_patience() -> None:
    optimizer = SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    schedule = SCHEDULES["plateau"](optimizer, 10, factor=0.5, patience=1)
    assert schedule is not None
    seen = []
    for loss in (1.0, 1.0, 1.0, 1.0, 1.0):
        schedule.step(loss)  # type: ignore[arg-type]
        seen.append(optimizer.param_groups[0]["lr"])
    assert seen == [1, 1, 0.5, 0.5, 0.25]


@pytest.mark.parametrize(
    ("name", "options", "expected"),
    [
        ("sgd", {"lr": 0.1, "momentum": 0.9, "nesterov": True}, {"lr": 0.1, "momentum": 0.9, "nesterov": True}),
        ("adam", {"lr": 0.1, "beta1": 0.8, "beta2": 0.9, "weight_decay": 0.2}, {"betas": (0.8, 0.9), "weight_decay": 0.2}),
        ("adamw", {"lr": 0.1, "eps": 1e-6}, {"eps": 1e-6, "weight_decay": 0.01}),
        ("rmsprop", {"lr": 0.1, "alpha": 0.5, "momentum": 0.3}, {"alpha": 0.5, "momentum": 0.3}),
        ("lbfgs", {"lr": 0.5, "max_iter": 7, "line_search": False}, {"lr": 0.5, "max_iter": 7, "line_search_fn": None}),
    ],
)  # fmt: skip
def test_options_arrive(name: str, options: dict[str, float], expected: dict[str, object]) -> None:
    optimizer: Optimizer = OPTIMIZERS[name]([nn.Parameter(torch.zeros(1))], **options)
    assert {key: optimizer.param_groups[0][key] for key in expected} == expected


def test_refuses() -> None:
    parameters = [nn.Parameter(torch.zeros(1))]
    with pytest.raises(ValueError, match=r"^nesterov="):
        OPTIMIZERS["sgd"](parameters, lr=0.1, nesterov=True)
    with pytest.raises(ValueError, match=r"^warmup_epochs="):
        SCHEDULES["cosine"](SGD(parameters, lr=1.0), 5, warmup_epochs=5)
