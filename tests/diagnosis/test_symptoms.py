"""What symptoms say of runs that are made up."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from backlight.diagnosis.finding import Finding
from backlight.diagnosis.observations import (
    Floats,
    LayerState,
    Neighbourhoods,
    Observations,
)
from backlight.diagnosis.remedies import remedies
from backlight.diagnosis.symptoms import SYMPTOMS, findings
from tests.diagnosis.observed import moved, observed, with_a_rare_class


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


@pytest.mark.parametrize(("crowded", "severity"), [(0, None), (1, "warning"), (2, "fatal"), (8, "fatal")])
def test_features_that_a_few_values_spread_are_at_fault_if_they_are_many(
    crowded: int, severity: str | None
) -> None:
    run = observed(*[1.0] * 12)
    middles = np.array([0.05] * crowded + [0.9] * (8 - crowded) + [0.0] * 4)
    data = replace(
        run.data,
        feature_names=[f"x{feature}" for feature in range(12)],
        feature_means=np.zeros(12),
        feature_deviations=np.ones(12),
        feature_middles=middles,
        neighbourhoods=Neighbourhoods(0.6, 0.3, 0.6),
    )
    seen = replace(run, data=data, measure_contradicted=lambda: 0.3)
    found = SYMPTOMS["unscaled_features"](seen)
    assert (None if found is None else found.severity) == severity
    assert (SYMPTOMS["label_noise"](seen) is None) == (severity == "fatal"), (
        "who is near is told by few values"
    )
    learned = SYMPTOMS["unscaled_features"](replace(seen, series={"train/loss": np.array([0.3])}))
    assert learned is None or learned.severity == "warning"
    assert "data.standardize=quantile" in [r.overrides for r in remedies(found, seen)] if found else True


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
            "base_rate_loss": 1.0,
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
    far_above = replace(never, start_loss=9.0, series={"train/loss": never.loss("train") + 5})
    assert base_rate(far_above) is None, "who knows nothing has a lower loss"


def growing(first: float) -> list[LayerState]:
    """Two layers, the first of which gets so many times the error of the last."""
    square = np.eye(2, dtype=np.float32)
    return [
        LayerState("layers", rms, np.zeros(2), np.zeros(2, bool), square, square[0]) for rms in (first, 1.0)
    ]


@pytest.mark.parametrize(
    ("first", "loss", "is_found"), [(0.7, 3.0, False), (3.0, 3.0, True), (3.0, 0.5, False), (13.0, 0.5, True)]
)
def test_deltas_that_grow_a_little_are_why_a_run_knows_nothing(
    first: float, loss: float, *, is_found: bool
) -> None:
    seen = replace(observed(*np.geomspace(300.0, loss, 12)), start=growing(first), end=growing(0.3))
    assert (SYMPTOMS["exploding_gradient"](seen) is not None) == is_found
    knows_its_own_rows_only = replace(seen, series=seen.series | {"val/loss": np.array([3.0])})
    assert (SYMPTOMS["exploding_gradient"](knows_its_own_rows_only) is not None) == (first > 2)


def test_deltas_that_grew_as_a_run_diverged_are_not_its_cause() -> None:
    exploding = SYMPTOMS["exploding_gradient"]
    rests = replace(observed(*[1.0] * 10), start=growing(0.3), end=growing(100.0))
    at_its_end = exploding(rests)
    assert at_its_end is not None
    assert at_its_end.step == 100
    rises = replace(rests, series={"train/loss": np.arange(1.0, 11.0)})
    assert exploding(rises) is None
    from_the_start = exploding(replace(rises, start=growing(100.0)))
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


@pytest.mark.parametrize("symptom", ["saturated_neurons", "exploding_gradient"])
def test_unusual_layers_are_harmless_only_where_the_loss_has_come_to_rest(symptom: str) -> None:
    square = np.eye(2, dtype=np.float32)
    layers = [
        LayerState("layers", rms, np.full(2, 0.8), np.zeros(2, bool), square, square[0])
        for rms in (100.0, 1.0)
    ]
    for losses, severity in ((np.full(12, 0.3), "warning"), (np.resize([0.2, 0.4], 12), "serious")):
        found = SYMPTOMS[symptom](replace(observed(*losses), start=layers, end=layers))
        assert found is not None and found.severity == severity


@pytest.mark.parametrize(("decay", "named"), [(0.0, "too_few_epochs"), (1.0, "base_rate")])
def test_who_knows_nothing_by_strong_decay_will_know_no_more_in_more_epochs(decay: float, named: str) -> None:
    run = observed(*[1.0] * 16, *np.linspace(0.99, 0.98, 4))
    seen = replace(
        run,
        settings=replace(run.settings, weight_decay=decay, hidden=[10]),
        data=replace(run.data, neighbourhoods=Neighbourhoods(0.95, 0.0, 0.95)),
        series=run.series | {"train/accuracy": np.full(20, 0.6)},
    )
    found = [name for name in ("too_few_epochs", "base_rate") if SYMPTOMS[name](seen) is not None]
    assert found == [named]


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
    overlap = replace(seen, data=replace(rests.data, neighbourhoods=Neighbourhoods(0.4, noise, 0.4)))
    assert SYMPTOMS["label_noise"](overlap) is None, "most is unknown where classes overlap"


@pytest.mark.parametrize(
    ("attainable", "train", "val", "val_loss", "symptoms"),
    [
        (0.58, 0.6, 0.6, 1.0, set()),
        (0.58, 0.57, 0.6, 1.0, {"base_rate", "learning_rate_too_low"}),
        (0.58, 0.6, 0.54, 1.0, {"base_rate", "learning_rate_too_low"}),  # of 400 rows that is chance
        (0.58, 0.6, 0.54, 0.95, set()),  # which its loss is not
        (0.65, 0.66, 0.66, 0.95, {"base_rate", "learning_rate_too_low"}),  # there may be more to know
        (0.58, 0.6, None, None, {"base_rate", "learning_rate_too_low"}),
    ],
)
def test_who_knows_the_little_there_is_need_not_learn_more(
    attainable: float, train: float, val: float | None, val_loss: float | None, symptoms: set[str]
) -> None:
    run = observed(*np.linspace(1.0, 0.97, 12))
    run.series["train/accuracy"] = np.array([train])
    if val is not None and val_loss is not None:
        run.series.update({"val/accuracy": np.array([val]), "val/loss": np.array([val_loss])})
    nearby = Neighbourhoods(attainable, 0.4, attainable)
    rows = {"train": 3200} if val is None else {"train": 3200, "val": 400}
    data = replace(run.data, rows=rows, neighbourhoods=nearby)
    seen = replace(run, data=data, measure_longer_step=lambda: (30.0, 0.03))
    assert {name for name in ("base_rate", "learning_rate_too_low") if SYMPTOMS[name](seen)} == symptoms


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


def of_a_known_border(run: Observations, hidden: list[int], accuracy: float) -> Observations:
    """The run with so many neurons and this accuracy, on rows whose neighbours are right on 98 %, after many steps."""
    return replace(
        run,
        steps_per_epoch=100,
        series=run.series | {"train/accuracy": np.array([accuracy])},
        settings=replace(run.settings, hidden=hidden),
        data=replace(run.data, neighbourhoods=Neighbourhoods(0.98, 0.0, 0.98)),
    )


@pytest.mark.parametrize(
    ("hidden", "symptom"), [([1], "underfitting"), ([8, 1], "underfitting"), ([2], "plateau")]
)
def test_a_single_neuron_that_knows_nothing_underfits(hidden: list[int], symptom: str) -> None:
    run = observed(*[0.999] * 12)
    seen = of_a_known_border(run, hidden, 0.5)
    found = {name for name in ("underfitting", "plateau", "base_rate") if SYMPTOMS[name](seen)}
    assert found == {symptom, "base_rate"}


@pytest.mark.parametrize(
    ("hidden", "pace", "expected"),
    [
        ([16], 0.03, {"too_few_epochs"}),
        ([8, 8], 0.03, {"too_few_epochs"}),
        ([15], 0.03, {"underfitting", "too_few_epochs"}),
        ([15], 0.06, {"too_few_epochs"}),
        ([16], 0.01, {"underfitting"}),
    ],
)
def test_many_neurons_are_not_said_to_be_too_few_while_the_loss_falls(
    hidden: list[int], pace: float, expected: set[str]
) -> None:
    run = observed(*np.linspace(0.9, 0.7, 16).tolist(), *(0.7 - pace / 4 * np.arange(1, 5)).tolist())
    seen = of_a_known_border(run, hidden, 0.7)
    assert {name for name in ("underfitting", "too_few_epochs") if SYMPTOMS[name](seen)} == expected


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


@pytest.mark.parametrize(("rate", "first"), [(0.5, "batch_too_small"), (5.0, "diverging")])
def test_small_batches_are_the_first_cause_unless_the_rate_is_too_high_for_any(
    rate: float, first: str
) -> None:
    course = np.resize([1.5, 1.2, 1.9, 1.3], 12)
    losses = observed(*course.tolist())
    settings = replace(losses.settings, batch_size=1, lr=rate)
    seen = replace(losses, settings=settings, batch_signal=0.1, **moved(0.5))
    found = [finding.symptom for finding in findings(seen)]
    assert found[0] == first
    assert {"batch_too_small", "diverging"} <= {*found}


def test_a_run_that_has_learned_half_but_falls_still_had_too_few_epochs() -> None:
    falls = observed(*np.linspace(1.0, 0.4, 12).tolist())
    knows_more = replace(falls.data, neighbourhoods=Neighbourhoods(0.95, 0.0, 0.95))

    def found(accuracy: float) -> Finding | None:
        series = falls.series | {"train/accuracy": np.full(12, accuracy)}
        return SYMPTOMS["too_few_epochs"](replace(falls, data=knows_more, series=series))

    assert found(0.7) is not None
    assert found(0.94) is None, "it knows what the neighbours know"


def test_a_run_that_knows_what_the_neighbours_know_had_too_few_epochs_if_it_comes_to_know_other_rows() -> (
    None
):
    falls = observed(*np.linspace(1.0, 0.85, 12).tolist())
    rows = {"train": 320, "val": 80}
    as_the_network = replace(falls.data, rows=rows, neighbourhoods=Neighbourhoods(0.7, 0.0, 0.7))

    def found(val: np.ndarray | None) -> Finding | None:
        series = (
            falls.series | {"train/accuracy": np.full(12, 0.69)} | ({} if val is None else {"val/loss": val})
        )
        return SYMPTOMS["too_few_epochs"](replace(falls, data=as_the_network, series=series))

    assert found(falls.loss("train") + 0.02) is not None
    assert found(np.linspace(0.91, 0.9, 12)) is None, "it learns its rows by heart"
    assert found(None) is None, "nobody can tell"


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
    ("train_accuracy", "val_accuracy", "val_loss", "is_found"),
    [
        (0.85, 0.52, 1.0, True),
        (0.7, 0.52, 1.0, False),  # it has not learned its own rows either
        (0.85, 0.6, 1.0, False),  # of 1,000 rows no chance
        (0.85, 0.52, 0.9, False),  # it knows which are likelier
    ],
)
def test_who_tells_the_classes_of_its_own_rows_only_overfits_though_soft_targets_keep_the_loss_high(
    train_accuracy: float, val_accuracy: float, val_loss: float, *, is_found: bool
) -> None:
    run = observed(1.0, 0.99, 0.97)
    measured = {
        "val/loss": np.array([1.0, 1.0, val_loss]),
        "train/accuracy": np.array([train_accuracy]),
        "val/accuracy": np.array([val_accuracy]),
    }
    data = replace(run.data, rows={"train": 3000, "val": 1000})
    finding = SYMPTOMS["overfitting"](replace(run, series=run.series | measured, data=data))
    assert (finding is not None) == is_found
    assert finding is None or (finding.severity, finding.evidence["most_frequent_share"]) == ("serious", 0.5)


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
    memorises = replace(
        run,
        series=run.series | {"val/loss": np.append(np.linspace(1.0, val, 7), [val] * 3)},
        data=replace(data, neighbourhoods=Neighbourhoods(0.95, 0.0, 0.95)),
    )
    if train < 0.5:
        assert (SYMPTOMS["too_few_epochs"](memorises) is None) == is_found
    knows_nothing_else = beside(np.linspace(5.0, 1.2, 10))
    assert (knows_nothing_else is not None and knows_nothing_else.severity == "serious") == (train < 0.5)


@pytest.mark.parametrize(
    ("rows", "rise", "only_at_the_end", "main"),
    [
        (15_000, 0.03, False, "overfitting"),  # of the 0.15 that were known of other rows
        (15_000, 0.03, True, "learning_rate_too_low"),  # of one epoch, that may be chance
        (15_000, 0.015, False, None),  # is beyond chance, and little
        (150, 0.03, False, "learning_rate_too_low"),  # may be chance
    ],
)
def test_who_knows_ever_less_of_other_rows_learns_his_own_by_heart(
    rows: int, rise: float, *, only_at_the_end: bool, main: str | None
) -> None:
    falls = observed(*np.linspace(0.95, 0.7, 20).tolist())
    turns = np.concatenate([np.linspace(0.95, 0.85, 8), np.linspace(0.85, 0.85 + rise, 12)])
    seen = replace(
        falls,
        series=falls.series
        | {"val/loss": np.append(turns[:-1].clip(max=0.85), turns[-1]) if only_at_the_end else turns},
        data=replace(falls.data, rows={"train": 320, "val": rows}),
        measure_longer_step=lambda: (30.0, 0.07),
        output_signal=2.0,
    )
    told = [
        name for name in ("overfitting", "learning_rate_too_low", "too_few_epochs") if SYMPTOMS[name](seen)
    ]
    assert told == ([main] if main else [])
    stops_then = replace(seen, settings=replace(seen.settings, stopped_hastily=True))
    assert SYMPTOMS["overfitting"](stops_then) is None, "a few epochs are what it lost"
    has_learned_nothing = replace(seen, series=seen.series | {"train/loss": np.linspace(1.0, 0.96, 20)})
    assert SYMPTOMS["overfitting"](has_learned_nothing) is None
    ends = replace(seen, measure_longer_step=lambda: (1.0, 0.0))
    assert (SYMPTOMS["too_few_epochs"](ends) is not None) == (main == "learning_rate_too_low")
