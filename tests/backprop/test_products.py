"""Products of every size and layout against float64, by what is fastest on AMD's processors and on others."""

from collections.abc import Iterator
from unittest.mock import Mock

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

from backlight.backprop import products
from backlight.backprop.products import family_of_amd, linear, product
from backlight.backprop.step import Backpropagation, PassMemory
from backlight.model import SigmoidMLP
from backlight.population.networks import ByEquations

WORTH_ONEDNN = 5 * 2**19
SIZES = st.sampled_from([1, 2, 7, 33, 128, 300])


@pytest.fixture(autouse=True, scope="module", params=["oneDNN", "MKL"])
def fastest(request: pytest.FixtureRequest) -> Iterator[None]:
    if request.param == "oneDNN" and not hasattr(torch.ops.mkldnn, "_linear_pointwise"):
        pytest.skip("this PyTorch has no oneDNN")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(products, "ONEDNN_IS_FASTER", request.param == "oneDNN")
        patch.setattr(products, "WORTH_ONEDNN", WORTH_ONEDNN)
        yield


def _close(found: Tensor, expected: Tensor, inner: int) -> bool:
    """Of a sum of so many products of numbers about 1, in float32."""
    return torch.allclose(found.double(), expected, rtol=1e-5, atol=2e-6 * inner)


@settings(max_examples=60, deadline=None)
@given(
    n=st.integers(1, 3), rows=SIZES, inner=SIZES, columns=SIZES, transposed=st.tuples(*[st.booleans()] * 3)
)
@example(n=2, rows=33, inner=33, columns=1, transposed=(False, False, False))
def test_products_of_many(
    n: int, rows: int, inner: int, columns: int, transposed: tuple[bool, bool, bool]
) -> None:
    def drawn(first: int, second: int, is_transposed: bool) -> Tensor:
        return torch.randn(n, second, first).mT if is_transposed else torch.randn(n, first, second)

    left, right = drawn(rows, inner, transposed[0]), drawn(inner, columns, transposed[1])
    added, spare = torch.randn(n, rows, 1), drawn(rows, columns, transposed[2])
    expected = left.double() @ right.double()
    assert _close(product(left, right), expected, inner)
    assert _close(product(left, right, added), expected + added, inner)
    assert _close(product(left, right, spare=spare), expected, inner)
    assert product(left, right, added, spare) is spare
    assert _close(spare, expected + added, inner)
    assert product(left.double(), right.double()).dtype == torch.float64


@settings(max_examples=30, deadline=None)
@given(n=st.integers(1, 3), rows=SIZES, inner=SIZES, columns=SIZES)
def test_linear_of_one_and_of_many(n: int, rows: int, inner: int, columns: int) -> None:
    a, weight, bias = torch.randn(n, rows, inner), torch.randn(n, columns, inner), torch.randn(n, 1, columns)
    many = linear(a, weight, bias)
    assert _close(many, a.double() @ weight.double().mT + bias, inner)
    if rows * inner * columns >= WORTH_ONEDNN:
        for number in range(n):
            assert torch.equal(many[number], linear(a[number], weight[number], bias[number, 0]))


@pytest.mark.parametrize("outputs", [10, 1])
@pytest.mark.parametrize("hidden", [[300, 200], [300, 300], [3]])
def test_a_large_network_by_the_equations_and_by_autograd(hidden: list[int], outputs: int) -> None:
    """Alone, and the same among others and in memory that was used before."""
    models = [SigmoidMLP(150, hidden, outputs, init="xavier", seed=seed) for seed in range(2)]
    x, y = torch.randn(2, 128, 150), torch.randint(0, 2, (2, 128, outputs)).float()
    among = ByEquations(models[0].activation)
    together = among.stack([[p.detach() for p in model.parameters()] for model in models])
    for number, model in enumerate(models):
        functional.binary_cross_entropy_with_logits(model(x[number]), y[number]).backward()
        alone, only = ByEquations(model.activation), slice(number, number + 1)
        own = [tensor[only] for tensor in together]
        for _ in range(2):
            logits, gradients = alone.gradients(x[only], y[only], None, own)
            all_logits, all_gradients = among.gradients(x, y, None, together)
            assert torch.equal(all_logits[only], logits)
            with torch.no_grad():
                assert torch.allclose(logits[0], model(x[number]), atol=1e-5)
            for p, gradient, of_all in zip(model.parameters(), gradients, all_gradients, strict=True):
                torch.testing.assert_close(of_all[only], gradient, rtol=1e-5, atol=1e-8)
                assert p.grad is not None
                assert torch.allclose(gradient.view_as(p), p.grad, rtol=1e-4, atol=1e-7)


def test_graphs_hold_what_everybody_has() -> None:
    model, x = SigmoidMLP(150, [300], 10, seed=1).requires_grad_(False), torch.randn(128, 150)
    with torch.no_grad():
        for graph in (torch.jit.trace(model, x).inlined_graph, torch.export.export(model, (x,)).graph):
            assert "linear" in str(graph)
            assert "mkldnn" not in str(graph)


def test_a_large_product_among_others_is_that_alone() -> None:
    left, right, added = torch.randn(3, 200, 100), torch.randn(3, 100, 160), torch.randn(3, 200, 1)
    assert left[0].numel() * 160 >= WORTH_ONEDNN
    many = product(left, right, added)
    for number in range(3):
        only = slice(number, number + 1)
        assert torch.equal(many[only], product(left[only], right[only], added[only]))


def test_a_pass_with_large_products_is_kept_whole() -> None:
    """Those have memory of their own; and clipping `.grad` afterwards changes nothing that is kept."""
    model = SigmoidMLP(200, [512], 1, seed=1)
    propagation, x, y = Backpropagation(model), torch.randn(32, 200), torch.randint(0, 2, (32, 1)).float()
    assert x.numel() * 512 >= WORTH_ONEDNN
    for _ in range(3):
        expected = propagation.backward_pass(x, y)
        memory = PassMemory(expected, 2)
        propagation.differentiate(x, y)
        memory.keep(1, propagation.last)
        gradients = [tensor[0] for pair in expected.gradients for tensor in pair]
        for parameter, gradient in zip(model.parameters(), gradients, strict=True):
            assert parameter.grad is not None
            assert torch.equal(parameter.grad, gradient.view_as(parameter))
            parameter.grad.zero_()
        for kept, tensor in zip(memory.first(2).tensors, expected.tensors, strict=True):
            assert torch.equal(kept[1:], tensor)


@pytest.mark.parametrize("gather_inputs", [False, True])
def test_a_recorded_pass_with_large_products_changes_no_bit(gather_inputs: bool) -> None:
    model = SigmoidMLP(200, [512, 300], 3, seed=1)
    if gather_inputs:
        model.gather_inputs()
    repeated, y = Backpropagation(model), torch.randint(0, 2, (64, 3)).float()
    for _ in range(4):
        x = torch.randn(64, 200)
        expected = Backpropagation(model).backward_pass(x, y)
        assert torch.equal(repeated.differentiate(x, y), expected.logits)
        gradients = [tensor[0] for pair in expected.gradients for tensor in pair]
        for parameter, gradient in zip(model.parameters(), gradients, strict=True):
            assert torch.equal(parameter.grad, gradient.view_as(parameter))
            assert parameter.grad.stride() == parameter.stride()
            parameter.data.mul_(0.9)


@pytest.mark.parametrize(("inner", "columns"), [(5, 32), (12, 32), (6, 64), (5, 33), (20, 32), (3, 7)])
@pytest.mark.parametrize("is_turned", [False, True])
def test_a_row_among_many_is_that_alone(inner: int, columns: int, is_turned: bool) -> None:
    """A network with one output has the numbers among others that it has by itself."""
    left, added = torch.randn(500, 1, inner), torch.randn(500, 1, 1)
    right = torch.randn(500, columns, inner).mT if is_turned else torch.randn(500, inner, columns)
    together = product(left, right, added)
    alone = [product(*(tensor[n : n + 1] for tensor in (left, right, added))) for n in range(500)]
    assert torch.equal(together, torch.cat(alone))
    assert _close(together, left.double() @ right.double() + added, inner)


@pytest.mark.usefixtures("two_threads")
@pytest.mark.parametrize("is_transposed", [False, True])
def test_a_product_of_which_each_thread_makes_some_rows(
    monkeypatch: pytest.MonkeyPatch, is_transposed: bool
) -> None:
    monkeypatch.setattr(products, "IS_OF_AMD", True)
    monkeypatch.setattr(products, "WORTH_ONEDNN", 2**25)
    left = torch.randn(1, 32, 256).mT if is_transposed else torch.randn(1, 256, 32)
    right, spare = torch.randn(1, 32, 784), torch.empty(1, 256, 784)
    expected = left.double() @ right.double()
    with monkeypatch.context() as patch:
        multiply = Mock(wraps=torch.bmm)
        patch.setattr(torch, "bmm", multiply)
        for room in (None, spare):
            found = product(left, right, spare=room)
            assert _close(found, expected, 32)
            assert found is room or room is None
    assert [call.args[0].shape for call in multiply.call_args_list] == [(2, 128, 32)] * 2


@pytest.mark.parametrize(
    ("processor", "family"),
    [
        ("processor\t: 0\nvendor_id\t: AuthenticAMD\ncpu family\t: 26\n", 26),
        ("processor\t: 0\nvendor_id\t: GenuineIntel\ncpu family\t: 6\n", None),
        ("AMD64 Family 25 Model 17 Stepping 1, AuthenticAMD", 25),
        ("arm", None),
    ],
)
def test_the_family_of_a_processor(processor: str, family: int | None) -> None:
    assert family_of_amd(processor) == family
