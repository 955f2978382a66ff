"""What the diagnosis measures of rows and networks, beside independent references."""

import itertools
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.datasets import load_wine, make_classification
from sklearn.kernel_ridge import KernelRidge
from sklearn.metrics import balanced_accuracy_score
from sklearn.neighbors import KNeighborsClassifier

from backlight.backprop.activations import ACTIVATIONS, ActivationName
from backlight.backprop.trace import trace
from backlight.diagnosis import measure
from backlight.diagnosis.measure import (
    Networks,
    batch_signal,
    best_steps,
    constant_loss,
    contradicted,
    data_state,
    first_non_finite,
    layer_states,
    middle_halves,
    output_signal,
    perfect_loss,
    row_keys,
)
from backlight.diagnosis.neighbourhoods import RIDGE, known_by_polynomial, neighbourhoods
from backlight.model import SigmoidMLP


def test_neighbours_tell_wrong_labels_from_classes_that_overlap() -> None:
    random = np.random.default_rng(0)
    x = torch.from_numpy(random.uniform(-1, 1, (3000, 2))).float()
    clean = (x[:, 0] > 0).long()
    for rate in (0.0, 0.1, 0.3):
        flipped = clean ^ torch.from_numpy(random.uniform(size=3000) < rate).long()
        found = neighbourhoods(x, flipped)
        assert found is not None
        assert found.noise == pytest.approx(rate, abs=0.07), "of 233 rows, and the least of three"
        assert found.attainable == pytest.approx(1 - rate, abs=0.06)
    steep = torch.from_numpy(random.uniform(size=3000) < 1 / (1 + np.exp(-6 * x[:, 0].numpy()))).long()
    overlapping = neighbourhoods(x, steep)
    assert overlapping is not None
    wrong = 1 - (steep == clean).double().mean()
    assert wrong > 0.1 and overlapping.noise < 0.3 * wrong, "only near the border"
    assert neighbourhoods(x[:60], clean[:60]) is None


def test_middle_halves_are_as_wide_as_those_of_a_normal_distribution() -> None:
    x = torch.randn(50_000, 3, generator=torch.Generator().manual_seed(0))
    x[:, 1], x[:, 2] = 20 * x[:, 1], x[:, 2].abs()
    x[:30_000, 2] = 0.0  # in most rows one value
    x[0] = 1e6  # a single value moves them not
    assert middle_halves(x) == pytest.approx([1, 20, 0], rel=0.05)


def test_rare_neighbours_count_for_more() -> None:
    x, y = make_classification(
        1500,
        4,
        n_informative=3,
        n_redundant=0,
        n_classes=3,
        n_clusters_per_class=1,
        weights=[0.8, 0.17],
        random_state=1,
    )
    x = (x - x.mean(axis=0)) / x.std(axis=0)
    found = neighbourhoods(torch.from_numpy(x), torch.from_numpy(y))
    nearest = KNeighborsClassifier(10).fit(x, y).kneighbors(return_distance=False)
    votes = np.stack(
        [(y[nearest] == number).sum(axis=1) / (y == number).sum() for number in range(3)], axis=1
    )
    assert found is not None
    assert found.balanced == pytest.approx(balanced_accuracy_score(y, votes.argmax(axis=1)), abs=0.005)


def test_polynomials_tell_wrong_labels_where_neighbours_are_lost() -> None:
    x, y = make_classification(1000, 20, n_informative=8, class_sep=0.6, flip_y=0, random_state=1)
    features, labels = torch.from_numpy(x).float(), torch.from_numpy(y)
    clean = neighbourhoods(features, labels)
    assert clean is not None and clean.balanced < 0.8
    assert clean.noise < 0.13
    wrong = torch.from_numpy(np.random.default_rng(0).uniform(size=1000) < 0.25)
    flipped = neighbourhoods(features, labels ^ wrong.long())
    assert flipped is not None and flipped.noise > 0.2


@pytest.mark.parametrize("degree", [2, 3])
def test_a_polynomial_is_judged_by_rows_that_it_was_not_fitted_to(degree: int) -> None:
    x, y = load_wine(return_X_y=True)
    x = ((x - x.mean(axis=0)) / x.std(axis=0))[::2]
    y = np.where(np.random.default_rng(0).uniform(size=len(x)) < 0.3, 0, y[::2])
    targets = np.eye(3)[y] - np.eye(3)[y].mean(axis=0)
    kernel = {"kernel": "polynomial", "degree": degree, "gamma": 1 / x.shape[1], "coef0": 1}
    diagonal = np.mean((1 + (x**2).sum(axis=1) / x.shape[1]) ** degree)
    ridge = KernelRidge(alpha=RIDGE * diagonal, **kernel)
    rows = np.arange(len(x))
    said = np.stack([ridge.fit(x[rows != row], targets[rows != row]).predict(x[[row]])[0] for row in rows])
    second, sureness = np.sort(said, axis=1).T[1:]
    surest = np.argsort(second - sureness)[: len(x) // 3]
    is_right = said.argmax(axis=1) == y
    contradicted = 1 - is_right[surest].mean()
    assert contradicted > 0.05
    found = known_by_polynomial(torch.from_numpy(x).float(), torch.from_numpy(y), degree)
    assert found == pytest.approx((is_right.mean(), contradicted))


def test_a_polynomial_says_what_can_be_known_where_neighbours_are_lost() -> None:
    random = torch.Generator().manual_seed(0)
    x = torch.randn(1500, 12, generator=random)
    sphere = (x.square().sum(dim=1) > 11.3).long()
    found = neighbourhoods(x, sphere)
    assert found is not None
    assert found.attainable > 0.8
    by_chance = neighbourhoods(x, torch.randint(2, (1500,), generator=random))
    assert by_chance is not None
    assert by_chance.attainable == pytest.approx(0.5, abs=0.06)
    squares = torch.rand(1500, 2, generator=random) * 6
    wrong = torch.rand(1500, generator=random) < 0.2
    checked = neighbourhoods(squares, (squares.floor().sum(dim=1) % 2).long() ^ wrong.long())
    assert checked is not None
    assert checked.attainable > 0.65, "where polynomials are lost, neighbours say it"
    bits = torch.randint(2, (655, 9), generator=random).float()
    parity = neighbourhoods(bits, (bits.sum(dim=1) % 2).long())
    assert parity is not None
    assert parity.attainable < 0.3, "neighbours tell the contrary, polynomials nothing"
    corners = bits[:, :6] + 0.1 * torch.randn(655, 6, generator=random)
    parity = neighbourhoods(corners, (bits[:, :6].sum(dim=1) % 2).long())
    assert parity is not None
    assert parity.noise <= 1 - parity.attainable < 0.05, "ten neighbours are of one corner, twenty are not"


@pytest.mark.parametrize("classes", [2, 3])
def test_a_network_contradicts_wrong_labels_where_it_is_surest(classes: int) -> None:
    # The first third of the rows are likely the first class, the last third the last one; between them it is unsure.
    last = torch.linspace(0.01, 0.99, 90)
    between = torch.full_like(last, 0.005)
    probability = last if classes == 2 else torch.stack([1 - last - between, between, last], dim=1)
    right = (last > 0.5).long() * (classes - 1)
    for wrong in (0, 3, 12):
        labels = right.clone()
        labels[:wrong] = classes - 1
        labels[35:55] = 1  # where it is unsure, anything may be
        assert contradicted(probability, labels) == pytest.approx(wrong / 30)


@settings(max_examples=30, deadline=None)
@given(st.integers(2, 40), st.integers(1, 3), st.integers(0, 100))
def test_batch_signal_is_that_of_the_gradients_of_single_rows(rows: int, batch_size: int, seed: int) -> None:
    model = SigmoidMLP(3, [4], 1, seed=seed).double()
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(rows, 3, generator=generator, dtype=torch.float64)
    y = torch.randint(0, 2, (rows, 1), generator=generator).double()
    gradients = []
    for row in range(rows):
        model.zero_grad()
        torch.nn.functional.binary_cross_entropy_with_logits(
            model(x[row : row + 1]), y[row : row + 1]
        ).backward()
        gradients.append(torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None]))
    each = torch.stack(gradients)
    mean = each.mean(dim=0)
    expected = batch_size * mean.square().sum() / (each - mean).square().sum(dim=1).mean()
    assert batch_signal(trace(model, x, y), batch_size).item() == pytest.approx(expected.item(), rel=1e-6)


@settings(max_examples=30, deadline=None)
@given(st.integers(3, 40), st.integers(1, 3), st.integers(0, 100))
def test_output_signal_is_that_of_a_bias_that_has_learned_the_class_shares(
    rows: int, outputs: int, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(rows, 4, generator=generator, dtype=torch.float64)
    y = torch.rand(rows, outputs, generator=generator, dtype=torch.float64) * 0.8 + 0.1
    model = SigmoidMLP(4, [5], outputs, seed=seed).double()
    record = trace(model, x, y)
    error = record.layers[-1].delta
    # Targets with the mean error taken out: the output bias has nothing to learn from them.
    record = trace(model, x, y + error.mean(dim=0) * error.numel())
    assert record.layers[-1].bias_gradient.abs().max() < 1e-12
    each = torch.einsum("bo,bi->boi", record.layers[-1].delta, record.layers[-1].input)
    mean = each.mean(dim=0)
    expected = rows * mean.square().sum() / (each - mean).square().sum(dim=(1, 2)).mean()
    assert output_signal(trace(model, x, y)).item() == pytest.approx(expected.item(), rel=1e-6)


@pytest.mark.parametrize(
    ("rate", "bias", "expected"),
    [
        (0.1, 0.0, None),
        (float("inf"), 0.0, ("layers.0", "weight")),
        (0.1, 3e38, ("layers.1", "pre_activation")),
        (0.1, float("nan"), ("layers.0", "pre_activation")),
    ],
)
def test_the_first_tensor_that_turns_is_named(
    rate: float, bias: float, expected: tuple[str, str] | None
) -> None:
    model = SigmoidMLP(2, [3], 1, activation="relu", init="constant")
    x, y = torch.ones(4, 2), torch.ones(4, 1)
    with torch.no_grad():
        model.linear_layers[0].bias.fill_(bias)
    record = trace(model, x, y)
    network = Networks.of([list(model.parameters())], model.activation)
    assert first_non_finite(network, record, x, torch.tensor([rate, 0.0])) == expected


@settings(max_examples=30, deadline=None)
@given(
    st.integers(2, 4),
    st.lists(st.integers(1, 5), min_size=1, max_size=3),
    st.sampled_from(list(ACTIVATIONS)),
    st.integers(1, 3),
    st.booleans(),
)
def test_networks_measured_together_are_as_each_alone(
    count: int, hidden: list[int], activation: ActivationName, outputs: int, weighted: bool
) -> None:
    models = [SigmoidMLP(3, hidden, outputs, activation=activation, seed=seed) for seed in range(count)]
    generator = torch.Generator().manual_seed(count)
    x = torch.randn(count, 12, 3, generator=generator)
    y = torch.randint(0, 2, (count, 12, outputs), generator=generator).float()
    weight = torch.rand(count, 1, max(2, outputs), generator=generator) + 0.5 if weighted else None
    rates = torch.rand(count, 2, generator=generator)

    def measured(those: slice) -> list[tuple[Any, ...]]:
        parameters = [list(model.parameters()) for model in models[those]]
        networks = Networks.of(parameters, models[0].activation)
        own = None if weight is None else weight[those]
        record = networks.trace(x[those], y[those], own)
        with torch.no_grad():
            steps = best_steps(networks, record, x[those], y[those], own, rates[those])
            states = layer_states(networks, record)
        signals = (batch_signal(record, 4).tolist(), output_signal(record).tolist())
        return list(zip(states, *zip(*steps, strict=True), *signals, strict=True))

    for number, (states, *figures) in enumerate(measured(slice(None))):
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(measure, "ENTRIES_IN_CACHE", 0)  # as a large network, one length after the other
            [(alone, *its_figures)] = measured(slice(number, number + 1))
        assert figures == pytest.approx(its_figures, rel=1e-3, abs=1e-6)
        reference = trace(models[number], x[number], y[number], None if weight is None else weight[number, 0])
        for state, other, layer in zip(states, alone, reference.layers, strict=True):
            assert state.rms_delta == pytest.approx(layer.delta.square().mean().sqrt().item(), rel=1e-4)
            np.testing.assert_array_equal(state.silent, other.silent)
            np.testing.assert_allclose(state.saturation, other.saturation)
            np.testing.assert_array_equal(state.weight, layer.weight)


@settings(max_examples=30, deadline=None)
@given(st.booleans(), st.integers(0, 20), st.integers(0, 20), st.integers(0, 10))
def test_rows_held_out_that_are_training_rows(is_continuous: bool, copied: int, own: int, half: int) -> None:
    """Of columns that tell rows apart, and of those that do not; rows with one value in common are not the same."""
    generator = torch.Generator().manual_seed(copied)
    train = torch.randn(50, 4, generator=generator)
    other = torch.randn(own + 1, 4, generator=generator)
    if not is_continuous:
        train, other = train.round().clamp(-1, 1), other.round().clamp(-1, 1)
    halves = torch.cat([train[:half, :2], other[:1, 2:].expand(half, -1)], dim=1)
    held_out = torch.cat([train[:copied], other, halves])
    y, of_held_out = torch.zeros(50, 1), torch.zeros(len(held_out), 1)
    of_held_out[: copied // 2] = 1  # with another label it is another row
    rows = {tuple(row) for row in torch.cat([train, y], dim=1).tolist()}
    found = data_state(
        {"train": (train, y), "val": (held_out, of_held_out)}, list("abcd"), np.array([1.0, 0.0])
    )
    expected = sum(tuple(row) in rows for row in torch.cat([held_out, of_held_out], dim=1).tolist())
    assert found.repeated_in["val"] == (expected, expected / len(held_out))


@settings(max_examples=20, deadline=None)
@given(
    st.integers(2, 4).flatmap(
        lambda classes: st.tuples(
            st.just(classes), st.lists(st.integers(0, classes - 1), min_size=2, max_size=30)
        )
    ),
    st.floats(0, 0.5),
    st.one_of(st.none(), st.floats(0.1, 10)),
)
def test_constant_loss_is_the_least_of_any_constant(
    rows: tuple[int, list[int]], smoothing: float, weight: float | None
) -> None:
    classes, labels = rows
    outputs = np.eye(classes)[labels] if classes > 2 else np.array(labels, float)[:, None]
    y = torch.tensor(outputs) * (1 - smoothing) + smoothing / 2
    of_class = [1.0 if weight is None else weight / (1 + number) for number in range(classes)]
    of_row = torch.tensor([of_class[label] for label in labels], dtype=torch.float64)
    logits = torch.linspace(-12, 12, 801, dtype=torch.float64)
    # The loss of each logit for each target, and of it the least of all logits: for all rows the same, and for each its own.
    each = torch.nn.functional.binary_cross_entropy_with_logits(
        logits[:, None, None].expand(-1, *y.shape), y.expand(len(logits), *y.shape), reduction="none"
    )
    each *= of_row[:, None]
    class_weight = None if weight is None else torch.tensor(of_class, dtype=torch.float64)
    least, perfect = each.mean(dim=1).amin(dim=0).mean(), each.amin(dim=0).mean()
    assert constant_loss(y, class_weight).item() == pytest.approx(least.item(), abs=2e-3)
    assert perfect_loss(y, class_weight).item() == pytest.approx(perfect.item(), abs=2e-3)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.lists(st.sampled_from([-1.5, -0.0, 0.0, 1e-30, 2.0]), min_size=3, max_size=3), min_size=1))
def test_row_keys_are_equal_where_rows_are(rows: list[list[float]]) -> None:
    x = torch.tensor(rows)
    keys = row_keys(x[:, :2], x[:, 2:])
    for i, j in itertools.combinations(range(len(rows)), 2):
        assert (keys[i] == keys[j]) == (rows[i] == rows[j])
