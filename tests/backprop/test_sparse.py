"""Sparse rows do what the same numbers do as a tensor."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from backlight.backprop.activations import ACTIVATIONS
from backlight.backprop.contributions import contributions
from backlight.backprop.gradcheck import gradcheck
from backlight.backprop.sparse import SparseRows, affine, concatenate, outer, squared_norms
from backlight.backprop.step import Backpropagation
from backlight.backprop.trace import trace
from backlight.diagnosis.measure import distinct_column, location_and_spread, row_keys
from backlight.model import SigmoidMLP


def sparse(dense: Tensor) -> SparseRows:
    rows, columns = dense.nonzero(as_tuple=True)
    starts = torch.cat(
        [torch.zeros(1, dtype=torch.int64), torch.bincount(rows, minlength=len(dense)).cumsum(0)]
    )
    return SparseRows(starts, columns, dense[rows, columns], dense.shape[1])


@st.composite
def matrices(draw: st.DrawFn) -> Tensor:
    """A float64 matrix, mostly zeros, maybe with empty rows."""
    rows, columns = draw(st.integers(1, 9)), draw(st.integers(1, 7))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    values = torch.randn(rows, columns, dtype=torch.float64, generator=generator)
    return values * (torch.rand(rows, columns, generator=generator) < draw(st.sampled_from([0.0, 0.3, 0.9])))


@settings(deadline=None)
@given(matrices(), st.data())
def test_rows_are_taken_as_of_a_tensor(dense: Tensor, data: st.DataObject) -> None:
    x, rows = sparse(dense), len(dense)
    start, stop = data.draw(st.integers(0, rows)), data.draw(st.integers(0, rows + 3))
    step = data.draw(st.integers(1, 3))
    index = torch.tensor(data.draw(st.lists(st.integers(0, rows - 1), max_size=12)), dtype=torch.int64)
    size = data.draw(st.integers(1, rows))
    assert torch.equal(x[start:stop:step].to_dense(), dense[start:stop:step])
    assert torch.equal(x[index].to_dense(), dense[index])
    assert [len(part) for part in x.split(size)] == [len(part) for part in dense.split(size)]
    assert torch.equal(torch.cat([part.to_dense() for part in x.split(size)]), dense)
    both = concatenate([x, x[index]])
    assert torch.equal(both.to_dense(), torch.cat([dense, dense[index]]))
    many = concatenate([x[None], x[None]])
    assert many.shape == (2, *dense.shape)
    assert torch.equal(many[1].to_dense(), dense)


@settings(deadline=None)
@given(matrices(), st.integers(1, 5))
def test_a_layer_gathers_what_it_would_multiply(dense: Tensor, out: int) -> None:
    x = sparse(dense)
    weight, bias = (
        torch.randn(out, dense.shape[1], dtype=torch.float64),
        torch.randn(out, dtype=torch.float64),
    )
    delta = torch.randn(len(dense), out, dtype=torch.float64)
    torch.testing.assert_close(affine(x, weight, bias), affine(dense, weight, bias))
    torch.testing.assert_close(outer(delta, x), outer(delta, dense))
    torch.testing.assert_close(squared_norms(x), squared_norms(dense))


@settings(max_examples=40, deadline=None)
@given(matrices(), st.sampled_from(sorted(ACTIVATIONS)), st.integers(1, 3), st.booleans())
def test_outputs_deltas_and_gradients_are_those_of_dense_rows(
    dense: Tensor, activation: str, outputs: int, lays_out: bool
) -> None:
    model = SigmoidMLP(dense.shape[1], [4, 3], outputs, activation=activation, seed=1).double()  # type: ignore[arg-type]
    x, y = sparse(dense), (torch.arange(len(dense) * outputs).reshape(len(dense), outputs) % 2).double()
    expected = trace(model, dense, y)
    if lays_out:
        model.gather_inputs()
    for backward in ("equations", "autograd"):
        found = trace(model, x, y, backward=backward)  # type: ignore[arg-type]
        torch.testing.assert_close(found.loss, expected.loss)
        for layer, reference in zip(found.layers, expected.layers, strict=True):
            for name in ("pre_activation", "activation", "delta", "weight_gradient", "bias_gradient"):
                torch.testing.assert_close(getattr(layer, name), getattr(reference, name))
        for layer, reference in zip(contributions(found.layers), contributions(expected.layers), strict=True):
            for name in ("agreement", "gsnr", "layer_gsnr", "rms_delta"):
                # One row agrees with itself exactly: its ratio is infinite, or as large as rounding lets it be.
                ours, theirs = (getattr(one, name).clamp(max=1e9) for one in (layer, reference))
                torch.testing.assert_close(ours, theirs, equal_nan=True, rtol=1e-6, atol=1e-9)


def test_gradients_lie_in_memory_as_their_weights_do() -> None:
    dense = torch.eye(6)[[0, 2, 2, 5]]
    for lays_out in (False, True):
        model = SigmoidMLP(6, [3])
        if lays_out:
            model.gather_inputs()
        Backpropagation(model).differentiate(sparse(dense), torch.ones(4, 1))
        for parameter in model.parameters():
            assert parameter.grad is not None
            assert parameter.grad.stride() == parameter.stride()


def test_gradcheck_of_sparse_rows() -> None:
    model = SigmoidMLP(8, [4])
    model.gather_inputs()
    dense = torch.eye(8)[torch.arange(20) % 8] + torch.eye(8)[torch.arange(20) % 3]
    assert all(row.holds for row in gradcheck(model, sparse(dense), (torch.arange(20) % 2)[:, None].float()))


@settings(deadline=None)
@given(matrices())
def test_rows_have_the_same_keys(dense: Tensor) -> None:
    y = (torch.arange(len(dense)) % 2)[:, None].float()
    dense = dense.float()
    assert np.array_equal(row_keys(sparse(dense), y), row_keys(dense, y))


def test_spread_of_rare_features_is_that_of_what_is_there() -> None:
    dense = torch.zeros(100, 3)
    dense[::10, 0] = 2.0
    dense[::50, 1] = torch.tensor([3.0, 4.0])
    for x in (dense, sparse(dense)):
        spread = location_and_spread(x)[1]
        assert spread.tolist() == pytest.approx([2.0, 12.5**0.5, 0.0])
    assert distinct_column(sparse(dense), 1) == distinct_column(dense, 2)
    assert distinct_column(sparse(dense), 2) is None
