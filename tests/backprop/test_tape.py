"""What is recorded is repeated on other numbers; what a tape cannot repeat is refused."""

import pytest
import torch
from torch import Tensor

from backlight.backprop.tape import Tape


def test_repeats_on_other_inputs_what_it_recorded() -> None:
    weight, counts, room = torch.randn(3, 2), torch.zeros(2), torch.empty(4, 2)

    def compute(x: Tensor) -> list[Tensor]:
        counts.add_(1)
        product = torch.mm(x.mT, weight.mT.contiguous().mT, out=room)
        return [
            product.sigmoid().sum(dim=0),
            product.sum() + x.relu(),
            (product - counts)[:, 1:].exp(),
            x[0],
            weight,
        ]

    x = torch.randn(3, 4)
    with Tape(x) as tape:
        tape.returns(compute(x))
    for _ in range(3):
        weight.mul_(2)
        x = torch.randn(5, 4)[2:]
        found = tape.repeat(x)
        counts.sub_(1)
        for mine, expected in zip(found, compute(x), strict=True):
            assert torch.equal(mine, expected)
    assert counts.tolist() == [4, 4]


def test_refuses_what_it_cannot_repeat() -> None:
    x = torch.randn(3)
    with pytest.raises(NotImplementedError, match="lists"), Tape(x):
        torch.cat([x, torch.ones(1)])
    with pytest.raises(NotImplementedError, match="one tensor"), Tape(x):
        x.sum().item()
