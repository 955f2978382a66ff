"""The trace, the gradient check and the contributions against autograd, loops over rows and planted errors."""

import itertools
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from backlight.backprop import equations
from backlight.backprop.activations import ACTIVATIONS, ActivationName
from backlight.backprop.contributions import contributions
from backlight.backprop.gradcheck import gradcheck
from backlight.backprop.step import Backpropagation, PassMemory
from backlight.backprop.trace import LayerTrace, layers_of, trace
from backlight.model import SigmoidMLP
from tests.backprop.test_equations import networks, weights

FIELDS = (
    "weight",
    "input",
    "pre_activation",
    "activation",
    "slope",
    "delta",
    "weight_gradient",
    "bias_gradient",
)
Network = tuple[SigmoidMLP, Tensor, Tensor]


@settings(max_examples=40, deadline=None)
@given(networks(), st.one_of(st.none(), st.floats(0.2, 5)))
def test_equations_and_autograd_leave_the_same_trace(network: Network, weight: float | None) -> None:
    model, x, y = network
    class_weight, _ = weights(y, weight)
    before = [parameter.clone() for parameter in model.parameters()]
    sample_weight = torch.linspace(0, 3, len(x), dtype=torch.float64)[:, None]
    wanted = x.clone().requires_grad_()  # as whoever asks for the gradient of the rows has them
    ours = trace(model, wanted, y, class_weight, sample_weight)
    theirs = trace(model, x, y, class_weight, sample_weight, backward="autograd")
    torch.testing.assert_close(ours.loss, theirs.loss)
    for mine, other in zip(ours.layers, theirs.layers, strict=True):
        assert mine.name == other.name
        for field in FIELDS:
            torch.testing.assert_close(getattr(mine, field), getattr(other, field), rtol=1e-9, atol=1e-12)
            assert not getattr(mine, field).requires_grad
            assert not getattr(other, field).requires_grad
    assert all(torch.equal(was, now) for was, now in zip(before, model.parameters(), strict=True))
    assert all(parameter.grad is None for parameter in model.parameters())


def test_any_chain_of_linear_layers_has_a_trace() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.SiLU(), nn.Linear(4, 5), nn.Softplus(), nn.Linear(5, 2))
    x, y = torch.randn(6, 3), torch.randint(0, 2, (6, 2)).float()
    record = trace(model, x, y, backward="autograd")
    nn.functional.binary_cross_entropy_with_logits(model(x), y).backward()
    assert [layer.name for layer in record.layers] == ["0", "2", "4"]
    for layer, linear in zip(record.layers, (model[0], model[2], model[4]), strict=True):
        torch.testing.assert_close(layer.weight_gradient, linear.weight.grad)
        torch.testing.assert_close(layer.bias_gradient, linear.bias.grad)


@pytest.mark.parametrize(
    "model",
    [
        nn.Sequential(nn.Linear(3, 1), nn.Sigmoid()),
        nn.Sequential(
            nn.Linear(3, 4), nn.Flatten(), nn.Unflatten(1, (2, 2)), nn.Flatten(), nn.Linear(4, 1, bias=False)
        ),
        nn.Sequential(nn.Identity()),
    ],
)
def test_trace_refuses_what_is_no_such_chain(model: nn.Module) -> None:
    with pytest.raises(ValueError, match=r"^model:"):
        trace(model, torch.randn(2, 3), torch.ones(2, 1), backward="autograd")
    with pytest.raises(ValueError, match=r"^backward=equations"):
        trace(model, torch.randn(2, 3), torch.ones(2, 1))


@settings(max_examples=15, deadline=None)
@given(networks())
def test_gradcheck_agrees(network: Network) -> None:
    model, x, y = network
    # At a kink of relu central differences are no derivative; a random point lies this close to none.
    z = trace(model, x, y).layers
    near_kink = any((layer.pre_activation.abs() < 1e-3).any() for layer in z[:-1])
    for row in gradcheck(model, x, y):
        assert row.autograd <= 1e-10
        assert row.holds or (model.architecture["activation"] == "relu" and near_kink)


def test_gradcheck_holds_where_gradients_vanish() -> None:
    model = SigmoidMLP(2, [10] * 8, seed=0)
    x = torch.randn(20, 2, generator=torch.Generator().manual_seed(0))
    assert all(row.holds for row in gradcheck(model, x, (x[:, :1] > 0).float()))


@pytest.mark.parametrize(
    ("hidden", "activation", "seed"),
    [
        pytest.param([1], "gelu", 0, id="logits that are large beside the loss"),
        pytest.param([1, 1, 6], "square", 6, id="curvature that is large beside the gradient"),
    ],
)
def test_gradcheck_holds_where_differences_are_hard(hidden: list[int], activation: str, seed: int) -> None:
    model = SigmoidMLP(5, hidden, activation=activation, init="normal", seed=seed)
    x = torch.randn(1, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    assert all(row.holds for row in gradcheck(model, x, torch.zeros(1, 1)))


def test_gradcheck_finds_planted_errors(monkeypatch: pytest.MonkeyPatch) -> None:
    model = SigmoidMLP(3, [4, 4], seed=1)
    x = torch.randn(8, 3, generator=torch.Generator().manual_seed(0))
    y = (x[:, :1] > 0).float()
    assert all(row.holds for row in gradcheck(model, x, y))

    right = ACTIVATIONS["sigmoid"]
    model.activation = replace(right, backward_=lambda *args: right.backward_(*args) * (1 + 1e-8))
    assert [row.holds for row in gradcheck(model, x, y)] == [False] * 4 + [True] * 2
    model.activation = right

    monkeypatch.setattr(equations, "binary_cross_entropy", lambda *a: 0 * a[0].sum())
    assert not any(row.holds for row in gradcheck(model, x, y))


@settings(max_examples=25, deadline=None)
@given(networks())
def test_contributions_equal_loops_over_rows(network: Network) -> None:
    model, x, y = network
    record = trace(model, x, y)
    updates = [torch.full_like(layer.weight, 0.01) for layer in record.layers]
    for layer, found, update in zip(
        record.layers, contributions(record.layers, updates), updates, strict=True
    ):
        deltas = layer.delta
        torch.testing.assert_close(found.mean_delta, sum(deltas) / len(deltas))
        torch.testing.assert_close(found.mean_abs_delta, sum(abs(row) for row in deltas) / len(deltas))
        assert found.share.sum().item() == pytest.approx(1)
        assert found.rms_delta == pytest.approx(
            (sum((row**2).sum() for row in deltas) / deltas.numel()) ** 0.5
        )
        assert found.update_to_weight == pytest.approx((update.norm() / layer.weight.norm()).item())
        for neuron in range(deltas.shape[1]):
            _check_neuron(
                layer, neuron, found.agreement[neuron], found.gsnr[neuron], found.saturation[neuron]
            )


def _check_neuron(
    layer: LayerTrace, neuron: int, agreement: Tensor, gsnr: Tensor, saturation: Tensor
) -> None:
    ones = torch.ones(len(layer.input), 1, dtype=layer.input.dtype)
    gradients = layer.delta[:, neuron, None] * torch.cat([layer.input, ones], dim=1)
    sizes = gradients.abs().amax(dim=1)
    # Brought to one size: the square of 10⁻¹⁷⁰, which deep networks come to, is 0.
    moving = [row / size for row, size in zip(gradients, sizes, strict=True) if size > 0]
    pairs = list(itertools.combinations(moving, 2))
    if ((sizes > 0) & (sizes < 1e-300)).any():
        pass  # too few digits are left
    elif pairs:
        cosines = [(a @ b / (a.norm() * b.norm())).item() for a, b in pairs]
        assert agreement.item() == pytest.approx(sum(cosines) / len(cosines), abs=1e-9)
    else:
        assert agreement.isnan()
    assert saturation.item() == pytest.approx((layer.slope[:, neuron].abs() < 0.05).double().mean().item())
    mean = gradients.mean(dim=0)
    noise = ((gradients - mean) ** 2).sum(dim=1).mean()
    if noise > 1e-12 * mean.norm() ** 2:
        assert gsnr.item() == pytest.approx((mean.norm() ** 2 / noise).item(), rel=1e-5)


@pytest.mark.parametrize("activation", ["sigmoid", "gelu"])
def test_joined_passes_have_the_contributions_of_each(activation: ActivationName) -> None:
    models = [SigmoidMLP(2, [3, 4], activation=activation, seed=seed) for seed in range(3)]
    x = torch.randn(5, 2, generator=torch.Generator().manual_seed(0))
    y = (x[:, :1] > 0).float()
    passes = [Backpropagation(model).backward_pass(x, y) for model in models]
    memory = PassMemory(passes[0], room=4)
    for number, passed in enumerate(passes):
        memory.keep(number, passed)
    joined = memory.first(3)
    weights = [
        torch.stack([layer.weight.detach() for layer in same])
        for same in zip(*(model.linear_layers for model in models), strict=True)
    ]
    updates = [torch.full_like(weight, 0.1) for weight in weights]
    together = contributions(layers_of("abc", weights, joined, models[0].activation), updates)
    for index, model in enumerate(models):
        alone = contributions(trace(model, x, y).layers, [update[index] for update in updates])
        for mine, stacked in zip(alone, together, strict=True):
            for figure in ("mean_delta", "mean_abs_delta", "share", "agreement", "saturation", "layer_saturation",
                           "gsnr", "layer_gsnr", "rms_delta", "survival", "update_to_weight"):  # fmt: skip
                torch.testing.assert_close(getattr(mine, figure), getattr(stacked, figure)[index])


def test_the_gsnr_of_a_layer_is_that_of_all_its_gradients() -> None:
    model = SigmoidMLP(3, [4], seed=0).double()
    x = torch.randn(6, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    y = (x[:, :1] > 0).double()
    hidden = contributions(trace(model, x, y).layers)[0]
    rows = []
    for row in range(len(x)):
        first = trace(model, x[row : row + 1], y[row : row + 1]).layers[0]
        rows.append(torch.cat([first.weight_gradient.flatten(), first.bias_gradient]) / len(x))
    gradients = torch.stack(rows)
    noise = (gradients - gradients.mean(dim=0)).square().sum(dim=1).mean()
    torch.testing.assert_close(hidden.layer_gsnr, gradients.mean(dim=0).square().sum() / noise)


def test_survival_is_what_one_step_back_leaves() -> None:
    model = SigmoidMLP(2, [5, 5, 5], seed=0)
    x = torch.randn(30, 2, generator=torch.Generator().manual_seed(0))
    record = trace(model, x, (x[:, :1] > 0).float())
    found = contributions(record.layers)
    rms = [layer.delta.square().mean().sqrt().item() for layer in record.layers]
    assert [row.survival for row in found] == pytest.approx(
        [rms[0] / rms[1], rms[1] / rms[2], rms[2] / rms[3], 1]
    )
    assert all(row.update_to_weight != row.update_to_weight for row in found)


def test_no_error_has_equal_shares_and_no_signal() -> None:
    model = SigmoidMLP(2, [3], init="zeros")
    half = torch.full((4, 1), 0.5)  # what the network predicts
    hidden, output = contributions(trace(model, torch.randn(4, 2), half).layers)
    assert hidden.share.tolist() == pytest.approx([1 / 3] * 3)
    assert hidden.gsnr.tolist() == [0, 0, 0]
    assert hidden.agreement.isnan().all()
    assert output.rms_delta == 0
