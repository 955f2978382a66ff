"""Stacked networks compute what each computes alone."""

from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional

from backlight.backprop.activations import ACTIVATIONS, ActivationName
from backlight.model import SigmoidMLP
from backlight.population.networks import ByAutograd, ByEquations, StackedNetwork


class OwnNetwork(nn.Module):
    """What a user may bring: shared weights, a convolution, a norm."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.randn(()))
        self.convolution = nn.Conv1d(1, 3, 3)
        self.norm = nn.LayerNorm(12)
        self.last = nn.Linear(12, 2)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.convolution(x[:, None] * self.scale).tanh().flatten(1)
        logits: Tensor = self.last(self.norm(hidden)) * self.scale
        return logits


def networks() -> list[tuple[StackedNetwork, list[nn.Module]]]:
    torch.manual_seed(0)
    mlps: list[nn.Module] = [SigmoidMLP(6, [4, 3], 2, activation="tanh", seed=seed) for seed in range(3)]
    own: list[nn.Module] = [OwnNetwork() for _ in range(3)]
    return [(ByEquations(ACTIVATIONS["tanh"]), mlps), (ByAutograd(mlps[0]), mlps), (ByAutograd(own[0]), own)]


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize(("network", "members"), networks(), ids=["equations", "autograd", "own"])
def test_gradients_are_those_of_each_alone(
    network: StackedNetwork, members: list[nn.Module], weighted: bool
) -> None:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(3, 5, 6, generator=generator)
    labels = torch.randint(0, 2, (3, 5), generator=generator)
    targets = functional.one_hot(labels, 2).float()
    weight = torch.tensor([[[1.0, 2.0]], [[0.5, 1.0]], [[3.0, 1.0]]]) if weighted else None
    parameters = network.stack([parameter.detach() for parameter in m.parameters()] for m in members)
    logits, gradients = network.gradients(x, targets, weight, parameters)
    torch.testing.assert_close(network.logits(x, parameters), logits)
    for index, member in enumerate(members):
        member.zero_grad()
        alone = member(x[index])
        torch.testing.assert_close(logits[index], alone)
        functional.binary_cross_entropy_with_logits(
            alone, targets[index], None if weight is None else weight[index, 0, labels[index], None]
        ).backward()
        for ours, theirs in zip(gradients, member.parameters(), strict=True):
            assert theirs.grad is not None
            torch.testing.assert_close(ours[index].reshape(theirs.shape), theirs.grad, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("activation", ["sigmoid", "tanh", "relu", "gelu"])
@pytest.mark.parametrize("batch", [1, 5, 7, 16, 32, 33, 100])
@pytest.mark.parametrize(("last_hidden", "outputs"), [(7, 3), (64, 1), (5, 1)])
def test_bits_are_those_of_each_alone(
    activation: ActivationName, batch: int, last_hidden: int, outputs: int
) -> None:
    """Wherever in memory a member's matrices lie, and however many there are, also where threads share them."""
    sizes, members = [10, 12, last_hidden, outputs], 20
    shapes = [shape for i, o in pairwise(sizes) for shape in ((o, i), (1, o))]
    parameters = [torch.randn(members, *shape) for shape in shapes]
    x, targets = torch.randn(members, batch, 13)[..., :10], torch.rand(members, batch, outputs)

    def gradients(some: slice) -> list[Tensor]:
        network = ByEquations(ACTIVATIONS[activation])
        logits, found = network.gradients(x[some], targets[some], None, [p[some].clone() for p in parameters])
        return [logits, *found]

    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    together = gradients(slice(None))
    torch.set_num_threads(1)
    alone = [gradients(slice(number, number + 1)) for number in range(members)]
    torch.set_num_threads(threads)
    for ours, theirs in zip(together, zip(*alone, strict=True), strict=True):
        assert torch.equal(ours, torch.cat(theirs))


SIZES = st.sampled_from([1, 2, 3, 4, 5, 10, 16, 33, 64, 128])


@settings(max_examples=60, deadline=None)
@given(features=SIZES, hidden=SIZES, batch=SIZES, groups=st.integers(1, 4), share=st.integers(1, 6))
def test_bits_of_shared_rows(features: int, hidden: int, batch: int, groups: int, share: int) -> None:
    """Members in a row that see the same rows."""
    members = groups * share
    parameters = [
        torch.randn(members, *shape)
        for shape in ((hidden, features), (1, hidden), (2, hidden), (1, 2))
    ]  # fmt: skip
    x, targets = torch.randn(groups, batch, features), torch.rand(members, batch, 2)
    each = x.repeat_interleave(share, dim=0)

    def gradients(x: Tensor) -> list[Tensor]:
        logits, found = ByEquations(ACTIVATIONS["tanh"]).gradients(
            x, targets, None, [parameter.clone() for parameter in parameters]
        )
        return [logits, *found]

    for ours, theirs in zip(gradients(x), gradients(each), strict=True):
        assert torch.equal(ours, theirs)
    network = ByEquations(ACTIVATIONS["tanh"])
    assert torch.equal(network.logits(x, parameters), network.logits(each, parameters))
    assert torch.equal(network.scores(x, parameters), network.scores(each, parameters))
