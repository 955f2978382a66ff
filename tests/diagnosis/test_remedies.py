"""Which remedies are told, and in which order."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from backlight.diagnosis.finding import Finding
from backlight.diagnosis.observations import (
    Floats,
    Neighbourhoods,
)
from backlight.diagnosis.remedies import remedies
from backlight.diagnosis.symptoms import SYMPTOMS
from tests.diagnosis.observed import moved, observed


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
    ("symptom", "changed", "first"),
    [
        ("vanishing_gradient", {}, "model.activation=tanh"),
        ("vanishing_gradient", {"activation": "relu"}, "model.init=he model.init_scale=1.0"),
        (
            "vanishing_gradient",
            {"hidden": [5, 5, 5]},
            "model.activation=tanh optimizer=adam optimizer.lr=0.0033",
        ),
        (
            "vanishing_gradient",
            {"hidden": [5, 5, 5], "switchable": False},
            "model.activation=tanh optimizer.lr=0.033",
        ),
        (
            "dead_units",
            {"hidden": [5, 5, 5], "lr": 5.0},
            "model.activation=gelu optimizer=adam optimizer.lr=0.0033",
        ),
        ("saturated_neurons", {"hidden": [5, 5, 5], "lr": 1e-3}, "optimizer=adam optimizer.lr=0.01"),
        ("exploding_gradient", {}, "model.init=xavier model.init_scale=1.0"),
        ("exploding_gradient", {"lr": 1e-3}, "optimizer=adam"),  # a rate for the large weights that go
        ("saturated_neurons", {"lr": 1e-3}, "optimizer=adam"),
        ("saturated_neurons", {"lr": 1e-3, "switchable": False}, "optimizer.lr=0.1"),
        ("vanishing_gradient", {"lr": 10.0}, "model.activation=tanh optimizer=adam"),
        ("symmetric_neurons", {"lr": 1e-4}, "model.init=xavier optimizer=adam"),
        ("dead_units", {"activation": "relu"}, "model.activation=gelu"),
        ("dead_units", {"activation": "relu", "lr": 5.0}, "model.activation=gelu optimizer=adam"),
        ("oscillating", {"lr": 0.15}, "optimizer.lr=0.05"),
        ("oscillating", {"lr": 2.0}, "optimizer.lr=0.3"),
        ("diverging", {"lr": 2.0, "activation": "tanh"}, "optimizer.lr=0.1"),
        (
            "diverging",
            {"lr": 0.9, "batch_size": 2},
            "data.batch_size=32 trainer.max_epochs=6 optimizer.lr=0.3",
        ),
        ("oscillating", {"lr": 1.0, "optimizer": "lbfgs"}, "data.batch_size=full"),
        ("oscillating", {"lr": 30.0, "optimizer": "lbfgs", "batch_size": 320}, "optimizer.lr=1.0"),
        ("oscillating", {"lr": 0.1, "momentum": 0.99}, "optimizer.lr=0.03"),
        ("learning_rate_too_low", {"batch_size": 800}, "data.batch_size=32"),
        ("learning_rate_too_low", {"batch_size": 800, "lr": 1e-3, "momentum": 0.9}, "optimizer.lr=0.1"),
        ("learning_rate_too_low", {"batch_size": 800, "optimizer": "lbfgs", "lr": 0.5}, "optimizer.lr=3.0"),
        ("learning_rate_too_low", {"batch_size": 4}, "optimizer.lr=1.0"),
        ("overfitting", {"lr": 0.5}, "loss.label_smoothing=0.2 callbacks=early_stopping"),
        ("overfitting", {"lr": 0.6}, "optimizer.lr=0.1"),
        ("batch_too_small", {"batch_size": 1}, "data.batch_size=32 trainer.max_epochs=6"),
        (
            "batch_too_small",
            {"batch_size": 5, "lr": 0.6},
            "data.batch_size=40 trainer.max_epochs=6 optimizer.lr=0.2",
        ),
        (
            "underfitting",
            {"lr": 2.0, "hidden": [5, 5, 5], "activation": "relu"},
            "model.hidden=[32,32] optimizer=adam optimizer.lr=0.01",
        ),
        ("underfitting", {"lr": 2.0}, "model.hidden=[32,32] optimizer=adam optimizer.lr=0.01"),
        ("too_few_epochs", {"lr": 0.04}, "trainer.max_epochs=30"),
        ("too_few_epochs", {"lr": 0.03}, "trainer.max_epochs=30 optimizer=adam"),
        ("too_few_epochs", {"lr": 2.0}, "trainer.max_epochs=30 optimizer=adam"),
        ("too_few_epochs", {"lr": 0.0033, "optimizer": "adam"}, "trainer.max_epochs=30"),
        (
            "saturated_neurons",
            {
                "lr": 0.0033,
                "optimizer": "adam",
                "activation": "tanh",
                "hidden": [5, 5, 5],
                "overrides": {"model.init=xavier", "model.init_scale=1.0", "optimizer.lr=0.0033"},
            },
            "optimizer.lr=0.0011",
        ),
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
    ("val", "patience"),
    [
        ([2.0, 1.0, *[1.5] * 18], 5),
        ([3.0, *[3.1] * 6, 2.0, *[2.5] * 9], 7),
        ([3.0, *[3.1] * 9], 2),
        ([1.0, 1.1], 1),
    ],
)
def test_early_stopping_waits_as_long_as_the_run_had_to(val: list[float], patience: int) -> None:
    run = observed(*val)
    seen = replace(run, series=run.series | {"val/loss": np.array(val)})
    told = [remedy.overrides for remedy in remedies(Finding("overfitting", "serious", 0, {}), seen)]
    stopping = f"callbacks=early_stopping callbacks.early_stopping.patience={patience}"
    assert stopping in told and f"loss.label_smoothing=0.2 {stopping}" in told


def test_early_stopping_is_not_told_where_no_rows_are_held_out() -> None:
    run = observed(1.0, 0.9)
    alone = replace(run, data=replace(run.data, rows={"train": 90}))
    for seen in (run, alone):
        told = [remedy.overrides for remedy in remedies(Finding("label_noise", "serious", 0, {}), seen)]
        assert any("early_stopping" in overrides for overrides in told) == ("val" in seen.data.rows)


@pytest.mark.parametrize(
    ("activation", "optimizer", "momentum", "lr", "told"),
    [
        ("sigmoid", "adam", 0.0, 1e-5, 0.01),  # what one step bears
        ("sigmoid", "adam", 0.0, 1e-3, 0.03),
        ("relu", "adam", 0.0, 1e-3, 0.01),
        ("relu", "adam", 0.0, 5e-3, 0.015),
        ("sigmoid", "sgd", 0.9, 1e-3, 0.3),
        ("sigmoid", "sgd", 0.0, 0.01, 3.0),
        ("sigmoid", "sgd", 0.9, 0.2, 0.6),
    ],
)
def test_no_rate_is_told_that_is_far_above_the_usual_one(
    activation: str, optimizer: str, momentum: float, lr: float, told: float
) -> None:
    run = observed(1.0, 0.9, 0.8)
    given = replace(run.settings, activation=activation, optimizer=optimizer, momentum=momentum, lr=lr)
    low = replace(run, settings=given, measure_longer_step=lambda: (1000.0, 0.1))
    first, *_ = remedies(Finding("learning_rate_too_low", "serious", 0, {}), low)
    assert float(first.overrides.removeprefix("optimizer.lr=")) == pytest.approx(told)


@pytest.mark.parametrize("symptom", SYMPTOMS)
def test_options_of_an_optimizer_forbid_another_one(symptom: str) -> None:
    run = replace(observed(1.0, 0.9, 0.8), **moved(0.0))
    for lr in (1e-4, 0.1, 10.0):
        fixed = replace(run, settings=replace(run.settings, switchable=False, lr=lr))
        given = [remedy.overrides for remedy in remedies(Finding(symptom, "serious", 0, {}), fixed)]
        assert not any("optimizer=" in overrides for overrides in given)


@pytest.mark.parametrize("symptom", SYMPTOMS)
def test_another_optimizer_is_told_with_its_rate(symptom: str) -> None:
    """Pasted, it would make its steps at that of the run's own."""
    run = replace(observed(1.0, 0.9, 0.8), **moved(0.0))
    for lr in (1e-4, 0.1, 10.0):
        seen = replace(run, settings=replace(run.settings, lr=lr))
        told = [remedy.overrides for remedy in remedies(Finding(symptom, "serious", 0, {}), seen)]
        assert all("optimizer.lr=" in overrides for overrides in told if "optimizer=" in overrides)


@pytest.mark.parametrize("symptom", SYMPTOMS)
def test_who_has_adamw_is_not_told_adam(symptom: str) -> None:
    """Of whose gradient its decay would be a part, and another one."""
    run = replace(observed(1.0, 0.9, 0.8), **moved(0.0))
    for lr in (1e-4, 0.01, 1.0):
        adamw = replace(run, settings=replace(run.settings, optimizer="adamw", lr=lr, weight_decay=0.01))
        told = [remedy.overrides for remedy in remedies(Finding(symptom, "serious", 0, {}), adamw)]
        assert not any("optimizer=adam" in overrides.split() for overrides in told)


def test_what_was_too_large_before_the_first_step_is_blamed_before_the_rate() -> None:
    run = replace(observed(1.0), **moved(0.0))
    first_layer, *_ = run.start
    exploding = [replace(first_layer, rms_delta=100.0), first_layer]
    unlike = replace(
        run.data, feature_names=["a", "b"], feature_means=np.zeros(2), feature_deviations=np.array([1, 1e4])
    )
    square = replace(run.settings, activation="square")
    small_weights = "model.init=xavier model.init_scale=1.0"
    for changed, first in (
        ({}, "optimizer.lr=0.033"),
        ({"start": exploding}, small_weights),
        ({"start_loss": float("nan")}, small_weights),
        ({"data": unlike, "settings": replace(run.settings, standardizes=False)}, "data.standardize=true"),
        ({"settings": square}, "optimizer=adam optimizer.lr=0.01"),
    ):
        seen = replace(run, **changed)
        assert remedies(Finding("non_finite", "fatal", 0, {}), seen)[0].overrides == first


def test_a_short_run_that_knows_nothing_is_told_more_epochs_first() -> None:
    first = [
        remedies(Finding("base_rate", "fatal", 0, {}), observed(*[1.0] * epochs))[0].overrides
        for epochs in (5, 12)
    ]
    assert first[0] == "trainer.max_epochs=50" and "trainer.max_epochs" not in first[1]


def test_few_neurons_on_a_plateau_are_to_become_more() -> None:
    run = observed(*[1.0] * 12)
    usual = "optimizer=adam optimizer.lr=0.01"
    more = f"model.hidden=[32,32] model.init=xavier model.init_scale=4.0 {usual}"
    for hidden, wanted in (([5], more), ([8, 8], usual)):
        seen = replace(run, settings=replace(run.settings, hidden=hidden))
        assert remedies(Finding("plateau", "fatal", 0, {}), seen)[0].overrides == wanted


@pytest.mark.parametrize("symptom", ["exploding_gradient", "dead_units", "saturated_neurons"])
def test_who_has_a_low_rate_is_not_told_a_lower_one(symptom: str) -> None:
    run = observed(*[1.0] * 12)
    for lr in (0.02, 0.1):
        seen = replace(run, settings=replace(run.settings, lr=lr))
        told = [remedy.overrides for remedy in remedies(Finding(symptom, "fatal", 0, {}), seen)]
        assert (f"optimizer.lr={lr / 3:.2g}" in told) == (lr == 0.1)


@pytest.mark.parametrize(
    "symptom", ["too_few_epochs", "learning_rate_too_low", "underfitting", "class_imbalance"]
)
def test_a_run_that_ended_early_is_not_told_more_epochs(symptom: str) -> None:
    run = observed(*[1.0] * 12)
    for max_epochs in (12, 40):
        seen = replace(run, settings=replace(run.settings, max_epochs=max_epochs))
        told = [remedy.overrides for remedy in remedies(Finding(symptom, "serious", 0, {}), seen)]
        assert any("trainer.max_epochs" in overrides for overrides in told) == (max_epochs == 12)


def test_who_holds_no_rows_out_is_not_told_to_stop_by_their_loss() -> None:
    run = observed(1.0, 0.9, 0.8)
    for held_out in (0, 80):
        seen = replace(run, data=replace(run.data, rows={"train": 320, "val": held_out}))
        told = remedies(Finding("class_imbalance", "serious", 0, {}), seen)[0].overrides
        assert ("callbacks=early_stopping" in told) == (held_out > 0)


def test_no_remedy_is_given_twice() -> None:
    run = observed(1.0, 3.0, 2.0)
    adam = replace(run, settings=replace(run.settings, optimizer="adam", lr=1.0, activation="tanh"))
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


@pytest.mark.parametrize(
    ("optimizer", "decay", "is_strong"),
    [("adamw", 0.1, False), ("adamw", 0.3, True), ("sgd", 0.003, False), ("sgd", 0.01, True)],
)
def test_strong_decay_is_taken_away_first(optimizer: str, decay: float, *, is_strong: bool) -> None:
    run = replace(observed(*[1.0] * 12), steps_per_epoch=100)
    seen = replace(run, settings=replace(run.settings, optimizer=optimizer, weight_decay=decay))
    first = {
        name: remedies(Finding(name, "fatal", 0, {}), seen)[0].overrides
        for name in ("base_rate", "oscillating", "overfitting")
    }
    assert (first["base_rate"] == "optimizer.weight_decay=0.0") == is_strong
    assert first["oscillating"].startswith("optimizer.weight_decay=0.0 optimizer.lr=") == is_strong
    assert "weight_decay" not in first["overfitting"]


def test_a_low_rate_stays_where_decay_makes_the_loss_leap() -> None:
    run = replace(observed(*[1.0] * 12), steps_per_epoch=100)
    seen = replace(run, settings=replace(run.settings, lr=0.09, weight_decay=0.3))
    assert remedies(Finding("diverging", "fatal", 0, {}), seen)[0].overrides == "optimizer.weight_decay=0.0"


@pytest.mark.parametrize(
    ("optimizer", "lr", "is_told"),
    [("sgd", 1e-3, False), ("sgd", 0.1, True), ("adam", 1e-5, False), ("adam", 0.01, True)],
)
def test_decay_that_had_no_time_is_not_to_blame(optimizer: str, lr: float, *, is_told: bool) -> None:
    run = replace(observed(*[1.0] * 12), steps_per_epoch=100)
    seen = replace(run, settings=replace(run.settings, optimizer=optimizer, lr=lr, weight_decay=0.03))
    told = [remedy.overrides for remedy in remedies(Finding("base_rate", "fatal", 0, {}), seen)]
    assert ("optimizer.weight_decay=0.0" in told) == is_told


@pytest.mark.parametrize(("step", "place"), [(0, 1), (1200, 0)])
def test_decay_is_not_the_first_to_blame_for_what_was_so_at_the_start(step: int, place: int) -> None:
    run = replace(observed(*[1.0] * 12), steps_per_epoch=100)
    seen = replace(run, settings=replace(run.settings, weight_decay=0.1))
    told = [remedy.overrides for remedy in remedies(Finding("symmetric_neurons", "fatal", step, {}), seen)]
    assert told.index("optimizer.weight_decay=0.0") == place
