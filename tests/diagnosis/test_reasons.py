"""What is said of the numbers of a finding."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from backlight.diagnosis.observations import LayerState, Neighbourhoods
from backlight.diagnosis.reasons import reason
from backlight.diagnosis.symptoms import SYMPTOMS
from tests.diagnosis.observed import observed


def layer(**changed: Any) -> LayerState:
    """Two healthy neurons that see two features."""
    weight, bias = np.eye(2, dtype=np.float32), np.ones(2, np.float32)
    return replace(LayerState("layers.0", 1.0, np.zeros(2), np.zeros(2, bool), weight, bias), **changed)


def layers(**changed: Any) -> dict[str, Any]:
    """The end of a run whose first layer of three is unusual."""
    return {"start": [layer()] * 3, "end": [layer(**changed), layer(), layer()]}


KNOWING = "the loss of knowing the class shares only."
SAID: dict[str, tuple[list[float], dict[str, Any], str]] = {
    "non_finite": (
        [0.9],
        layers(weight=np.full((2, 2), np.nan, np.float32)),
        "layers.0.weight holds values that are not finite.",
    ),
    "symmetric_neurons": (
        [0.9],
        layers(weight=np.ones((2, 2), np.float32)),
        "2 of the 2 neurons there have the same weights as another one.",
    ),
    "unscaled_features": (
        [0.9],
        {
            "settings": {"standardizes": False},
            "data": {
                "feature_names": ["a", "b", "c"],
                "feature_means": np.array([0.0, 50.0, 3.0]),
                "feature_deviations": np.array([2000.0, 1.0, 0.0]),
                "feature_middles": np.array([8.0, 0.9, 0.0]),
            },
        },
        "The largest standard deviation is 2,000 times the smallest. The mean of b is 50 of its standard deviations away"
        " from 0. In a half of the rows lie in a range 0.004 times as wide as its deviation lets expect, since a few lie far"
        " off. These never change: c.",
    ),
    "saturated_neurons": ([1.0], layers(saturation=np.ones(2)), "100% of the slopes there are below 0.05."),
    "exploding_gradient": (
        [1.0],
        layers(rms_delta=928.0),
        "The deltas there are 928 times those of the output layer; up to 12 times is usual.",
    ),
    "dead_units": (
        [1.0],
        layers(silent=np.array([True, False])) | {"settings": {"activation": "relu"}},
        "50% of the units there are silent on every row.",
    ),
    "diverging": (
        [0.3, 2.5, 2.5],
        {},
        "It was 0.3 at its lowest and ends at 2.5; knowing the class shares only gives 1.",
    ),
    "oscillating": (
        [0.5, 0.6] * 6,
        {"series": {"val/loss": np.array([0.6, 0.8] * 6)}},
        f"From one epoch to the next it changes by 12.0% of 1, {KNOWING} On validation rows it changes by 24.0% of that.",
    ),
    "batch_too_small": (
        [0.5, 0.6] * 6,
        {"batch_signal": 0.03, "settings": {"batch_size": 1}},
        "The signal-to-noise ratio of a batch's gradient, its squared length over its variance, is 0.03; below 0.5 the"
        " noise drowns it.",
    ),
    "vanishing_gradient": (
        [1.0],
        layers(rms_delta=2e-5),
        "The deltas there are 2e-05 times those of the output layer; more than 0.001 times is usual.",
    ),
    "learning_rate_too_low": (
        [1.0, 0.99, 0.98],
        {
            "settings": {"lr": 0.001},
            "measure_longer_step": lambda: (10_000.0, 0.3),
            "series": {"lr": np.array([0.1, 0.001, 0.001])},
        },
        "In the second half of the epochs the schedule leaves 1.0% of the rate. A step 10,000 times as long would still"
        " lower the loss. The rate is 0.01 times the usual one.",
    ),
    "too_few_epochs": (
        np.linspace(0.95, 0.6, 20).tolist(),
        {
            "data": {"neighbourhoods": Neighbourhoods(0.9, 0.0, 0.9)},
            "series": {"train/accuracy": np.array([0.7])},
        },
        f"In the last fifth of the epochs it fell by 7.4% of 1, {KNOWING} Whoever goes by the nearest other rows, or by"
        " a polynomial, is right on 20% more of the rows.",
    ),
    "plateau": ([0.999] * 12, {}, f"In the second half of the epochs it moved by 0.0% of 1, {KNOWING}"),
    "class_imbalance": (
        [0.5],
        {
            "data": {"class_shares": np.array([0.96, 0.04]), "rows": {"train": 320, "val": 80}},
            "series": {"val/accuracy": np.array([0.96]), "val/balanced_accuracy": np.array([0.5])},
        },
        "The rarest class has 4.0% of the rows; accuracy is 96%, but 50% if every class counts the same.",
    ),
    "leakage": (
        [0.5],
        {"data": {"repeated_in": {"val": (20, 0.26), "test": (10, 0.17)}}},
        "26% of the validation rows are training rows too. 17% of the test rows are training rows too.",
    ),
    "underfitting": (
        [0.9, *[0.7] * 19],
        {
            "steps_per_epoch": 100,
            "data": {"neighbourhoods": Neighbourhoods(0.97, 0.0, 0.97)},
            "series": {"train/accuracy": np.array([0.6])},
        },
        "It is right on 60% of its training rows; whoever goes by the rows nearest to each, or by a polynomial, is right"
        " on 97%.",
    ),
    "overfitting": (
        [0.9, 0.5, 0.2, 0.1],
        {"series": {"val/loss": np.array([0.9, 0.6, 0.8, 1.2])}, "data": {"rows": {"train": 320, "val": 80}}},
        "The validation loss was 0.6 at its lowest and ends at 1.2; the training loss ends at 0.1.",
    ),
    "label_noise": (
        [0.8],
        {"data": {"neighbourhoods": Neighbourhoods(0.7, 0.3, 0.7)}, "measure_contradicted": lambda: 0.2},
        "Neighbours contradict 30% of the labels where they agree best, the network 20% where it is surest.",
    ),
    "base_rate": ([0.99] * 12, {}, "Its loss is 0.99; knowing the class shares only gives 1."),
}  # fmt: skip


@pytest.mark.parametrize("symptom", SYMPTOMS)
def test_the_numbers_of_a_finding_are_said(symptom: str) -> None:
    losses, changed, said = SAID[symptom]
    run = observed(*losses)
    parts = {
        name: getattr(run, name) | value if name == "series" else replace(getattr(run, name), **value)
        for name, value in changed.items()
        if name in ("settings", "data", "series")
    }
    finding = SYMPTOMS[symptom](replace(run, **(changed | parts)))
    assert finding is not None
    assert reason(finding) == said


def test_what_weighs_classes_is_told_by_each_of_them() -> None:
    run = observed(0.9, *[0.7] * 19)
    seen = replace(
        run,
        steps_per_epoch=100,
        settings=replace(run.settings, weighs_classes=True),
        series=run.series | {"val/balanced_accuracy": np.array([0.6])},
        data=replace(
            run.data,
            neighbourhoods=Neighbourhoods(0.97, 0.0, 0.9),
            rows={"train": 320, "val": 10_000},
        ),
    )
    finding = SYMPTOMS["underfitting"](seen)
    assert finding is not None
    assert reason(finding) == (
        "If every class counts the same it is right on 60% of the validation rows; whoever takes the class of the rows"
        " nearest to each is right on 90%."
    )


def test_the_first_tensor_that_turns_is_said() -> None:
    seen = replace(
        observed(0.9),
        error="train/loss is nan at step 3",
        first_non_finite=("layers.1", "pre_activation"),
    )
    finding = SYMPTOMS["non_finite"](seen)
    assert finding is not None
    assert (
        reason(finding)
        == "layers.1.pre_activation is the first tensor that one more step makes infinite or NaN."
    )
