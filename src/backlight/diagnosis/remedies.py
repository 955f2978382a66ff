"""For each symptom, Hydra overrides that are likely to help, the likeliest first."""

import math
from collections.abc import Callable
from dataclasses import replace

from backlight.diagnosis import data_remedies as rows
from backlight.diagnosis import network_remedies as network
from backlight.diagnosis import objective_remedies as objective
from backlight.diagnosis import step_remedies as steps
from backlight.diagnosis.course import SHORT
from backlight.diagnosis.data_symptoms import has_crowded, unscaled_features
from backlight.diagnosis.finding import Finding
from backlight.diagnosis.layer_symptoms import exploding_gradient
from backlight.diagnosis.loss_symptoms import MANY_NEURONS, NEARLY_USUAL
from backlight.diagnosis.observations import Observations
from backlight.diagnosis.remedy import Remedy

OF_DECAY = (
    "symmetric_neurons", "dead_units", "diverging", "oscillating", "vanishing_gradient", "learning_rate_too_low",
    "too_few_epochs", "plateau", "underfitting", "base_rate",
)  # fmt: skip
"""What strong decay may leave, see `decay_reaches`."""
OF_THE_START = ("symmetric_neurons", "vanishing_gradient")


def remedies(finding: Finding, seen: Observations) -> list[Remedy]:
    """What may help against a finding and is not so already, the likeliest first."""
    settings = seen.settings
    found: dict[frozenset[str], Remedy] = {}  # by what they change
    told = [*REMEDIES[finding.symptom](seen)]
    if settings.decays_strongly and finding.symptom in OF_DECAY and objective.decay_reaches(seen):
        # What was so before the first step has another cause, which may not be the only one.
        first = 1 if finding.symptom in OF_THE_START and finding.step == 0 else 0
        told.insert(first, _without_decay(finding, seen))
    for remedy in told:
        is_allowed = settings.switchable or "optimizer=" not in remedy.overrides
        changes = frozenset(remedy.overrides.split()) - settings.overrides
        if is_allowed and (changes or not remedy.overrides):
            found.setdefault(changes, remedy)
    return list(found.values())


def _without_decay(finding: Finding, seen: Observations) -> Remedy:
    """Where the loss leaps, at a lower rate too, unless it is low.

    Of 30 such runs 24 are healthy then, 18 without decay at their own rate, and 8 with it at a lower one.
    """
    alone, lower = objective.NO_DECAY, steps.lower_rate(seen)
    if finding.symptom not in ("diverging", "oscillating") or seen.settings.rate_over_usual < 1:
        return alone
    return alone.together(lower.overrides, "and shorter steps overshoot less", lower.source)


HIGH = 5
"""Times the usual rate, from which on that may be why a network learns its rows by heart: of 25 such runs 21 are healthy at
the usual rate, and 3 where they stop early."""


def _against_few_epochs(seen: Observations) -> list[Remedy]:
    """More epochs, at a usual rate.

    Of 28 runs at more than FAR times that 19 are healthy then, and 6 in as many epochs at their own; of 44 at a third of it
    and less 30 and 23.
    """
    longer = objective.more_epochs(seen)
    if not NEARLY_USUAL <= seen.settings.rate_over_usual <= steps.FAR:
        longer = [steps.at_usual_rate(seen, one) for one in longer]
    return [*longer, *steps.usual_adam(seen), *steps.usual_batches(seen)]


def _against_overfitting(seen: Observations) -> list[Remedy]:
    usual = replace(
        steps.lower_rate(seen), overrides=f"optimizer.lr={steps.two_digits(seen.settings.usual_rate)}"
    )
    shorter = [usual] if seen.settings.rate_over_usual > HIGH else []
    softer = objective.softer_targets(seen)
    decay = Remedy(
        f"{objective.DECAY.overrides} {softer.overrides}",
        "Decay keeps weights small as well, and with them what the network can memorise; the rate is usual for AdamW.",
        f"{objective.DECAY.source}; {softer.source}",
    )
    return [*shorter, softer, decay, objective.stop_early(seen), objective.DECAY, network.fewer_neurons(seen)]


def _small_weights(seen: Observations, remedy: Remedy) -> list[Remedy]:
    """Small starting weights, first at the run's own rate unless that is far from the usual one."""
    return [*steps.at_usual_rate_if_far(seen, remedy), steps.at_usual_rate(seen, remedy), remedy]


def _against_non_finite(seen: Observations) -> list[Remedy]:
    """First what was too large before the first step, where the rate is not at fault.

    Of 18 networks of square at Adam's usual rate one ended so or diverged, and of 18 at that of SGD 13.
    """
    exploding = exploding_gradient(seen)
    grew_at_once = exploding is not None and exploding.step == 0
    unscaled = _against_bad_scale(seen) if unscaled_features(seen) is not None else []
    is_large = grew_at_once or not math.isfinite(seen.start_loss)
    return [
        *steps.constant_rate(seen),
        *unscaled,
        *(_small_weights(seen, network.TAME) if is_large else []),
        *(steps.usual_adam(seen) if seen.settings.activation == "square" else []),
        steps.lower_rate(seen),
        steps.CLIP,
        network.UNSATURATE,
    ]


def _against_divergence(seen: Observations) -> list[Remedy]:
    """Larger batches as well, where they are tiny: of 15 such runs 13 are healthy then, and none at a lower rate alone."""
    is_tiny = seen.settings.batch_size <= steps.TINY_BATCH
    return [
        *steps.all_rows(seen),
        *steps.constant_rate(seen),
        *([steps.larger_batches(seen)] if is_tiny else []),
        steps.lower_rate(seen),
        *steps.usual_adam(seen),
        steps.CLIP,
    ]


def _against_imbalance(seen: Observations) -> list[Remedy]:
    """Weights, first with what heavy errors on few rows need.

    With more epochs, until the validation loss rises, and shorter steps of SGD, 79 of 116 runs of two classes are healthy
    and 42 of 85 of three to eight, with the weights alone 50 and 21. Of 16 that still miss a class a second layer finds
    more of it in 12.
    """
    settings = seen.settings
    shorter = [f"optimizer.lr={steps.two_digits(settings.lr / 2)}"] if settings.optimizer == "sgd" else []
    until = objective.UNTIL_IT_RISES if seen.data.rows.get("val") else ""
    longer = [
        word for remedy in objective.more_epochs(seen) for word in f"{until} {remedy.overrides}".split()
    ]
    needed = "short steps and many epochs" if shorter else "many epochs"
    together = objective.BALANCE.together(
        " ".join([*shorter, *dict.fromkeys(longer)]), f"heavy errors on few rows need {needed}"
    )
    more = (
        [network.second_layer(seen), objective.SMOOTH, rows.MORE_RARE_ROWS] if settings.weighs_classes else []
    )
    return [together, objective.BALANCE, *more]


def _against_saddles(seen: Observations) -> list[Remedy]:
    """Of few neurons first more, at a usual rate.

    Of 64 networks of 1 to 16 neurons 55 are healthy then, and 26 with the next of these alone; 47 come further by a
    twentieth of all there is to learn, and none less far.
    """
    has_few = sum(seen.settings.hidden) < MANY_NEURONS
    more = [steps.at_usual_rate(seen, network.second_layer(seen))] if has_few else []
    steeper = [network.TANH] if seen.settings.activation == "sigmoid" else []
    return [
        *more,
        *steps.usual_adam(seen),
        *steeper,
        steps.bolder_rate(seen),
        network.fitting_init(seen),
        network.wide_layer(seen),
        *steps.usual_batches(seen),
    ]


def _against_base_rate(seen: Observations) -> list[Remedy]:
    is_short = seen.settings.max_epochs < SHORT
    return [*(objective.more_epochs(seen) if is_short else []), *_against_saddles(seen)]


def _against_vanishing(seen: Observations) -> list[Remedy]:
    found = [network.fitting_init(seen), network.TANH, network.one_layer(seen)]
    # In all of 34 deep networks of sigmoids tanh came to a lower validation loss than weights that fit, and in 15 of 20 one
    # layer did.
    if seen.settings.activation == "sigmoid":
        found = [*found[1:], found[0]]
    # Of 25 deep networks 21 are healthy with tanh at a rate that these bear, and 15 at their own.
    at_rate = [steps.at_usual_rate(seen, found[0])] if len(seen.settings.hidden) >= steps.DEEP else []
    return [*at_rate, *steps.at_usual_rate_if_far(seen, *found), *steps.usual_adam(seen)]


def _against_low_rate(seen: Observations) -> list[Remedy]:
    settings, more_steps = seen.settings, steps.usual_batches(seen)
    found = [steps.higher_rate(seen), *more_steps, *steps.usual_adam(seen), *objective.more_epochs(seen)]
    # Where few steps are made, but no short ones, more did better than longer ones in 6 of 8 runs; L-BFGS needs all rows.
    makes_few = settings.batch_size >= steps.LARGE_BATCH and settings.optimizer != "lbfgs"
    first = more_steps if makes_few and not steps.is_far_from_usual(settings) else []
    return [*steps.without_clipping(seen), *steps.constant_rate(seen), *first, *found]


def _against_underfitting(seen: Observations) -> list[Remedy]:
    wider = steps.at_usual_rate_if_far(seen, network.second_layer(seen), network.more_neurons(seen))
    return [*wider, *steps.usual_adam(seen), *objective.more_epochs(seen)]


def _against_bad_scale(seen: Observations) -> list[Remedy]:
    ranks = [rows.BY_RANK, rows.LEAVE_EMPTY] if has_crowded(seen) else []
    return [*ranks, *([] if seen.settings.standardizes else [rows.STANDARDIZE]), *steps.usual_adam(seen)]


REMEDIES: dict[str, Callable[[Observations], list[Remedy]]] = {
    "non_finite": _against_non_finite,
    "diverging": _against_divergence,
    "oscillating": lambda seen: [
        *steps.all_rows(seen),
        *steps.constant_rate(seen),
        steps.lower_rate(seen),
        *steps.usual_adam(seen),
    ],
    "exploding_gradient": lambda seen: [
        *_small_weights(seen, network.TAME),
        *steps.lower_rate_if_high(seen),
        steps.CLIP,
    ],
    "symmetric_neurons": lambda seen: steps.at_usual_rate_if_far(seen, network.RANDOM_INIT),
    # A lower rate cured 4 of 34 runs whose rate was not far from the usual one, and gelu 21.
    "dead_units": lambda seen: [
        *steps.at_usual_rate_if_far(seen, network.GELU),
        steps.at_usual_rate(seen, network.UNSATURATE),
        *steps.lower_rate_if_high(seen),
    ],
    "saturated_neurons": lambda seen: [
        *_small_weights(seen, network.UNSATURATE),
        *_against_bad_scale(seen),
        *steps.lower_rate_if_high(seen),
    ],
    "unscaled_features": _against_bad_scale,
    "vanishing_gradient": _against_vanishing,
    "learning_rate_too_low": _against_low_rate,
    "too_few_epochs": _against_few_epochs,
    "plateau": _against_saddles,
    "base_rate": _against_base_rate,
    "leakage": lambda seen: [rows.SEPARATE],
    "class_imbalance": _against_imbalance,
    "batch_too_small": lambda seen: [
        *steps.all_rows(seen),
        steps.larger_batches(seen),
        steps.lower_rate(seen),
    ],
    "underfitting": _against_underfitting,
    "label_noise": lambda seen: [
        rows.CHECK_LABELS,
        objective.SMOOTH,
        *([objective.stop_early(seen)] if seen.data.rows.get("val") else []),
    ],
    "overfitting": _against_overfitting,
}
