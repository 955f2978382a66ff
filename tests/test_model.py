import pytest
import torch
from torch import nn

from backlight.model import Init, SigmoidMLP


def test_default_start_is_that_of_pytorch() -> None:
    torch.manual_seed(7)
    expected = nn.Sequential(nn.Linear(10, 5), nn.Sigmoid(), nn.Linear(5, 3), nn.Sigmoid(), nn.Linear(3, 1))
    model = SigmoidMLP(10, [5, 3], seed=7)
    x = torch.randn(4, 10)
    assert torch.equal(model(x), expected(x))


def test_global_generator_is_left_alone() -> None:
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    SigmoidMLP(10, [5], init="normal", seed=1)
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize(
    ("init", "deviation"),
    [
        ("xavier", (2 / (400 + 300)) ** 0.5),
        ("lecun", (1 / 400) ** 0.5),
        ("he", (2 / 400) ** 0.5),
        ("normal", 1.0),
    ],
)
def test_init_has_its_deviation(init: Init, deviation: float) -> None:
    weight = SigmoidMLP(400, [300], init=init, init_scale=0.5, seed=3).linear_layers[0].weight
    assert weight.std().item() == pytest.approx(0.5 * deviation, rel=0.02)
    assert abs(weight.mean().item()) < 0.01 * deviation


def test_constant_init_is_its_scale_and_zeros_are_zero() -> None:
    constant = SigmoidMLP(3, [2], init="constant", init_scale=0.3)
    assert all(
        torch.all(layer.weight == 0.3) and torch.all(layer.bias == 0) for layer in constant.linear_layers
    )
    assert all(torch.all(layer.weight == 0) for layer in SigmoidMLP(3, [2], init="zeros").linear_layers)


def test_seed_decides_the_weights() -> None:
    def first(seed: int) -> torch.Tensor:
        return SigmoidMLP(4, [3], seed=seed).linear_layers[0].weight

    assert torch.equal(first(1), first(1))
    assert not torch.equal(first(1), first(2))


@pytest.mark.parametrize(
    ("options", "start"),
    [
        ({"hidden": []}, "hidden="),
        ({"hidden": [3, 0]}, "hidden="),
        ({"activation": "step"}, "activation="),
        ({"init": "ones"}, "init="),
        ({"init_scale": 0.0}, "init_scale="),
        ({"init_scale": float("nan")}, "init_scale="),
    ],
)
def test_refuses(options: dict[str, object], start: str) -> None:
    with pytest.raises(ValueError, match=f"^{start}"):
        SigmoidMLP(2, **options)  # type: ignore[arg-type]
