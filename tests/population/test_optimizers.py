"""Each member's step is that of `torch.optim`."""

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.optim import Optimizer

from backlight.optimizers import OPTIMIZERS
from backlight.population.optimizers import STACKED

unit = st.floats(0, 0.99)
decay = st.sampled_from([0.0, 0.01, 0.3])
MEMBERS = {
    "sgd": st.builds(
        lambda momentum, nesterov, weight_decay: {
            "momentum": momentum, "nesterov": nesterov and momentum > 0, "weight_decay": weight_decay,
        },
        st.sampled_from([0.0, 0.5, 0.9]), st.booleans(), decay,
    ),
    "adam": st.fixed_dictionaries(
        {"beta1": unit, "beta2": unit, "eps": st.sampled_from([1e-8, 0.1]), "weight_decay": decay}
    ),
    "adamw": st.fixed_dictionaries({"beta1": unit, "beta2": unit, "weight_decay": decay}),
    "rmsprop": st.fixed_dictionaries({"alpha": unit, "momentum": st.sampled_from([0.0, 0.9]), "weight_decay": decay}),
}  # fmt: skip


def hyper(name: str, optimizers: list[Optimizer]) -> dict[str, Tensor]:
    """Settings of each, as the stacked one of this name takes them."""
    groups = [optimizer.param_groups[0] for optimizer in optimizers]
    return {
        setting: torch.tensor(
            [
                float(g["betas"][int(setting[-1]) - 1] if setting.startswith("beta") else g[setting])
                for g in groups
            ],
            dtype=torch.float64,
        )
        for setting in STACKED[name].names
    }


@pytest.mark.parametrize("name", STACKED)
@settings(deadline=None)
@given(data=st.data())
def test_steps_are_those_of_torch(name: str, data: st.DataObject) -> None:
    options = data.draw(st.lists(MEMBERS[name], min_size=1, max_size=4))
    rates = data.draw(st.lists(st.floats(1e-3, 1.0), min_size=len(options), max_size=len(options)))
    generator = torch.Generator().manual_seed(data.draw(st.integers(0, 1000)))
    shapes = [(3, 2), (1, 3)]
    start = [torch.randn(len(options), *shape, generator=generator, dtype=torch.float64) for shape in shapes]
    alone = [[torch.nn.Parameter(part[member].clone()) for part in start] for member in range(len(options))]
    optimizers = [
        OPTIMIZERS[name](parameters, lr=lr, **option)
        for parameters, lr, option in zip(alone, rates, options, strict=True)
    ]
    stacked = STACKED[name]([part.clone() for part in start], hyper(name, optimizers))

    for _ in range(4):
        gradients = [torch.randn(part.shape, generator=generator, dtype=torch.float64) for part in start]
        for member, optimizer in enumerate(optimizers):
            for parameter, gradient in zip(alone[member], gradients, strict=True):
                parameter.grad = gradient[member].clone()
            optimizer.step()
        stacked.step([gradient.clone() for gradient in gradients], torch.tensor(rates, dtype=torch.float64))
        for member, parameters in enumerate(alone):
            for ours, theirs in zip(stacked.parameters, parameters, strict=True):
                torch.testing.assert_close(ours[member], theirs.data, rtol=1e-6, atol=1e-9)
    for member, optimizer in enumerate(optimizers):
        for index, parameter in enumerate(alone[member]):
            for key, kept in optimizer.state[parameter].items():
                if key != "step" and kept is not None:
                    torch.testing.assert_close(stacked.state[key][index][member], kept)


def test_those_who_stay_go_on_as_before() -> None:
    start = torch.randn(3, 2, 2, generator=torch.Generator().manual_seed(0))
    gradient = torch.ones(3, 2, 2)
    hyper = {
        "beta1": torch.tensor([0.9, 0.5, 0.1]), "beta2": torch.tensor([0.99, 0.9, 0.8]),
        "eps": torch.full((3,), 1e-8), "weight_decay": torch.tensor([0.0, 0.1, 0.2]),
    }  # fmt: skip
    lr = torch.tensor([0.1, 0.2, 0.3])
    whole, fewer = (STACKED["adam"]([start.clone()], hyper) for _ in range(2))
    for optimizer in (whole, fewer):
        optimizer.step([gradient.clone()], lr)
    stay = torch.tensor([0, 2])
    fewer.keep(stay)
    whole.step([gradient.clone()], lr)
    fewer.step([gradient[stay]], lr[stay])
    torch.testing.assert_close(fewer.parameters[0], whole.parameters[0][stay])


def test_those_who_join_start_from_nothing() -> None:
    start = torch.randn(2, 2, 2, generator=torch.Generator().manual_seed(0))
    gradient = torch.ones(2, 2, 2)
    hyper = {
        "momentum": torch.tensor([0.0, 0.9]),
        "nesterov": torch.zeros(2),
        "weight_decay": torch.tensor([0.1, 0.0]),
    }
    lr = torch.tensor([0.1, 0.2])
    whole = STACKED["sgd"]([start.clone()], hyper)
    first, second = (
        STACKED["sgd"]([start[i : i + 1].clone()], {name: value[i : i + 1] for name, value in hyper.items()})
        for i in (0, 1)
    )
    first.join(second)
    for _ in range(3):
        whole.step([gradient.clone()], lr)
        first.step([gradient.clone()], lr)
    torch.testing.assert_close(first.parameters[0], whole.parameters[0])

    adam = {"beta1": 0.9, "beta2": 0.99, "eps": 1e-8, "weight_decay": 0.0}
    early, late = (
        STACKED["adam"]([start[:1].clone()], {name: torch.tensor([value]) for name, value in adam.items()})
        for _ in range(2)
    )
    early.step([gradient[:1].clone()], lr[:1])
    early.join(late)
    early.step([gradient.clone()], lr[:1].expand(2))
    late.step([gradient[:1].clone()], lr[:1])
    torch.testing.assert_close(early.parameters[0][1:], late.parameters[0])


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("sgd", {}), ("sgd", {"momentum": 0.9, "nesterov": True, "weight_decay": 0.1}), ("adam", {"weight_decay": 0.1}),
        ("adamw", {"weight_decay": 0.1}), ("rmsprop", {}), ("rmsprop", {"momentum": 0.9, "weight_decay": 0.1}),
    ],
)  # fmt: skip
def test_bits_are_those_of_torch(name: str, options: dict[str, Any]) -> None:
    """Of float32: where training is chaotic a last bit grows to all of them."""
    rates, shape = [0.001, 0.03, 0.1, 1.0, 7.0], (12, 64)
    start = torch.randn(len(rates), *shape)
    alone = [torch.nn.Parameter(own.clone()) for own in start]
    optimizers = [
        OPTIMIZERS[name]([parameter], lr=lr, **options) for parameter, lr in zip(alone, rates, strict=True)
    ]
    stacked = STACKED[name]([start.clone()], hyper(name, optimizers))
    for _ in range(5):
        gradients = torch.randn(len(rates), *shape)
        for parameter, gradient, optimizer in zip(alone, gradients, optimizers, strict=True):
            parameter.grad = gradient.clone()
            optimizer.step()
        stacked.step([gradients.clone()], torch.tensor(rates, dtype=torch.float64))
    assert torch.equal(stacked.parameters[0], torch.stack([parameter.detach() for parameter in alone]))
