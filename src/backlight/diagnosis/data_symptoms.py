"""Symptoms of the rows: their features, their labels, and how they were split."""

import math

import numpy as np

from backlight.diagnosis.finding import Finding, by_progress
from backlight.diagnosis.knowledge import LEARNED, chance, has_rare_class
from backlight.diagnosis.loss_symptoms import oscillating
from backlight.diagnosis.observations import Floats, Observations

NOISY, CONTRADICTED, SPREAD = 0.13, 0.1, 0.55
"""Share of labels that neighbours and polynomials contradict where these are surest, and the share that the network
contradicts where it is, which can know better. And the former over the share of labels that are not known at all: classes
that overlap disagree near their border only. Found are 102 of 119 sets with 15 % of the labels wrong and 93 of 94 with a
fifth, 14 of 98 with 8 to 12 %, and of 337 clean ones 37, of many classes that overlap or arms of spirals in noise."""

UNEVEN = 100.0
"""Largest over smallest standard deviation of the features: gradient descent then needs about its square
in steps (the condition number; LeCun et al. 1998, Efficient BackProp, section 5)."""

FAR_FROM_ZERO = 10.0
"""Of a feature's mean, in its standard deviations: the bias direction drowns all others (same source)."""

CROWDED, MOSTLY = 0.1, 0.25
"""Of a feature's deviation, that of its middle half: few values lie so far off that all others look the same. Of tables and
synthetic rows none has less than 0.3 (of six such sets). And the share of such features, of those whose middle half is any,
from which on the others do not make up for them."""

CROWDING = ("narrowest_middle_half_over_deviation", "narrowest")  # evidence of it

REPEATED, STRAY = 0.01, 3
"""Share of held-out rows that are training rows, beyond the share of training rows that repeat each other, as
rows of few discrete features do; and their least number: iris itself holds one pair of equal flowers."""

CONSTANT_SHARE = 0.1
"""Of the features: a few are a bias more, which does no harm."""


def unscaled_features(seen: Observations) -> Finding | None:
    """Features are of very different size, far from 0, spread by a few values, or constant: no learning rate fits all."""
    spread, mean, names = seen.data.feature_deviations, seen.data.feature_means, seen.data.feature_names
    # Rounding leaves a constant column a deviation of this size; one-hot columns are small by nature.
    varies = spread > 1e-6 * np.maximum(np.abs(mean), 1e-6)
    evidence: dict[str, float | str] = {}
    if varies.any():
        ratio = float(spread[varies].max() / spread[varies].min())
        offset = np.where(varies, np.abs(mean) / np.where(varies, spread, 1), 0)
        # Those of images are brought to one scale together: pixels of the border are small by nature.
        if ratio > UNEVEN and not seen.settings.standardizes:
            evidence["largest_over_smallest_deviation"] = ratio
        if offset.max() > FAR_FROM_ZERO:
            evidence["farthest_mean_in_deviations"] = float(offset.max())
            evidence["farthest"] = names[int(offset.argmax())]
    # What is always 0 moves nothing.
    is_constant = ~varies & (np.abs(mean) > 1e-6)
    if np.mean(is_constant) > CONSTANT_SHARE:
        evidence["constant"] = ", ".join(np.array(names)[is_constant][:5])
    widths = middle_widths(seen)
    if has_crowded(seen):
        evidence |= dict(zip(CROWDING, (float(widths.min()), names[int(widths.argmin())]), strict=True))
    if not evidence:
        return None
    has_learned = seen.progress() >= LEARNED and oscillating(seen) is None
    is_harmless = has_learned or not set(evidence) - {"constant", *([] if is_crowded(seen) else CROWDING)}
    return Finding("unscaled_features", "warning" if is_harmless else by_progress(seen), 0, evidence)


def leakage(seen: Observations) -> Finding | None:
    """Rows held out are also training rows, so that their metrics flatter."""
    leaked: dict[str, float | str] = {
        f"share_of_{part}_rows_in_train": share
        for part, (repeats, share) in seen.data.repeated_in.items()
        if repeats >= STRAY and share - seen.data.repeated > REPEATED
    }
    return Finding("leakage", "serious", 0, leaked) if leaked else None


def class_imbalance(seen: Observations) -> Finding | None:
    """A class is so rare that accuracy looks good although it is missed; or every row is taken for it."""
    shares = seen.data.class_shares
    if not has_rare_class(seen):
        return None
    accuracy, balanced = seen.last("val/accuracy"), seen.last("val/balanced_accuracy")
    if not seen.data.rows.get("val"):
        accuracy, balanced = seen.last("train/accuracy"), seen.measure_balanced()
    if math.isnan(balanced):
        return None
    # Balanced accuracy is that of chance, about, and accuracy far below that of taking every row for the frequent class.
    is_everywhere = balanced <= 1.1 / len(shares) and accuracy < shares.max() / 2
    is_missed = accuracy - balanced > 0.1
    if is_missed and seen.settings.weighs_classes:
        # Who weighs them has done what can be done: what chance may do is no finding, nor what the neighbours do not know.
        nearby, at_best = seen.data.neighbourhoods, balanced + chance(seen)
        is_missed = accuracy - at_best > 0.1 and (nearby is None or nearby.balanced > at_best)
    if not (is_missed or is_everywhere):
        return None
    return Finding(
        "class_imbalance",
        by_progress(seen),
        0,
        {"rarest_class_share": float(shares.min()), "accuracy": accuracy, "balanced_accuracy": balanced},
    )


def label_noise(seen: Observations) -> Finding | None:
    """Rows carry other labels than everything around them says, even where that is surest: no network can know these."""
    nearby = seen.data.neighbourhoods
    # Where a few values spread the features, these decide who is near.
    if nearby is None or nearby.noise < max(NOISY, SPREAD * (1 - nearby.attainable)) or is_crowded(seen):
        return None
    # A network that knows better shows that only the others are lost.
    by_network = seen.measure_contradicted()
    if not len(seen.loss("train")) or by_network < CONTRADICTED:
        return None
    return Finding(
        "label_noise",
        "warning",
        0,
        {
            "share_of_labels_that_other_rows_contradict": nearby.noise,
            "share_that_the_network_contradicts_where_it_is_surest": by_network,
            "attainable_accuracy": nearby.attainable,
        },
    )


def has_crowded(seen: Observations) -> bool:
    """Whether any feature is spread by a few values that lie far off."""
    return bool((middle_widths(seen) < CROWDED).any())


def is_crowded(seen: Observations) -> bool:
    """Whether many features are."""
    widths = middle_widths(seen)
    return bool((widths < CROWDED).sum() >= MOSTLY * max(1, np.isfinite(widths).sum()))


def middle_widths(seen: Observations) -> Floats:
    """`[features]` how wide the middle half of the rows lies, over the deviation; infinite where most are one value."""
    middles = seen.data.feature_middles
    is_wide = middles > 0
    return np.where(is_wide, middles, np.inf) / np.where(
        is_wide, seen.data.feature_deviations[: len(middles)], 1
    )
