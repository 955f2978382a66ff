"""The equations against autograd and against central differences."""

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

from backlight.backprop import equations
from backlight.backprop.activations import ACTIVATIONS, ActivationName
from backlight.backprop.equations import ForwardPass
from backlight.backprop.step import Backpropagation, BackwardPass, PassMemory
from backlight.model import SigmoidMLP


@st.composite
def networks(draw: st.DrawFn) -> tuple[SigmoidMLP, Tensor, Tensor]:
    """A float64 network with a batch that fits it."""
    hidden = draw(st.lists(st.integers(1, 6), min_size=1, max_size=4))
    num_features, num_outputs, rows = (
        draw(st.integers(1, 5)),
        draw(st.integers(1, 4)),
        draw(st.integers(1, 7)),
    )
    seed = draw(st.integers(0, 2**32 - 1))
    model = SigmoidMLP(
        num_features,
        hidden,
        num_outputs,
        activation=draw(st.sampled_from(sorted(ACTIVATIONS))),
        init=draw(st.sampled_from(["default", "xavier", "lecun", "he", "normal"])),
        seed=seed,
    ).double()
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(rows, num_features, dtype=torch.float64, generator=generator)
    labels = torch.randint(0, max(2, num_outputs), (rows,), generator=generator)
    return (
        model,
        x,
        functional.one_hot(labels, num_outputs).double() if num_outputs > 1 else labels[:, None].double(),
    )


def weights(y: Tensor, first: float | None) -> tuple[Tensor | None, Tensor]:
    """A weight `[classes]` of each class, or None, and those `[rows, 1]` that the rows of y have by it."""
    if first is None:
        return None, torch.ones(len(y), 1, dtype=torch.float64)
    of_class = [first / (1 + number) for number in range(max(2, y.shape[1]))]
    labels = y.argmax(dim=1) if y.shape[1] > 1 else y[:, 0].int()
    of_row = [[of_class[label]] for label in labels.tolist()]
    return torch.tensor(of_class, dtype=torch.float64), torch.tensor(of_row, dtype=torch.float64)


@settings(max_examples=60, deadline=None)
@given(networks(), st.floats(0, 0.5), st.one_of(st.none(), st.floats(0.1, 10)), st.booleans())
def test_gradients_equal_autograd(
    network: tuple[SigmoidMLP, Tensor, Tensor], smoothing: float, weight: float | None, weigh_rows: bool
) -> None:
    model, x, y = network
    class_weight, of_row = weights(y, weight)
    targets = equations.smooth(y, smoothing)
    sample_weight = torch.linspace(0, 3, len(x), dtype=torch.float64)[:, None] if weigh_rows else None
    if sample_weight is not None:
        of_row = of_row * sample_weight
    loss = functional.binary_cross_entropy_with_logits(model(x), targets, weight=of_row)
    expected = torch.autograd.grad(loss, list(model.parameters()))

    result = Backpropagation(model).backward_pass(x, targets, class_weight, sample_weight)

    found = [tensor[0] for pair in result.gradients for tensor in pair]
    for own, gradient in zip(found, expected, strict=True):
        torch.testing.assert_close(own.view_as(gradient), gradient, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(result.logits, model(x))
    assert torch.isclose(equations.binary_cross_entropy(model(x), targets, class_weight, sample_weight), loss)


@settings(max_examples=10, deadline=None)
@given(networks())
def test_deltas_are_derivatives_by_pre_activations(network: tuple[SigmoidMLP, Tensor, Tensor]) -> None:
    model, x, y = network
    pre_activations: list[Tensor] = []

    def keep(_: object, __: object, z: Tensor) -> None:
        z.retain_grad()
        pre_activations.append(z)

    hooks = [layer.register_forward_hook(keep) for layer in model.linear_layers]
    functional.binary_cross_entropy_with_logits(model(x), y).backward()
    for hook in hooks:
        hook.remove()

    for delta, z in zip(Backpropagation(model).backward_pass(x, y).deltas, pre_activations, strict=True):
        torch.testing.assert_close(delta[0], z.grad)


@settings(max_examples=30, deadline=None)
@given(networks(), st.one_of(st.none(), st.floats(0.1, 10)))
def test_a_recorded_pass_changes_no_bit(
    network: tuple[SigmoidMLP, Tensor, Tensor], weight: float | None
) -> None:
    model, x, y = network
    class_weight, _ = weights(y, weight)
    repeated = Backpropagation(model)
    memory = PassMemory(repeated.backward_pass(x, y), room=10)
    passes: list[BackwardPass] = []
    results = []
    turned = x.mT.contiguous().mT
    for rows in (x, x.flip(0) * 2, x - 1, turned, x[:1], x + 1, x[:1], x[:1], x[:1] + 1, x):
        expected = Backpropagation(model).backward_pass(rows, y[: len(rows)], class_weight)
        logits = repeated.differentiate(rows, y[: len(rows)], class_weight)
        found = repeated.last
        assert all(map(torch.equal, found.tensors, expected.tensors))
        if len(rows) == len(x):
            memory.keep(len(passes), found)
            passes.append(expected)
        of_both = [tensor[0] for pair in expected.gradients for tensor in pair]
        for parameter, gradient in zip(model.parameters(), of_both, strict=True):
            assert torch.equal(parameter.grad, gradient.view(parameter.shape))
            parameter.grad.mul_(2)  # clipping changes nothing that is kept
            parameter.data.mul_(0.9)
        results.append((logits, expected.logits))
    assert all(torch.equal(logits, own) for logits, own in results)
    for kept, *own in zip(memory.first(len(passes)).tensors, *(each.tensors for each in passes), strict=True):
        assert torch.equal(kept, torch.cat(own))


def test_a_pass_is_recorded_the_second_time(monkeypatch: pytest.MonkeyPatch) -> None:
    forward, computed = equations.forward, []

    def counted(x: Tensor, *others: Any) -> ForwardPass:
        computed.append(x.shape[-2])
        return forward(x, *others)

    monkeypatch.setattr(equations, "forward", counted)
    propagation = Backpropagation(SigmoidMLP(3, [4], seed=1))
    for rows in (8, 8, 8, 5, 8, 8, 5, 5, 5):
        propagation.differentiate(torch.randn(rows, 3), torch.ones(rows, 1))
    assert computed == [8, 8, 5, 5, 5], "the second in a row, which the last batch of an epoch is not"


@pytest.mark.parametrize("activation", sorted(ACTIVATIONS))
def test_derivative_equals_central_difference(activation: ActivationName) -> None:
    z = torch.tensor([-3.1, -0.7, -0.01, 0.02, 0.9, 4.2], dtype=torch.float64)
    chosen = ACTIVATIONS[activation]
    function, derivative = chosen.function, chosen.derivative
    step = 1e-6
    difference = (function(z + step) - function(z - step)) / (2 * step)
    torch.testing.assert_close(derivative(z, function(z)), difference, rtol=1e-8, atol=1e-9)
    torch.testing.assert_close(chosen.backward_(2 * z, z, function(z)), 2 * z * derivative(z, function(z)))


def test_worked_example_by_hand() -> None:
    # One neuron per layer, all weights 1, biases 0, x = 0, y = 1: σ(0) = ½, z₂ = ½, so
    # delta₂ = σ(½) − 1, delta₁ = delta₂·¼, ∂L/∂W₂ = delta₂·½, ∂L/∂W₁ = 0.
    model = SigmoidMLP(1, [1], init="constant").double()
    propagation = Backpropagation(model)
    propagation.differentiate(torch.zeros(1, 1, dtype=torch.float64), torch.ones(1, 1, dtype=torch.float64))
    result = propagation.last
    error = 1 / (1 + torch.exp(torch.tensor(-0.5, dtype=torch.float64))) - 1
    first, second = model.linear_layers
    assert torch.isclose(result.deltas[1].squeeze(), error)
    assert torch.isclose(result.deltas[0].squeeze(), error / 4)
    assert second.weight.grad is not None
    assert torch.isclose(second.weight.grad.squeeze(), error / 2)
    assert first.weight.grad is not None
    assert first.weight.grad.item() == 0


def test_members_do_not_touch_each_other() -> None:
    generator = torch.Generator().manual_seed(0)
    members = [SigmoidMLP(3, [4], seed=seed) for seed in range(3)]
    x = torch.randn(3, 5, 3, generator=generator)
    y = torch.randint(0, 2, (3, 5, 1), generator=generator).float()
    layers = list(zip(*(member.linear_layers for member in members), strict=True))
    weights = [torch.stack([layer.weight for layer in same]).detach() for same in layers]
    biases = [torch.stack([layer.bias[None] for layer in same]).detach() for same in layers]

    passed = equations.forward(x, weights, biases, members[0].activation)
    delta = equations.output_delta(passed.logits, y)
    stacked = list(
        equations.gradients(passed, equations.deltas(passed, weights, delta, members[0].activation))
    )

    for index, member in enumerate(members):
        Backpropagation(member).differentiate(x[index], y[index])
        for layer, (weight, bias) in zip(member.linear_layers, stacked, strict=True):
            torch.testing.assert_close(layer.weight.grad, weight[index])
            torch.testing.assert_close(layer.bias.grad, bias[index, 0])


def test_loss_is_that_of_bce_after_sigmoid_and_finite_where_that_is_not() -> None:
    logits = torch.tensor([[-3.0], [0.5], [2.0]])
    y = torch.tensor([[0.0], [1.0], [0.0]])
    expected = torch.nn.BCELoss()(torch.sigmoid(logits), y)
    assert torch.isclose(equations.binary_cross_entropy(logits, y), expected, atol=1e-6)
    assert equations.binary_cross_entropy(torch.tensor([[-1000.0]]), torch.ones(1, 1)).item() == 1000


@settings(max_examples=60, deadline=None)
@given(
    name=st.sampled_from(sorted(ACTIVATIONS)),
    shape=st.tuples(st.integers(2, 5), st.integers(1, 40), st.sampled_from([1, 7, 28, 32, 400])),
    is_transposed=st.booleans(),
    is_given_memory=st.booleans(),
    data=st.data(),
)
def test_an_activation_is_the_same_bits_whatever_stands_beside_it(
    name: ActivationName,
    shape: tuple[int, int, int],
    is_transposed: bool,
    is_given_memory: bool,
    data: st.DataObject,
) -> None:
    stacked = torch.randn(shape, generator=torch.Generator().manual_seed(data.draw(st.integers(0, 1000))))
    some = data.draw(st.sets(st.integers(0, len(stacked) - 1), min_size=1))

    def activations(z: Tensor) -> Tensor:
        z = z.mT if is_transposed else z
        return ACTIVATIONS[name].steady(z, out=torch.empty_like(z) if is_given_memory else None)

    every = activations(stacked)
    torch.testing.assert_close(every, ACTIVATIONS[name].function(stacked.mT if is_transposed else stacked))
    if name != "gelu":  # of which PyTorch has other routines for other layouts
        assert torch.equal(activations(stacked[sorted(some)]), every[sorted(some)])
