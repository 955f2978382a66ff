"""Planted illnesses and healthy runs, from configuration alone, and what is said of them."""

import itertools
import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from hydra import compose, initialize_config_dir
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.datasets import load_digits, load_wine, make_classification, make_moons
from sklearn.kernel_ridge import KernelRidge
from sklearn.metrics import balanced_accuracy_score
from sklearn.neighbors import KNeighborsClassifier

from backlight import early_warning
from backlight.assemble import assemble
from backlight.backprop.activations import ACTIVATIONS, ActivationName
from backlight.backprop.trace import trace
from backlight.command import config_folder
from backlight.config import plain, task_of
from backlight.diagnosis import measure
from backlight.diagnosis.finding import Finding
from backlight.diagnosis.measure import (
    RIDGE,
    Networks,
    batch_signal,
    best_steps,
    constant_loss,
    contradicted,
    contradicted_by_polynomial,
    data_state,
    first_non_finite,
    layer_states,
    neighbourhoods,
    output_signal,
    perfect_loss,
    row_keys,
)
from backlight.diagnosis.observations import (
    DataState,
    Floats,
    LayerState,
    Neighbourhoods,
    Observations,
    Settings,
)
from backlight.diagnosis.remedies import REMEDIES, remedies
from backlight.diagnosis.symptoms import SYMPTOMS
from backlight.examination import Evidence
from backlight.model import SigmoidMLP
from backlight.run_folder import RunFolder
from tests.conftest import Call, TrainedRun
from tests.test_tensorboard import events, events_in

Train = Callable[..., TrainedRun]

QUICK = [
    f"callbacks.{name}=null" for name in ("backprop", "gradients", "evaluation_plots", "decision_boundary")
]

SICK = {
    "underfitting": ["data=circles", "model.hidden=[2]", "optimizer=adam", "optimizer.lr=0.05", "trainer.max_epochs=60"],
    "label_noise": ["data=moons", "data.label_noise=0.3", "model.hidden=[10]", "optimizer=adam", "trainer.max_epochs=20"],
    "batch_too_small": [
        "data=moons", "data.n_samples=400", "data.batch_size=1", "data.noise=0.5", "optimizer.lr=0.3", "model.hidden=[8]",
        "trainer.max_epochs=12",
    ],
    "learning_rate_too_low": ["experiment=reference", "trainer.max_epochs=100"],
    "vanishing_gradient": ["experiment=vanishing_gradients", "trainer.max_epochs=10"],
    "too_few_epochs": [
        "data=hastie", "data.n_samples=1500", "optimizer.lr=0.1", "model.hidden=[24,24]", "model.activation=tanh",
        "trainer.max_epochs=5",
    ],
    "symmetric_neurons": ["data=moons", "model.init=constant", "trainer.max_epochs=10"],
    "dead_units": [
        "data=circles", "model.activation=relu", "model.hidden=[40,40]", "optimizer.lr=3", "trainer.max_epochs=10",
    ],
    "saturated_neurons": ["data=circles", "model.init=normal", "model.init_scale=100", "trainer.max_epochs=10"],
    "exploding_gradient": [
        "data=moons", "model.activation=relu", "model.hidden=[20,20,20]", "model.init=normal",
        "model.init_scale=3", "optimizer.lr=1e-5",
    ],
    "unscaled_features": ["data=wine", "data.standardize=false", "trainer.max_epochs=30"],
    "diverging": ["data=moons", "optimizer.lr=1000", "trainer.max_epochs=20"],
    "oscillating": ["data=moons", "optimizer=rmsprop", "optimizer.lr=1", "trainer.max_epochs=40"],
    "plateau": ["data=xor", "optimizer.lr=0.01", "optimizer.momentum=0", "trainer.max_epochs=30"],
    "class_imbalance": ["data=blobs", "data.imbalance=0.04", "data.cluster_std=4", "trainer.max_epochs=20"],
    "overfitting": [
        "data.n_samples=120", "data.flip_y=0.3", "data.val_fraction=0.4", "model.hidden=[100]", "optimizer=adam",
        "optimizer.lr=0.03", "trainer.max_epochs=150",
    ],
}  # fmt: skip

HEALTHY = [
    ["experiment=solved"],
    ["experiment=xor", "trainer.max_epochs=50"],
    ["data=moons", "optimizer=adam", "optimizer.lr=0.05", "model.hidden=[16]", "trainer.max_epochs=40"],
    ["data=iris", "optimizer=adam", "optimizer.lr=0.05", "trainer.max_epochs=60"],
    ["data=digits", "model.hidden=[32]", "optimizer=adamw", "optimizer.lr=0.01", "trainer.max_epochs=20"],
    ["data=breast_cancer", "model.hidden=[8]", "trainer.max_epochs=30"],
    [
        "data=circles",
        "model.activation=tanh",
        "model.hidden=[16,16]",
        "optimizer.lr=0.1",
        "trainer.max_epochs=40",
    ],
    ["data=moons", "model.activation=relu", "model.hidden=[20]", "optimizer.lr=0.1", "trainer.max_epochs=40"],
]


def diagnosis(run: TrainedRun) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = run.summary["diagnosis"]
    return found


@pytest.mark.parametrize("symptom", SICK)
def test_planted_illness_is_the_main_finding(train: Train, symptom: str) -> None:
    run = train(*QUICK, *SICK[symptom])
    found = diagnosis(run)
    assert found, "called healthy"
    assert found[0]["symptom"] == symptom, found
    assert found[0]["evidence"]
    assert found[0]["remedies"]
    words = symptom.replace("_", " ")
    assert f"verdict      {words}" in run.result.out
    assert f"try          {found[0]['remedies'][0]}" in run.result.out


@pytest.mark.parametrize(
    ("symptom", "arguments"),
    [
        # Both learn in spite of how they start.
        ("saturated_neurons", "data=xor model.init=normal model.init_scale=150 model.hidden=[20] seed=7004"),
        (
            "exploding_gradient",
            "data=xor model.activation=gelu model.hidden=[30,30,30,30] model.init=normal model.init_scale=2 "
            "optimizer.lr=1e-8 trainer.max_epochs=100 seed=7003",
        ),
        # Slow, but five epochs settle nothing where the neighbours know every class.
        ("too_few_epochs", "data=spirals optimizer=adam model.hidden=[32] model.activation=tanh trainer.max_epochs=5"),
        ("learning_rate_too_low", "data=moons optimizer=adam optimizer.lr=1e-6 model.hidden=[20]"),
        # It began above the loss of the class shares, and is not yet quite down to it.
        (
            "learning_rate_too_low",
            "experiment=reference optimizer.lr=0.02 model.hidden=[8] trainer.max_epochs=100 seed=143609",
        ),
        # It has not even learned how frequent each class is, which its last bias alone would do.
        (
            "learning_rate_too_low",
            "data=circles data.noise=0.08 data.n_samples=1200 model.hidden=[8,8] optimizer=rmsprop optimizer.lr=1e-6 "
            "trainer.max_epochs=10 seed=872455",
        ),
        # It rests beside a straight border for a moment.
        (
            "too_few_epochs",
            "data=spirals data.n_samples=1200 model.activation=tanh model.hidden=[32] optimizer=adam optimizer.lr=0.003 "
            "trainer.max_epochs=3 seed=844339",
        ),
        # The mean over the steps of an epoch hides how far each is off.
        (
            "oscillating",
            "data=hastie data.n_samples=3000 model.hidden=[12] optimizer=adam optimizer.lr=1 trainer.max_epochs=35 "
            "seed=920124",
        ),
        # A straight border. The few rows held out happen to be easier than the others.
        (
            "underfitting",
            "data=moons model.hidden=[1] optimizer=adam optimizer.lr=0.03 trainer.max_epochs=60 seed=7400",
        ),
        # It knows what the neighbours know; that its loss still falls a little does not hide the labels.
        ("label_noise", "data=wine +data.label_noise=0.3 model.hidden=[8] optimizer=adam trainer.max_epochs=20 seed=7001"),
    ],
)  # fmt: skip
def test_planted_illness_is_found_where_others_hide_it(train: Train, symptom: str, arguments: str) -> None:
    assert symptom in [found["symptom"] for found in diagnosis(train(*QUICK, *arguments.split()))]


def test_wrong_labels_are_told_from_neighbours_that_are_lost(train: Train) -> None:
    classes = (
        "data.n_classes=3 model.hidden=[32] model.activation=tanh optimizer=adam trainer.max_epochs=30 seed=1"
    )
    assert diagnosis(train(*QUICK, *classes.split())) == []
    # What a network knows by heart it contradicts nowhere; so others are asked.
    by_heart = train(
        *QUICK, "data=breast_cancer", "+data.label_noise=0.25", "model.hidden=[128]", "model.activation=relu",
        "optimizer=adam", "optimizer.lr=0.005", "trainer.max_epochs=80", "seed=1", folder="by_heart",
    )  # fmt: skip
    assert by_heart.summary["metrics"]["train/accuracy"] > 0.9
    assert "label_noise" in [found["symptom"] for found in diagnosis(by_heart)]


def test_neurons_beside_one_that_has_run_away_are_no_copies(train: Train) -> None:
    run = train(
        *QUICK, "data=moons", "data.noise=0.4", "model.activation=relu", "optimizer.lr=30", "model.hidden=[20]",
        "trainer.max_epochs=20",
    )  # fmt: skip
    symptoms = [found["symptom"] for found in diagnosis(run)]
    assert "diverging" in symptoms and "symmetric_neurons" not in symptoms


def test_pixels_of_the_border_are_not_unscaled(train: Train, tmp_path: Path) -> None:
    x, y = load_digits(return_X_y=True)
    border = np.random.default_rng(0).integers(0, 2, (len(x), 10, 10))
    border[:, 1:-1, 1:-1] = 15 * x.reshape(-1, 8, 8)
    np.savez(tmp_path / "digits.npz", x=border.astype(np.uint8), y=y)
    images = ["data=images", "data.path=digits.npz", "data.size=10", "model.hidden=[32]", "optimizer=adamw"]
    assert diagnosis(train(*QUICK, *images, "trainer.max_epochs=20")) == []


@pytest.mark.parametrize("arguments", HEALTHY, ids=" ".join)
def test_healthy_runs_are_called_so(train: Train, arguments: list[str]) -> None:
    run = train(*QUICK, *arguments)
    assert diagnosis(run) == []
    assert "verdict      healthy" in run.result.out


def test_symptoms_are_told_once_while_a_run_trains(train: Train) -> None:
    sick = train(*QUICK, "data=moons", "model.init=zeros", "trainer.max_epochs=8", folder="sick")
    warnings = re.findall("^warning      (.*)$", sick.result.out, re.MULTILINE)
    assert [line.partition(".")[0] for line in warnings].count("symmetric neurons in layers") == 1
    assert sick.result.out.index("warning      symmetric") < sick.result.out.index("epoch 1/8")
    assert "warning: symmetric neurons in layers.0" in (sick.path / "train.log").read_text()
    assert len(warnings) == len(set(warnings))
    healthy = train(
        *QUICK, "data=moons", "optimizer=adam", "optimizer.lr=0.05", "trainer.max_epochs=20", folder="healthy"
    )
    assert "warning" not in healthy.result.out


def test_what_happens_in_training_is_dated_by_when_it_was_first_seen(train: Train) -> None:
    run = train(*QUICK, *SICK["dead_units"], "trainer.max_epochs=20")
    found = diagnosis(run)[0]
    assert found["symptom"] == "dead_units"
    assert found["step"] in [run.summary["steps"] * quarter // 4 for quarter in (1, 2, 3)]


def test_looks_that_take_too_long_are_left_out(train: Train, monkeypatch: pytest.MonkeyPatch) -> None:
    # Nothing is known to ail it before it trains.
    options = [*QUICK, "data=xor", "optimizer.lr=0.01", "optimizer.momentum=0", "trainer.max_epochs=40"]
    assert "warning      plateau" in train(*options, folder="each").result.out
    monkeypatch.setattr(early_warning, "UNNOTICED", 0.0)
    monkeypatch.setattr(early_warning, "MOST_TIME", 0.0)
    few = train(*options, folder="few")
    assert "warning" not in few.result.out
    assert "verdict      plateau" in few.result.out


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
    assert clean is not None and clean.attainable < 0.8
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
    expected = (said.argmax(axis=1)[surest] != y[surest]).mean()
    assert expected > 0.05
    assert contradicted_by_polynomial(torch.from_numpy(x), torch.from_numpy(y), degree) == pytest.approx(
        expected
    )


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


def test_a_run_that_fails_is_diagnosed(call: Call, tmp_path: Path) -> None:
    result = call("train", "data=moons", "model.activation=relu", "optimizer.lr=1e38", "hydra.run.dir=run")
    assert result.code == 2
    (finding, *_) = json.loads((tmp_path / "run" / "summary.json").read_text())["diagnosis"]
    assert finding["symptom"] == "non_finite"
    assert finding["severity"] == "fatal"
    assert finding["evidence"]["first_tensor"] in (
        "layers.0.weight",
        "layers.1.weight",
        "layers.1.pre_activation",
    )
    assert result.out.splitlines()[-2].startswith("verdict      non finite")
    assert result.out.splitlines()[-1].startswith(f"try          {finding['remedies'][0]}")
    text = (
        events_in(tmp_path / "run").Tensors("diagnosis/text_summary")[0].tensor_proto.string_val[0].decode()
    )
    assert "non finite" in text and f"`{finding['remedies'][0]}`" in text
    assert call("diagnose", "run=run").out.startswith("non finite")


@pytest.mark.parametrize(
    ("first", "second", "arguments"),
    [
        # In wide layers the few neurons that are not saturated pass on much through their large weights.
        (
            "saturated_neurons",
            "exploding_gradient",
            "data=xor model.activation=tanh model.hidden=[32,32] model.init=normal model.init_scale=40 optimizer=adam "
            "optimizer.lr=0.001 trainer.max_epochs=10",
        ),
        (
            "vanishing_gradient",
            "saturated_neurons",
            "data=digits model.hidden=[40,40,40,40,40,40,40,40] optimizer=adam optimizer.lr=0.008 trainer.max_epochs=12",
        ),
        (
            "unscaled_features",
            "oscillating",
            "data=breast_cancer data.standardize=false model.activation=gelu model.hidden=[12] optimizer=adam "
            "trainer.max_epochs=60 seed=596920",
        ),
    ],
)  # fmt: skip
def test_the_cause_is_named_before_what_follows_from_it(
    train: Train, first: str, second: str, arguments: str
) -> None:
    found = [finding["symptom"] for finding in diagnosis(train(*QUICK, *arguments.split()))]
    assert found[0] == first and second in found, found


def test_a_hopeless_run_stops_and_says_so(train: Train) -> None:
    diverging = ("data=moons", "optimizer.lr=1000", "trainer.max_epochs=30")
    run = train(*QUICK, *diverging, "callbacks.stop_hopeless.patience=4", folder="stopped")
    assert run.summary["epochs"] < 12
    assert f"stopped after epoch {run.summary['epochs']}: train/loss has been above" in run.result.out
    assert diagnosis(run)[0]["symptom"] == "diverging"
    assert train(*QUICK, *diverging, "callbacks.stop_hopeless=null", folder="free").summary["epochs"] == 30


def test_a_bad_start_is_not_hopeless(train: Train) -> None:
    far = ("model.init=normal", "model.init_scale=30", "model.activation=tanh", "optimizer.lr=0.01")
    run = train(*QUICK, "data=moons", *far, "trainer.max_epochs=12", "callbacks.stop_hopeless.patience=1")
    assert run.summary["epochs"] == 12


def test_rows_in_two_parts_are_leakage(train: Train, tmp_path: Path) -> None:
    x, y = make_moons(300, noise=0.2, random_state=0)
    frame = pd.DataFrame(x, columns=["a", "b"]).assign(y=y)
    pd.concat([frame, frame.iloc[:60]]).to_csv(tmp_path / "rows.csv", index=False)
    frame.to_csv(tmp_path / "clean.csv", index=False)
    learn = ("data=table", "data.target=y", "optimizer=adam", "optimizer.lr=0.05", "trainer.max_epochs=30")
    repeated = train(*learn, "data.path=rows.csv", folder="repeated")
    assert "leakage" in [finding["symptom"] for finding in diagnosis(repeated)]
    clean = train(*learn, "data.path=clean.csv", folder="clean")
    assert "leakage" not in [finding["symptom"] for finding in diagnosis(clean)]


def test_diagnose_says_the_same_of_the_folder(train: Train, call: Call) -> None:
    run = train("data=moons", "model.init=constant", "model.hidden=[6]", "trainer.max_epochs=5")
    result = call("diagnose", "run=run")
    assert result.code == 0, result.err
    verdict = next(line for line in run.result.out.splitlines() if line.startswith("verdict"))
    assert result.out.splitlines()[0] == verdict.removeprefix("verdict").strip()
    assert "0, 1, 2, 3, 4, 5" in result.out
    assert "1. model.init=xavier" in result.out
    text = events(run).Tensors("diagnosis/text_summary")[0].tensor_proto.string_val[0].decode()
    assert "symmetric neurons in layers.0" in text
    assert "`model.init=xavier model.init_scale=1.0`" in text


def test_what_is_so_already_is_no_remedy(train: Train) -> None:
    sick = ("data=moons", "model.init=zeros", "trainer.max_epochs=2")
    assert diagnosis(train(*QUICK, *sick, folder="one"))[0]["remedies"] == [
        "model.init=xavier model.init_scale=1.0"
    ]
    deep = (
        "data=moons",
        "model.hidden=[9,9,9,9,9,9,9]",
        "trainer.max_epochs=2",
        "model.init=xavier",
        "model.init_scale=4.0",
    )
    found = diagnosis(train(*QUICK, *deep, "optimizer=adam", "optimizer.lr=0.01", folder="two"))
    given = [remedy for finding in found for remedy in finding["remedies"]]
    assert given
    assert "model.init=xavier model.init_scale=4.0" not in given
    assert "optimizer=adam optimizer.lr=0.01" not in given


def test_what_uses_adam_is_told_at_most_its_usual_rate(train: Train) -> None:
    deep = (*QUICK, "data=moons", "model.hidden=[9,9,9,9,9,9,9]", "trainer.max_epochs=2", "optimizer=adam")
    near, far = (
        diagnosis(train(*deep, f"optimizer.lr={lr}", folder=f"rate{lr}"))[0]["remedies"]
        for lr in (0.02, 0.001)
    )
    assert near and not any("optimizer" in remedy for remedy in near)
    others = [f"{remedy} optimizer.lr=0.01" for remedy in near]
    assert far == [*others[:2], "optimizer.lr=0.01", *others[2:]], "no other change helps at such a rate"


def test_a_run_that_has_hardly_begun_had_too_few_epochs(train: Train) -> None:
    begun = (
        *QUICK,
        "data=hastie",
        "optimizer=adam",
        "model.hidden=[32]",
        "model.activation=tanh",
        "seed=777",
    )
    run = train(*begun, "optimizer.lr=0.02", "trainer.max_epochs=3")
    assert "warning" not in run.result.out
    (found,) = diagnosis(run)
    assert (found["symptom"], found["severity"]) == ("too_few_epochs", "fatal")
    assert found["remedies"][0] == "trainer.max_epochs=30"


def test_an_unfinished_run_is_diagnosed(train: Train, call: Call) -> None:
    run = train("data=moons", "model.init=zeros", "trainer.max_epochs=2")
    (run.path / "summary.json").unlink()
    assert call("diagnose", "run=run").out.startswith("symmetric neurons in layers.0")
    (run.path / "metrics.csv").write_text("epoch,train/loss\n1,high\n")
    refused = call("diagnose", "run=run")
    assert refused.code == 2
    assert "metrics.csv: not the metrics of a run" in refused.err
    for file in ("metrics.csv", "checkpoints/last.ckpt", "checkpoints/best.ckpt"):
        (run.path / file).unlink()
    assert call("diagnose", "run=run").out.startswith("symmetric neurons in layers.0")
    assert "not a run folder" in call("diagnose", "run=nowhere").err


@pytest.mark.slow
@pytest.mark.parametrize(
    "symptom",
    ["learning_rate_too_low", "vanishing_gradient", "saturated_neurons", "plateau", "unscaled_features"],
)
def test_a_remedy_helps(train: Train, symptom: str) -> None:
    sick = train(*QUICK, *SICK[symptom], folder="sick")
    after = []
    for number, remedy in enumerate(diagnosis(sick)[0]["remedies"]):
        treated = train(*QUICK, *SICK[symptom], *remedy.split(), folder=f"treated{number}")
        after.append(treated.summary["metrics"]["train/loss"])
    assert min(after) < 0.8 * sick.summary["metrics"]["train/loss"]


@pytest.mark.parametrize("symptom", SYMPTOMS)
def test_every_symptom_has_remedies_that_compose(train: Train, symptom: str, tmp_path: Path) -> None:
    from backlight.diagnose import Diagnosis

    with initialize_config_dir(str(config_folder()), version_base="1.3"):
        config = plain(task_of(compose("train", ["data=moons"])))
        experiment = assemble(config, RunFolder(tmp_path / "run"))
        diagnosis = Diagnosis.of(config, Evidence.of(RunFolder(tmp_path / "run")), experiment.data)
        remedies = diagnosis.against(Finding(symptom, "serious", 0, {}))
        assert remedies
        for remedy in remedies:
            assert remedy.why.endswith(".")
            assert remedy.source
            changed = plain(task_of(compose("train", ["data=moons", *remedy.overrides.split()])))
            assemble(changed, RunFolder(tmp_path / "changed"))
    assert set(REMEDIES) == set(SYMPTOMS)


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


def observed(*losses: float) -> Observations:
    """A run of 10 steps an epoch with these training losses, of two classes, and nothing else about it."""
    settings = Settings("sgd", True, set(), 0.1, "sigmoid", [5], len(losses), 32, True)
    data = DataState(np.array([0.5, 0.5]), ["a"], np.zeros(1), np.ones(1), rows={"train": 320})
    series = {"train/loss": np.array(losses)}
    return Observations(
        settings, series, 10, 1.0, 0.0, 1.0, [], [], lambda: (0.0, 0.0), lambda: 0.0, 1.0, 1.0, data
    )


def with_a_rare_class(run: Observations, held_out: int, balanced: float | None) -> DataState:
    """Its data with a class of 4 %, so many rows held out, and what the neighbours know of each class."""
    nearby = None if balanced is None else Neighbourhoods(0.97, 0.0, balanced)
    rows = {"train": 320, "val": held_out}
    return replace(run.data, class_shares=np.array([0.96, 0.04]), rows=rows, neighbourhoods=nearby)


@pytest.mark.parametrize(
    ("accuracy", "balanced", "attainable", "rows", "weighs_classes", "is_found"),
    [
        (0.96, 0.5, 0.9, 100, False, True),
        (0.04, 0.5, 0.9, 100, True, True),  # every row is taken for the rare class
        (0.52, 0.5, 0.9, 100, True, False),  # as by chance
        (0.8, 0.79, 0.9, 100, True, False),
        (0.95, 0.8, 0.9, 100, False, True),
        (0.95, 0.8, 0.9, 100, True, False),  # four rows of a class say little of it
        (0.95, 0.8, 0.9, 10_000, True, True),
        (0.95, 0.8, 0.8, 10_000, True, False),  # nor do the neighbours know more of it
        (0.95, 0.8, 0.8, 10_000, False, True),
        (0.95, 0.8, None, 10_000, True, True),
    ],
)
def test_a_rare_class_is_missed_or_seen_everywhere(
    accuracy: float,
    balanced: float,
    attainable: float | None,
    rows: int,
    *,
    weighs_classes: bool,
    is_found: bool,
) -> None:
    run = observed(1.0, 0.6, 0.5)
    held_out = {"val/accuracy": np.array([accuracy]), "val/balanced_accuracy": np.array([balanced])}
    seen = replace(
        run,
        series=run.series | held_out,
        settings=replace(run.settings, weighs_classes=weighs_classes),
        data=with_a_rare_class(run, rows, attainable),
    )
    assert (SYMPTOMS["class_imbalance"](seen) is not None) == is_found


def test_a_missed_class_is_seen_in_training_rows_where_none_are_held_out(train: Train, call: Call) -> None:
    found = diagnosis(train(*QUICK, *SICK["class_imbalance"], "data.val_fraction=0"))[0]
    assert found["symptom"] == "class_imbalance"
    said = call("evaluate", "run=run", "part=train").out
    balanced = re.search(r"balanced_accuracy +│ +([\d.]+)", said)
    assert balanced is not None
    assert found["evidence"]["balanced_accuracy"] == pytest.approx(float(balanced[1]), abs=1e-4)


@pytest.mark.parametrize(
    ("balanced", "rows", "weighs_classes", "is_found"),
    [
        (0.6, 2000, True, True),
        (0.6, 2000, False, False),  # accuracy says nothing of a rare class
        (0.6, 20, True, False),  # as chance may have it
        (0.85, 2000, True, False),
        (float("nan"), 2000, True, False),
    ],
)
def test_of_weighed_classes_the_neighbours_tell_what_each_could_be_known_by(
    balanced: float, rows: int, *, weighs_classes: bool, is_found: bool
) -> None:
    run = observed(*np.linspace(1.0, 0.8, 5), *[0.8] * 10)
    seen = replace(
        run,
        series=run.series
        | {"train/accuracy": np.array([0.7]), "val/balanced_accuracy": np.array([balanced])},
        settings=replace(run.settings, weighs_classes=weighs_classes),
        data=with_a_rare_class(run, rows, 0.9),
    )
    finding = SYMPTOMS["underfitting"](seen)
    assert (finding is not None) == is_found
    if finding is not None:
        assert finding.evidence["balanced_accuracy_of_the_neighbours"] == 0.9


@pytest.mark.parametrize("smoothing", [0, 0.2])
@pytest.mark.parametrize("classes", [2, 4])
def test_weighed_classes_are_found_alike(train: Train, classes: int, smoothing: float) -> None:
    """Also the rare ones among frequent ones, and beside soft labels, which are those of all rows."""
    rare = [
        "data=gaussian_quantiles",
        f"data.n_classes={classes}",
        "data.n_samples=4000",
        "data.imbalance=0.05",
    ]
    learner = ["model.hidden=[20]", "optimizer=adam", "optimizer.lr=0.03", "trainer.max_epochs=15"]
    plain = train(*QUICK, *rare, *learner, folder="plain").summary["metrics"]
    weighed = train(
        *QUICK,
        *rare,
        *learner,
        "loss.class_weight=balanced",
        f"loss.label_smoothing={smoothing}",
        folder="weighed",
    ).summary["metrics"]
    assert weighed["test/balanced_accuracy"] > plain["test/balanced_accuracy"] + 0.2


def test_symptoms_of_the_loss_name_the_epoch_at_which_they_begin() -> None:
    falls_then_jumps = observed(1.0, 0.9, 0.8, 0.81, 0.9, 0.7, 0.9, 0.7, 0.9, 0.7)
    falls_then_rests = observed(1.0, 0.9, 0.805, 0.8, 0.801, 0.8, 0.799, 0.8, 0.8, 0.8)
    leaves_late = observed(1.0, 1.0, 1.0, 1.0, 0.99, 1.0, 0.7, 0.4, 0.2, 0.21, 0.19)
    assert SYMPTOMS["oscillating"](leaves_late) is None, "a fall that lasts is no jump"
    jumps, rests = SYMPTOMS["oscillating"](falls_then_jumps), SYMPTOMS["plateau"](falls_then_rests)
    assert jumps is not None and jumps.step == 50, "the fifth epoch is the first to rise by 0.035"
    assert rests is not None and rests.step == 30, (
        "from the third epoch on the loss changes by less than 0.01"
    )


def test_both_losses_tell_what_jumps() -> None:
    run = observed(1.0, 0.9, 0.8, 0.8, 0.81, 0.79, 0.81, 0.79, 0.81, 0.79)
    jumps = [0.9, 0.9, 0.9, 0.9, 0.9, 0.7, 0.9, 0.7, 0.9, 0.7]

    def beside(losses: list[float], rows: int) -> Finding | None:
        series = {**run.series, "val/loss": np.array(losses)}
        return SYMPTOMS["oscillating"](
            replace(run, series=series, data=replace(run.data, rows={"train": 320, "val": rows}))
        )

    assert beside(jumps, 20) is None, "so few rows jump by chance"
    assert beside([0.9] * 10, 200) is None
    few = replace(run, series={"train/loss": run.loss("train")[2:], "val/loss": np.array(jumps[2:])})
    few = replace(few, data=replace(run.data, rows={"train": 320, "val": 200}))
    assert SYMPTOMS["oscillating"](few) is None, "so few epochs jump by chance"
    found = beside(jumps, 200)
    assert found is not None and found.evidence == pytest.approx(
        {
            "mean_jump_of_train_loss_over_base_rate_loss": 0.02,
            "mean_jump_of_val_loss_over_base_rate_loss": 0.2,
        }
    )


@pytest.mark.filterwarnings("error")
def test_losses_of_any_size_are_judged_without_a_warning() -> None:
    huge = 1e250 * np.array([1, 3, 2, 4, 1, 5, 2, 6])
    assert SYMPTOMS["oscillating"](observed(*huge.tolist())) is not None


def test_what_was_learned_and_lost_is_not_what_was_never_learned() -> None:
    diverging, base_rate = SYMPTOMS["diverging"], SYMPTOMS["base_rate"]
    lost = observed(1.0, 0.5, 0.3, 0.3, 0.31, 0.32, 0.33, 0.34, 0.35, 1.0)
    never = observed(1.0, 0.97, 0.96, 0.96, 0.96, 0.96, 0.96, 0.96, 0.96, 1.0)
    found = diverging(lost)
    assert found is not None
    assert (found.severity, found.step) == ("fatal", 30), "the third epoch was the last to lower it"
    assert (found.evidence["lowest_loss"], found.evidence["late_loss"]) == (0.3, 1.0)
    assert base_rate(lost) is None
    assert diverging(never) is None
    assert base_rate(never) is not None


def test_deltas_that_grew_as_a_run_diverged_are_not_its_cause() -> None:
    def layers(first: float) -> list[LayerState]:
        square = np.eye(2, dtype=np.float32)
        return [
            LayerState("layers", rms, np.zeros(2), np.zeros(2, bool), square, square[0])
            for rms in (first, 1.0)
        ]

    exploding = SYMPTOMS["exploding_gradient"]
    rests = replace(observed(*[1.0] * 10), start=layers(0.3), end=layers(100.0))
    at_its_end = exploding(rests)
    assert at_its_end is not None
    assert at_its_end.step == 100
    rises = replace(rests, series={"train/loss": np.arange(1.0, 11.0)})
    assert exploding(rises) is None
    from_the_start = exploding(replace(rises, start=layers(100.0)))
    assert from_the_start is not None
    assert from_the_start.step == 0


@pytest.mark.parametrize(("accuracy", "is_found"), [(0.94, False), (0.7, True)])
def test_a_gradient_vanishes_where_half_is_known_but_not_what_the_neighbours_know(
    accuracy: float, *, is_found: bool
) -> None:
    square = np.eye(2, dtype=np.float32)
    layers = [
        LayerState("layers", rms, np.zeros(2), np.zeros(2, bool), square, square[0])
        for rms in (1e-5, 1e-2, 1.0)
    ]
    half = observed(*np.geomspace(1.0, 0.45, 12))
    seen = replace(
        half,
        start=layers,
        end=layers,
        series=half.series | {"train/accuracy": np.full(12, accuracy)},
        data=replace(half.data, neighbourhoods=Neighbourhoods(0.95, 0.0, 0.95)),
    )
    assert (SYMPTOMS["vanishing_gradient"](seen) is not None) == is_found


@pytest.mark.parametrize(("val", "severity"), [(0.3, "warning"), (27.0, "serious")])
def test_deltas_that_explode_are_harmless_only_if_other_rows_are_known_too(val: float, severity: str) -> None:
    square = np.eye(2, dtype=np.float32)
    layers = [
        LayerState("layers", rms, np.zeros(2), np.zeros(2, bool), square, square[0]) for rms in (100.0, 1.0)
    ]
    learned = observed(*np.geomspace(1.0, 0.2, 12))
    series = learned.series | {"val/loss": np.full(12, val)}
    found = SYMPTOMS["exploding_gradient"](replace(learned, start=layers, end=layers, series=series))
    assert found is not None and found.severity == severity


def test_dead_units_matter_in_a_network_that_knows_less_than_the_neighbours() -> None:
    learned = observed(*np.geomspace(1.0, 0.4, 12).tolist())
    silent = np.arange(8) < 6
    layer = LayerState(
        "layers.0", 1e-3, np.zeros(8), silent, np.ones((8, 1), np.float32), np.ones(8, np.float32)
    )
    layers = [layer, replace(layer, silent=np.zeros(8, bool))]

    def severity(accuracy: float) -> str:
        found = SYMPTOMS["dead_units"](
            replace(
                learned,
                settings=replace(learned.settings, activation="relu"),
                data=replace(learned.data, neighbourhoods=Neighbourhoods(0.95, 0.0, 0.95)),
                series=learned.series | {"train/accuracy": np.full(12, accuracy)},
                start=[replace(each, silent=np.zeros(8, bool)) for each in layers],
                end=layers,
            )
        )
        assert found is not None and found.neurons == [0, 1, 2, 3, 4, 5]
        return found.severity

    assert severity(0.94) == "warning"
    assert severity(0.67) == "serious"


def test_a_network_that_has_learned_may_rest_more_units_than_one_that_has_not_or_leaps() -> None:
    silent = np.arange(20) < 10
    layer = LayerState(
        "layers.0", 1e-3, np.zeros(20), silent, np.ones((20, 1), np.float32), np.ones(20, np.float32)
    )

    def found(*losses: float, at_its_start: int = 0) -> Finding | None:
        seen = observed(*losses)
        relu = replace(seen.settings, activation="relu")
        start = [replace(layer, silent=np.arange(20) < at_its_start)] * 2
        return SYMPTOMS["dead_units"](replace(seen, settings=relu, start=start, end=[layer, layer]))

    assert found(*np.geomspace(1.0, 0.2, 12)) is None
    assert found(*np.geomspace(1.0, 0.2, 12), at_its_start=18) is None, "most came back"
    assert found(*np.geomspace(1.0, 0.8, 12), at_its_start=18) is not None
    for losses in (np.geomspace(1.0, 0.8, 12), np.resize([0.2, 0.4], 12)):
        dead = found(*losses)
        assert dead is not None
        assert dead.evidence == {"share": 0.5}


@pytest.mark.parametrize(
    ("noise", "contradicted", "is_found"),
    [
        (0.3, 0.2, True),
        (0.3, 0.05, False),
        (0.1, 0.2, False),
        (0.3, 0.5, True),  # of a network that knows nothing the rows are enough
    ],
)
def test_label_noise_is_what_neighbours_and_the_network_contradict(
    noise: float, contradicted: float, is_found: bool
) -> None:
    rests = observed(*[0.5] * 12)
    seen = replace(
        rests,
        data=replace(rests.data, neighbourhoods=Neighbourhoods(0.8, noise, 0.8)),
        measure_contradicted=lambda: contradicted,
    )
    assert (SYMPTOMS["label_noise"](seen) is not None) == is_found
    assert SYMPTOMS["label_noise"](replace(seen, series={})) is None, "no network was trained yet"


@pytest.mark.parametrize(
    ("attainable", "symptoms"),
    [
        (0.5, {"base_rate"}),
        (0.9, {"base_rate", "plateau"}),
        (0.1, {"base_rate", "plateau"}),  # of parity a neighbour tells the contrary
    ],
)
def test_a_network_that_knows_nothing_is_stuck_where_there_is_something_to_know(
    attainable: float, symptoms: set[str]
) -> None:
    rests = observed(*[1.0] * 12)
    seen = replace(
        rests, data=replace(rests.data, neighbourhoods=Neighbourhoods(attainable, 0.4, attainable))
    )
    assert {name for name in ("base_rate", "plateau") if SYMPTOMS[name](seen)} == symptoms


@pytest.mark.parametrize(
    ("rates", "losses", "severity", "settled"),
    [
        (0.5 ** np.arange(20), [0.9, 0.87, *[0.86] * 18], "serious", False),  # before anybody could tell
        (
            np.repeat([1.0, 0.01], [12, 28]),
            [*np.linspace(1.0, 0.8, 12), *[0.8] * 28],
            "serious",
            False,
        ),  # amid the fall
        (np.repeat([1.0, 0.01], [12, 28]), [0.9, *[0.8] * 39], "warning", True),
        (np.cos(np.linspace(0, np.pi, 40)) + 1, [0.9, *[0.8] * 39], None, True),
        (np.ones(40), [0.9, *[0.8] * 39], None, True),
        (np.repeat([1.0, 0.01], [12, 28]), [0.9, *np.linspace(0.5, 0.1, 39)], None, False),  # it has learned
    ],
)
def test_a_schedule_that_ends_training_too_soon_is_at_fault(
    rates: Floats, losses: list[float], severity: str | None, *, settled: bool
) -> None:
    run = observed(*losses)
    knows = "train/accuracy", np.array([1 - losses[-1] / 2])
    seen = replace(
        run,
        series=run.series | {"lr": 0.1 * rates, knows[0]: knows[1]},
        data=replace(run.data, neighbourhoods=Neighbourhoods(0.95, 0.0, 0.95)),
    )
    found = SYMPTOMS["learning_rate_too_low"](seen)
    assert (None if found is None else found.severity) == severity
    assert (SYMPTOMS["underfitting"](seen) is not None) == settled
    if found is not None:
        assert remedies(found, seen)[0].overrides == "scheduler=constant"
        assert found.step == 10 * (2 if len(rates) == 20 else 12)


def test_a_schedule_that_raises_the_rate_is_held_first() -> None:
    run = observed(1.0, 3.0, 2.0)
    for rates, is_told in (([0.1, 0.2, 0.4], True), ([0.01, 0.1, 0.05], False)):
        seen = replace(run, series=run.series | {"lr": np.array(rates)})
        first = remedies(Finding("diverging", "fatal", 0, {}), seen)[0].overrides
        assert (first == "scheduler=constant") == is_told


@pytest.mark.parametrize(
    ("steps_per_epoch", "hidden", "max_epochs", "expected"),
    [
        (10, 16, 20, "too_few_epochs"),
        (10, 16, 60, None),  # of an unfinished run nobody can tell
        (10, 4, 20, "underfitting"),  # so few neurons have no more to come to
        (100, 16, 20, "underfitting"),
    ],
)
def test_few_steps_tell_nothing_of_what_many_neurons_can_fit(
    steps_per_epoch: int, hidden: int, max_epochs: int, expected: str | None
) -> None:
    run = observed(*np.linspace(1.0, 0.85, 5), *[0.85] * 15)
    seen = replace(
        run,
        steps_per_epoch=steps_per_epoch,
        series=run.series | {"train/accuracy": np.array([0.7])},
        settings=replace(run.settings, hidden=[hidden], max_epochs=max_epochs),
        data=replace(run.data, neighbourhoods=Neighbourhoods(0.98, 0.0, 0.98)),
    )
    told = [name for name in ("underfitting", "too_few_epochs") if SYMPTOMS[name](seen) is not None]
    assert told == ([] if expected is None else [expected])
    if max_epochs == 20:
        assert SYMPTOMS["plateau"](seen) is None


@pytest.mark.parametrize(
    ("optimizer", "sick", "remedy"),
    [
        (
            "optimizer=adam optimizer.lr=0.01",
            "scheduler=exponential scheduler.factor=0.5",
            "scheduler=constant",
        ),
        ("optimizer.lr=0.1", "trainer.gradient_clip_val=0.001", "trainer.gradient_clip_val=null"),
    ],
)
def test_what_makes_steps_short_is_told_to_be_left_out(
    train: Train, optimizer: str, sick: str, remedy: str
) -> None:
    options = [*QUICK, "data=circles", "data.noise=0.1", "model.hidden=[32]", "model.activation=tanh"]
    options += [*optimizer.split(), "trainer.max_epochs=40"]
    found = diagnosis(train(*options, *sick.split(), folder="sick"))
    assert found[0]["symptom"] == "learning_rate_too_low"
    assert found[0]["remedies"][0] == remedy
    assert diagnosis(train(*options, remedy, folder="cured")) == []


@pytest.mark.parametrize(
    ("patience", "min_delta", "is_hasty"),
    [(0, 0.1, True), (1, 0.3, True), (6, 0.3, True), (10, 0.0, False), (None, 0.0, False)],
)
def test_early_stopping_that_does_not_wait_is_at_fault(
    train: Train, patience: int | None, min_delta: float, *, is_hasty: bool
) -> None:
    options = [*QUICK, "data=circles", "data.noise=0.1", "model.hidden=[32]", "model.activation=tanh"]
    options += ["optimizer=adam", "optimizer.lr=0.005", "trainer.max_epochs=90"]
    if patience is not None:
        stopping = "callbacks.early_stopping"
        options += [
            "callbacks=early_stopping",
            f"{stopping}.patience={patience}",
            f"{stopping}.min_delta={min_delta}",
        ]
    run = train(*options)
    assert (run.summary["epochs"] <= 7) == is_hasty
    found = diagnosis(run)
    assert [finding["symptom"] for finding in found] == (["too_few_epochs"] if is_hasty else [])
    if is_hasty:
        patient = train(*options, *found[0]["remedies"][0].split()[1:], folder="patient")
        assert patient.summary["epochs"] > 20
        assert diagnosis(patient) == []


def test_a_wrong_config_of_early_stopping_is_one_sentence(train: Train, call: Call) -> None:
    run = train(*QUICK, "data=moons", "callbacks=early_stopping")
    config = RunFolder(run.path).config
    config.write_text(config.read_text().replace("monitor: val/loss", "monitor: nothing"))
    result = call("diagnose", "run=run")
    assert result.code == 2
    assert "callbacks.early_stopping.monitor=nothing: must be" in result.err


def test_small_batches_jump_about_a_course_that_may_fall() -> None:
    course, jumps = np.linspace(1.0, 0.4, 20), 0.015 * np.resize([1.0, -1.0, -1.0, 1.0], 20)
    small = replace(observed(*course.tolist()).settings, batch_size=2)

    def found(batch_signal: float, train: Floats, **held_out: Floats) -> Finding | None:
        losses = observed(*train.tolist())
        series = losses.series | {f"{part}/loss": loss for part, loss in held_out.items()}
        seen = replace(losses, settings=small, batch_signal=batch_signal, series=series)
        return SYMPTOMS["batch_too_small"](seen)

    assert found(0.1, course + jumps, val=course + 4 * jumps) is not None
    assert found(0.1, course + 2 * jumps) is not None, "without validation rows"
    assert found(0.1, course, val=course + 4 * jumps) is None
    assert found(0.1, course**3, val=course**3) is None, "a bend is no jump"
    assert found(2.0, course + jumps, val=course + 4 * jumps) is None, "a batch shows where to go"
    assert found(0.1, course[:3], val=course[:3]) is None
    late = course - 0.3
    assert found(0.1, late + jumps, val=late + 2 * jumps) is None, "beside what it has learned they are small"
    assert found(0.1, course + jumps, val=course + 2 * jumps) is not None


def test_a_run_that_has_learned_half_but_falls_still_had_too_few_epochs() -> None:
    falls = observed(*np.linspace(1.0, 0.4, 12).tolist())
    knows_more = replace(falls.data, neighbourhoods=Neighbourhoods(0.95, 0.0, 0.95))

    def found(accuracy: float) -> Finding | None:
        series = falls.series | {"train/accuracy": np.full(12, accuracy)}
        return SYMPTOMS["too_few_epochs"](replace(falls, data=knows_more, series=series))

    assert found(0.7) is not None
    assert found(0.94) is None, "it knows what the neighbours know"


@pytest.mark.parametrize(
    ("losses", "severity"),
    [
        ([0.995, 0.975, 0.955], "fatal"),  # it would come to a tenth of the way
        ([0.99, 0.965, 0.94], "warning"),
        ([0.99, 0.985, 0.98], None),
        ([0.8, 0.78, 0.76], None),
    ],
)
def test_a_short_run_that_would_soon_know_twice_as_much_had_too_few_epochs(
    losses: list[float], severity: str | None
) -> None:
    found = SYMPTOMS["too_few_epochs"](observed(*losses))
    assert (found and found.severity) == severity


def test_a_short_run_that_knows_next_to_nothing_had_too_few_epochs_if_the_neighbours_know_better() -> None:
    begun = observed(1.0, 0.99, 0.98)

    def found(accuracy: float) -> Finding | None:
        return SYMPTOMS["too_few_epochs"](
            replace(
                begun,
                series=begun.series | {"train/accuracy": np.full(3, 0.55)},
                data=replace(begun.data, neighbourhoods=Neighbourhoods(accuracy, 0.0, accuracy)),
            )
        )

    known = found(0.8)
    assert known is not None
    assert known.severity == "fatal"
    assert found(0.57) is None


def test_a_single_epoch_was_too_short_if_it_fell_far_or_the_neighbours_know_better() -> None:
    too_few = SYMPTOMS["too_few_epochs"]

    def after(loss: float, start: float = 1.0, accuracy: float = 0.6) -> Observations:
        seen = replace(observed(loss), start_loss=start)
        seen.series["train/accuracy"] = np.array([accuracy])
        return replace(seen, data=replace(seen.data, neighbourhoods=Neighbourhoods(0.9, 0.0, 0.9)))

    fallen = after(0.98, start=1.4)
    assert too_few(fallen) is not None
    assert SYMPTOMS["base_rate"](fallen) is None
    assert too_few(after(0.98)) is not None
    assert too_few(after(0.98, accuracy=0.88)) is None
    assert too_few(after(0.995)) is None, "it has not moved"
    assert too_few(after(0.7)) is not None
    assert too_few(after(0.7, accuracy=0.88)) is None


@pytest.mark.parametrize(("attainable", "is_found"), [(0.8, True), (0.55, False)])
def test_the_fall_to_the_class_shares_is_not_what_there_was_to_learn(
    attainable: float, *, is_found: bool
) -> None:
    to_the_shares, below = np.linspace(1.2, 1.0, 10), np.linspace(1.0, 0.97, 10)
    falls = observed(*to_the_shares.tolist(), *below.tolist())
    seen = replace(
        falls,
        measure_longer_step=lambda: (100.0, 0.01),
        output_signal=5.0,
        data=replace(falls.data, neighbourhoods=Neighbourhoods(attainable, 0.0, attainable)),
    )
    found = SYMPTOMS["learning_rate_too_low"](seen)
    assert (found is not None) == is_found, "where nobody can know more, the loss has settled"


def test_a_rate_is_too_low_if_a_longer_step_gains_much_more_than_all_that_still_falls() -> None:
    rests = observed(*np.linspace(1.0, 0.8, 8).tolist(), *[0.8] * 8)

    def found(gain: float, accuracy: float = 0.7, rarest: float = 0.5) -> Finding | None:
        shares = np.array([rarest, 1 - rarest])
        seen = replace(
            rests,
            series=rests.series | {"train/accuracy": np.full(16, accuracy)},
            data=replace(rests.data, class_shares=shares, neighbourhoods=Neighbourhoods(0.9, 0.0, 0.9)),
            measure_longer_step=lambda: (100.0, gain),
        )
        return SYMPTOMS["learning_rate_too_low"](seen)

    assert found(0.05) is not None
    assert found(0.005) is None
    assert found(0.05, accuracy=0.92) is None, "it may learn rows by heart"
    assert found(0.05, rarest=0.03) is None, "it may find some rows of the rare class"


@pytest.mark.parametrize(
    ("symptom", "changed", "first"),
    [
        ("vanishing_gradient", {}, "model.activation=tanh"),
        ("vanishing_gradient", {"activation": "relu"}, "model.init=xavier model.init_scale=1.41"),
        ("exploding_gradient", {}, "model.init=xavier model.init_scale=1.0"),
        ("exploding_gradient", {"lr": 1e-3}, "optimizer=adam"),  # a rate for the large weights that go
        ("saturated_neurons", {"lr": 1e-3}, "optimizer=adam"),
        ("saturated_neurons", {"lr": 1e-3, "switchable": False}, "optimizer.lr=0.1"),
        ("vanishing_gradient", {"lr": 10.0}, "model.activation=tanh optimizer=adam"),
        ("symmetric_neurons", {"lr": 1e-4}, "model.init=xavier optimizer=adam"),
        ("dead_units", {"activation": "relu"}, "model.activation=gelu"),
        ("dead_units", {"activation": "relu", "lr": 5.0}, "model.activation=gelu optimizer=adam"),
        ("oscillating", {"lr": 0.15}, "optimizer.lr=0.05"),
        ("oscillating", {"lr": 2.0}, "optimizer.lr=0.1"),
        ("oscillating", {"lr": 1.0, "optimizer": "lbfgs"}, "data.batch_size=full"),
        ("oscillating", {"lr": 3.0, "optimizer": "lbfgs", "batch_size": 320}, "optimizer.lr=1.0"),
        ("oscillating", {"lr": 0.1, "momentum": 0.99}, "optimizer.lr=0.01"),
        ("learning_rate_too_low", {"batch_size": 800}, "data.batch_size=32"),
        ("learning_rate_too_low", {"batch_size": 800, "lr": 1e-3, "momentum": 0.9}, "optimizer.lr=0.1"),
        ("learning_rate_too_low", {"batch_size": 800, "optimizer": "lbfgs", "lr": 0.5}, "optimizer.lr=3.0"),
        ("learning_rate_too_low", {"batch_size": 4}, "optimizer.lr=1.0"),
        ("class_imbalance", {}, "loss.class_weight=balanced optimizer.lr=0.05 trainer.max_epochs=30"),
        ("class_imbalance", {"optimizer": "adam"}, "loss.class_weight=balanced trainer.max_epochs=30"),
        (
            "class_imbalance",
            {
                "optimizer": "adam",
                "weighs_classes": True,
                "max_epochs": 40,
                "overrides": {"loss.class_weight=balanced"},
            },
            "model.hidden=[32,32]",
        ),
    ],
)
def test_the_likeliest_remedy_comes_first(symptom: str, changed: dict[str, Any], first: str) -> None:
    run = observed(1.0, 0.9, 0.8)
    seen = replace(run, settings=replace(run.settings, **changed))
    remedy = remedies(Finding(symptom, "serious", 0, {}), seen)[0].overrides
    assert set(first.split()) <= set(remedy.split())
    assert ("optimizer" in remedy) == ("optimizer" in first)


@pytest.mark.parametrize(
    ("optimizer", "momentum", "lr", "told"),
    [
        ("adam", 0.0, 1e-5, 0.01),  # what one step bears
        ("adam", 0.0, 1e-3, 0.03),
        ("sgd", 0.9, 1e-3, 0.3),
        ("sgd", 0.0, 0.01, 3.0),
        ("sgd", 0.9, 0.2, 0.6),
    ],
)
def test_no_rate_is_told_that_is_far_above_the_usual_one(
    optimizer: str, momentum: float, lr: float, told: float
) -> None:
    run = observed(1.0, 0.9, 0.8)
    given = replace(run.settings, optimizer=optimizer, momentum=momentum, lr=lr)
    low = replace(run, settings=given, measure_longer_step=lambda: (1000.0, 0.1))
    first, *_ = remedies(Finding("learning_rate_too_low", "serious", 0, {}), low)
    assert float(first.overrides.removeprefix("optimizer.lr=")) == pytest.approx(told)


@pytest.mark.parametrize("symptom", SYMPTOMS)
def test_options_of_an_optimizer_forbid_another_one(symptom: str) -> None:
    run = observed(1.0, 0.9, 0.8)
    for lr in (1e-4, 0.1, 10.0):
        fixed = replace(run, settings=replace(run.settings, switchable=False, lr=lr))
        given = [remedy.overrides for remedy in remedies(Finding(symptom, "serious", 0, {}), fixed)]
        assert not any("optimizer=" in overrides for overrides in given)


def test_a_short_run_that_knows_nothing_is_told_more_epochs_first() -> None:
    first = [
        remedies(Finding("base_rate", "fatal", 0, {}), observed(*[1.0] * epochs))[0].overrides
        for epochs in (5, 12)
    ]
    assert first == ["trainer.max_epochs=50", "optimizer=adam optimizer.lr=0.01"]


@pytest.mark.parametrize(
    ("train", "val", "rows", "weighs_classes", "is_found"),
    [
        (0.6, [0.9, 0.7, 0.7, 0.85], 150, False, True),  # it rises
        (0.6, [0.9, 0.7, 0.7, 0.85], 150, True, False),  # six rows of the rare class decide it
        (0.6, [0.9, 0.7, 0.7, 0.85], 15_000, True, True),
        (0.2, [0.9, 0.6, 0.6, 0.6], 150, False, True),  # it lies far above the training loss
        (0.2, [0.9, 0.6, 0.6, 0.6], 150, True, False),
        (0.2, [0.9, 0.6, 0.6, 0.6], 15_000, True, True),
    ],
)
def test_few_rare_rows_that_decide_the_validation_loss_do_not_tell_overfitting(
    train: float, val: list[float], rows: int, *, weighs_classes: bool, is_found: bool
) -> None:
    run = observed(0.9, 0.65, 0.63, train)
    seen = replace(
        run,
        series=run.series | {"val/loss": np.array(val)},
        settings=replace(run.settings, weighs_classes=weighs_classes),
        data=with_a_rare_class(run, rows, None),
    )
    assert (SYMPTOMS["overfitting"](seen) is not None) == is_found


def test_who_knows_rare_rows_of_its_own_only_overfits_though_few_others_tell() -> None:
    run = observed(1.0, 0.9, 0.8, 0.75)
    for balanced, is_found in ((0.5, True), (0.85, False)):
        known = {"val/loss": np.array([0.98, 0.99, 1.0, 1.05]), "val/balanced_accuracy": np.array([balanced])}
        seen = replace(
            run,
            series=run.series | known,
            settings=replace(run.settings, weighs_classes=True),
            data=with_a_rare_class(run, 240, 0.9),
        )
        assert (SYMPTOMS["overfitting"](seen) is not None) == is_found


@pytest.mark.parametrize(
    "symptom", ["too_few_epochs", "learning_rate_too_low", "underfitting", "class_imbalance"]
)
def test_a_run_that_ended_early_is_not_told_more_epochs(symptom: str) -> None:
    run = observed(*[1.0] * 12)
    for max_epochs in (12, 40):
        seen = replace(run, settings=replace(run.settings, max_epochs=max_epochs))
        told = [remedy.overrides for remedy in remedies(Finding(symptom, "serious", 0, {}), seen)]
        assert any("trainer.max_epochs" in overrides for overrides in told) == (max_epochs == 12)


@given(st.floats(0.0, 0.5), st.integers(1, 10_000))
def test_rows_of_weighed_classes_tell_as_much_as_so_many_of_equal_weight(rarest: float, rows: int) -> None:
    run = observed(1.0, 0.9)
    data = replace(run.data, class_shares=np.array([rarest, 1 - rarest]), rows={"val": rows})
    assert replace(run, data=data).telling_rows == rows
    weighed = replace(run, data=data, settings=replace(run.settings, weighs_classes=True))
    # Weights that are as the shares of the other class, and a class that no training row has.
    weights, shares = np.array([1 - rarest, rarest]), np.array([rarest, 1 - rarest])
    expected = rows * (weights @ shares) ** 2 / (weights**2 @ shares) if rarest else 1
    assert weighed.telling_rows == pytest.approx(max(1, expected))


def test_who_holds_no_rows_out_is_not_told_to_stop_by_their_loss() -> None:
    run = observed(1.0, 0.9, 0.8)
    for held_out in (0, 80):
        seen = replace(run, data=replace(run.data, rows={"train": 320, "val": held_out}))
        told = remedies(Finding("class_imbalance", "serious", 0, {}), seen)[0].overrides
        assert ("callbacks=early_stopping" in told) == (held_out > 0)


def test_no_remedy_is_given_twice() -> None:
    run = observed(1.0, 3.0, 2.0)
    adam = replace(run, settings=replace(run.settings, optimizer="adam", lr=1.0))
    given = [remedy.overrides for remedy in remedies(Finding("diverging", "fatal", 0, {}), adam)]
    assert given == ["optimizer.lr=0.01", "trainer.gradient_clip_val=1.0"]
    usual = replace(run.settings, optimizer="adam", lr=0.01, overrides={"optimizer.lr=0.01"})
    at_it = replace(run, settings=usual)
    given = [remedy.overrides for remedy in remedies(Finding("exploding_gradient", "fatal", 0, {}), at_it)]
    assert sum("model.init=xavier" in overrides for overrides in given) == 1, (
        "what is so already tells nothing apart"
    )


@pytest.mark.parametrize(
    ("hidden", "first"),
    [
        ([2], "model.hidden=[32,32] model.init=xavier model.init_scale=4.0"),
        ([16], "model.hidden=[32,32] model.init=xavier model.init_scale=4.0"),
        ([16, 48], "model.hidden=[48,48] model.init=xavier model.init_scale=4.0"),
    ],
)
def test_neurons_that_underfit_need_a_second_layer_whose_weights_fit(hidden: list[int], first: str) -> None:
    run = observed(1.0, 0.7)
    small = replace(run, settings=replace(run.settings, hidden=hidden))
    assert remedies(Finding("underfitting", "serious", 0, {}), small)[0].overrides == first


def moved(by: float) -> dict[str, list[LayerState]]:
    """The start and the end of a run whose weights moved by so much of their size."""
    layer = LayerState(
        "layers.0", 1.0, np.zeros(2), np.zeros(2, bool), np.eye(2, dtype=np.float32), np.ones(2, np.float32)
    )
    return {"start": [layer], "end": [replace(layer, weight=layer.weight * (1 + by))]}


@pytest.mark.parametrize(
    ("last", "gain", "way", "is_found"),
    [
        (1.46, 0.3, 0.1, True),  # above the base rate is no saddle
        (0.999, 0.2, 0.1, True),  # a fifth of what is there to know is no fit of single rows
        (0.999, 0.01, 0.1, False),
        (0.999, 0.01, 1e-3, True),  # it has not left its start
        (1.46, 0.01, 0.1, False),
    ],
)
def test_a_rate_is_too_low_where_nothing_tells_classes_apart_yet(
    last: float, gain: float, way: float, is_found: bool
) -> None:
    falls = observed(*np.linspace(last + 0.04, last, 5).tolist())
    seen = replace(falls, measure_longer_step=lambda: (1000.0, gain), output_signal=1e-4, **moved(way))
    assert (SYMPTOMS["learning_rate_too_low"](seen) is not None) == is_found


@pytest.mark.parametrize(
    ("lr", "losses", "names"),
    [
        (0.01, [1.0] * 12, {"plateau": "fatal"}),  # a tenth of the usual one
        (1e-3, [1.0] * 12, {"plateau": "fatal", "learning_rate_too_low": "serious"}),
        (
            3e-4,
            [1.0] * 12,
            {"plateau": "fatal", "learning_rate_too_low": "fatal"},
        ),  # at this rate nothing leaves one
        (1e-3, [1.0] * 9, {"learning_rate_too_low": "fatal"}),  # too short to tell a plateau
        (1e-3, [0.9] * 12, {"plateau": "serious"}),  # something was learned
        (1e-3, [1.0, 3.0, 2.0] * 4, {"diverging": "fatal"}),
    ],
)
def test_a_rate_far_below_the_usual_one_is_at_fault_on_a_saddle_too(
    lr: float, losses: list[float], names: dict[str, str]
) -> None:
    run = observed(*losses)
    seen = replace(run, settings=replace(run.settings, lr=lr), **moved(0.1))
    found = {name: SYMPTOMS[name](seen) for name in ("plateau", "learning_rate_too_low", "diverging")}
    assert {name: finding.severity for name, finding in found.items() if finding is not None} == names


@pytest.mark.parametrize(
    ("lr", "accuracy", "is_found"), [(1e-3, 0.7, True), (1e-3, 0.94, False), (0.01, 0.7, False)]
)
def test_a_rate_far_below_the_usual_one_is_at_fault_where_the_neighbours_know_better(
    lr: float, accuracy: float, *, is_found: bool
) -> None:
    run = observed(*[0.8] * 12)
    series = run.series | {"train/accuracy": np.full(12, accuracy)}
    knows_more = replace(run.data, neighbourhoods=Neighbourhoods(0.95, 0.0, 0.95))
    seen = replace(run, settings=replace(run.settings, lr=lr), data=knows_more, series=series, **moved(0.1))
    assert (SYMPTOMS["learning_rate_too_low"](seen) is not None) == is_found


@pytest.mark.parametrize(
    ("lr", "epochs", "named"),
    [
        (0.1, 5, "too_few_epochs"),
        (0.01, 5, "learning_rate_too_low"),  # a tenth of the usual one
        (0.1, 20, "learning_rate_too_low"),
    ],
)
def test_a_short_run_at_a_usual_rate_that_bears_longer_steps_had_too_few_epochs(
    lr: float, epochs: int, named: str
) -> None:
    run = observed(*np.linspace(0.98, 0.9, epochs).tolist())
    settings = replace(run.settings, lr=lr)
    seen = replace(run, settings=settings, measure_longer_step=lambda: (100.0, 0.2), output_signal=2.0)
    found = [name for name in ("too_few_epochs", "learning_rate_too_low") if SYMPTOMS[name](seen) is not None]
    assert found == [named]


@pytest.mark.parametrize(
    ("optimizer", "decay", "is_strong"),
    [("adamw", 0.1, False), ("adamw", 0.3, True), ("sgd", 0.003, False), ("sgd", 0.01, True)],
)
def test_strong_decay_is_taken_away_first(optimizer: str, decay: float, *, is_strong: bool) -> None:
    run = observed(*[1.0] * 12)
    seen = replace(run, settings=replace(run.settings, optimizer=optimizer, weight_decay=decay))
    first = {
        name: remedies(Finding(name, "fatal", 0, {}), seen)[0].overrides
        for name in ("base_rate", "diverging")
    }
    assert (first["base_rate"] == "optimizer.weight_decay=0.0") == is_strong
    assert "weight_decay" not in first["diverging"]


@pytest.mark.parametrize(("decay", "is_found"), [(0.001, True), (0.01, False)])
def test_what_a_longer_step_would_gain_strong_decay_takes_back(decay: float, *, is_found: bool) -> None:
    run = observed(*np.linspace(1.0, 0.7, 5).tolist(), *[0.7] * 15)
    settings = replace(run.settings, weight_decay=decay)
    seen = replace(run, settings=settings, measure_longer_step=lambda: (100.0, 0.2), output_signal=2.0)
    assert (SYMPTOMS["learning_rate_too_low"](seen) is not None) == is_found


@pytest.mark.parametrize(
    ("rows", "train", "val", "is_found"),
    [
        (150, 0.1, 0.5, True),
        (150, 0.1, 0.4, False),
        (20, 0.1, 0.5, False),  # so few rows may be hard ones by chance
        (20, 0.1, 0.6, True),
        (150, 3.0, 5.0, False),  # nothing was learned
    ],
)
def test_a_wide_gap_to_the_validation_loss_is_overfitting(
    rows: int, train: float, val: float, *, is_found: bool
) -> None:
    run = observed(*np.linspace(1.0, train, 10).tolist())
    data = replace(run.data, rows={"train": 320, "val": rows})

    def beside(held_out: NDArray[np.float64]) -> Finding | None:
        return SYMPTOMS["overfitting"](replace(run, series=run.series | {"val/loss": held_out}, data=data))

    assert (beside(np.append(np.linspace(1.0, val - 0.01, 7), [val] * 3)) is not None) == is_found
    assert beside(np.linspace(1.0, val, 10)) is None, "it still falls"
    knows_nothing_else = beside(np.linspace(5.0, 1.2, 10))
    assert (knows_nothing_else is not None and knows_nothing_else.severity == "serious") == (train < 0.5)
