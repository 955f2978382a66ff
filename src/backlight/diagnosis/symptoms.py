"""Symptoms: pure functions of what a run measured, each of which returns a finding or None.

`SYMPTOMS` lists them causes first: where several are found, the first names the main one. Every threshold stands
beside its reason.
"""

from collections.abc import Callable

from backlight.diagnosis.data_symptoms import class_imbalance, label_noise, leakage, unscaled_features
from backlight.diagnosis.finding import Finding
from backlight.diagnosis.layer_symptoms import (
    dead_units,
    exploding_gradient,
    non_finite,
    saturated_neurons,
    symmetric_neurons,
    vanishing_gradient,
)
from backlight.diagnosis.loss_symptoms import (
    base_rate,
    batch_too_small,
    diverging,
    learning_rate_too_low,
    oscillating,
    overfitting,
    plateau,
    too_few_epochs,
    underfitting,
)
from backlight.diagnosis.observations import Observations
from backlight.diagnosis.reasons import reason

Symptom = Callable[[Observations], Finding | None]

SYMPTOMS: dict[str, Symptom] = {
    symptom.__name__: symptom
    for symptom in (
        non_finite,
        symmetric_neurons,
        unscaled_features,
        saturated_neurons,
        exploding_gradient,
        dead_units,
        batch_too_small,
        diverging,
        oscillating,
        vanishing_gradient,
        learning_rate_too_low,
        too_few_epochs,
        class_imbalance,
        plateau,
        leakage,
        underfitting,
        overfitting,
        label_noise,
        base_rate,
    )
}


def findings(seen: Observations) -> list[Finding]:
    """Every symptom that the run shows, the main one first: by severity, then causes before consequences."""
    found = [finding for symptom in SYMPTOMS.values() if (finding := symptom(seen)) is not None]
    return sorted(found, key=_order)


def _order(finding: Finding) -> tuple[int, int, bool]:
    """Its severity, its place in `SYMPTOMS`, and whether it came in training."""
    rank = {"fatal": 0, "serious": 1, "warning": 2}[finding.severity]
    comes_late = finding.step > 0
    # Neurons that saturate in training do so where the loss leapt, or no gradient arrives any more.
    is_consequence = finding.symptom == "saturated_neurons" and comes_late
    symptom = "vanishing_gradient" if is_consequence else finding.symptom
    return rank, list(SYMPTOMS).index(symptom), comes_late


def explanation(finding: Finding) -> str:
    """What the symptom means, which is the docstring of its function, and the numbers that say so."""
    meaning = " ".join((SYMPTOMS[finding.symptom].__doc__ or "").split())
    return f"{meaning} {reason(finding)}".rstrip()
