"""Schedules against their formulas; optimizers are torch's own, so only their options are checked."""

import math

import pytest
import torch
from torch import nn
from torch.optim import SGD, Adam, AdamW, Optimizer

from backlight.flat import FlatOptimizer
from backlight.model import SigmoidMLP
from backlight.optimizers import OPTIMIZERS, SCHEDULES
from backlight.threads import threads_for


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


@pytest.mark.parametrize(
    ("name", "options", "neurons"),
    [
        ("sgd", {}, 7),
        ("sgd", {}, 2001),
        ("sgd", {"momentum": 0.9, "weight_decay": 0.01}, 7),
        ("sgd", {}, 2048),  # they fill whole lines, so that gradients may stay where they lie
        ("sgd", {"momentum": 0.9, "weight_decay": 0.01}, 2048),
        ("sgd", {"momentum": 0.9, "nesterov": True, "weight_decay": 0.01}, 2001),
        ("adam", {}, 7),
        ("adamw", {}, 7),
        ("rmsprop", {"momentum": 0.5}, 7),
        ("rmsprop", {"momentum": 0.5}, 2001),
    ],
)
def test_all_parameters_at_once_make_the_same_steps(
    name: str, options: dict[str, float], neurons: int
) -> None:
    """Against torch.optim on each, over rates that change and a run that goes on from a checkpoint."""
    generator = torch.Generator().manual_seed(0)
    shapes = [(neurons, 10), (neurons,), (1, neurons), (1,)]
    started = [torch.randn(shape, generator=generator) for shape in shapes]

    def optimizer() -> tuple[list[nn.Parameter], Optimizer]:
        parameters = [nn.Parameter(tensor.clone()) for tensor in started]
        return parameters, OPTIMIZERS[name](parameters, lr=0.1, **options)

    parameters, expected = optimizer()
    others, given = optimizer()
    flat = FlatOptimizer(given)
    for chunk in range(6):
        if chunk == 3:
            state, values = given.state_dict(), [parameter.detach().clone() for parameter in others]
            others, given = optimizer()
            flat = FlatOptimizer(given)
            given.load_state_dict(state)
            for other, value in zip(others, values, strict=True):
                other.data.copy_(value)
        expected.param_groups[0]["lr"] = given.param_groups[0]["lr"] = 0.1 / (1 + chunk)
        with torch.no_grad(), flat:
            for step in range(5):
                gradients = [torch.randn(shape, generator=generator) for shape in shapes]
                for mine, theirs, gradient in zip(parameters, others, gradients, strict=True):
                    mine.grad = theirs.grad = gradient
                for theirs, memory in zip(others, flat.gradients, strict=True):
                    if step % 2 or (step and memory.numel() == 1):  # all, some or none of them lie there
                        theirs.grad = memory.copy_(theirs.grad)
                expected.step()
                flat.step()
        assert all(torch.equal(mine, theirs) for mine, theirs in zip(parameters, others, strict=True))
    torch.testing.assert_close(given.state_dict(), expected.state_dict(), rtol=0, atol=0)


@pytest.mark.parametrize("name", ["adam", "adamw"])
def test_the_fused_step_of_many_weights_is_the_plain_one(name: str) -> None:
    """Also where the weights of each input lie together, as for sparse rows."""
    models = [SigmoidMLP(800, [30]) for _ in range(2)]
    for model in models:
        model.gather_inputs()
    fused = OPTIMIZERS[name](list(models[0].parameters()), lr=0.1, weight_decay=0.1)
    plain = {"adam": Adam, "adamw": AdamW}[name](models[1].parameters(), lr=0.1, weight_decay=0.1)
    assert fused.param_groups[0]["fused"] and not plain.param_groups[0]["fused"]
    generator = torch.Generator().manual_seed(0)
    for _ in range(5):
        x = torch.randn(20, 800, generator=generator)
        for model, optimizer in zip(models, (fused, plain), strict=True):
            optimizer.zero_grad()
            model(x).square().mean().backward()
            optimizer.step()
    for ours, theirs in zip(models[0].parameters(), models[1].parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)


def test_other_optimizers_keep_their_parameters() -> None:
    model = SigmoidMLP(3, [4])
    assert FlatOptimizer.takes(SGD(model.parameters()), model)
    assert not FlatOptimizer.takes(SGD(model.layers[0].parameters()), model)
    assert not FlatOptimizer.takes(SGD([{"params": layer.parameters()} for layer in model.layers]), model)
    assert not FlatOptimizer.takes(torch.optim.LBFGS(model.parameters()), model)
    model.gather_inputs()
    assert not FlatOptimizer.takes(SGD(model.parameters()), model)


def test_small_products_have_one_thread() -> None:
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        with threads_for(1000):
            assert torch.get_num_threads() == 1
        with threads_for(10**9):
            assert torch.get_num_threads() == 3
        with pytest.raises(ValueError, match="diverged"), threads_for(1000):
            raise ValueError("diverged")
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(threads)
