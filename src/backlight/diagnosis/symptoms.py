"""Symptoms: pure functions of what a run measured.

Each returns a finding or None. `SYMPTOMS` lists them causes first: where several are found, the first
names the main one. Every threshold stands beside its reason.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from backlight.diagnosis.observations import Floats, LayerState, Observations

Severity = Literal["fatal", "serious", "warning"]
PARTS: Final = ("train", "val")

HARDLY_LEARNED = 0.05
"""Progress below which a network knows little more than the class shares. Fitting k parameters to the noise of n rows
gains k/2n nats (Akaike 1974): 61 parameters on 1,000 rows gain 0.04 of the 0.69 nats of two equal classes."""

LEARNED = 0.5
"""Progress from which on a network has learned: what is unusual inside it did not keep it from that."""

TELLING = 0.1
"""By how much neighbours must know the class better than its share does, for their accuracy to be a measure."""

NEAR = 0.05
"""Of an accuracy: what two of them may differ by on a few hundred rows, where each has a standard error of about 0.02."""

BELOW = 0.07
"""Of an accuracy beside that of the neighbours: beyond NEAR."""

NOISY, CONTRADICTED = 0.18, 0.13
"""Share of labels that neighbours and polynomials contradict where these are surest: 0.193 and more in 50 sets with a fifth
of the labels wrong or more, less in 40 of 50 clean ones; the others have many classes that overlap, or arms of spirals. And
the share that the network contradicts where it is surest, which can know better: up to 0.12 with clean labels (32 runs on
rows of several classes or many features), 0.17 and more with wrong ones (calibration set)."""

DROWNED, FEW = 0.5, 16
"""Of a batch's gradient, its square over its variance: the noise is well above the signal. And the rows of such a batch:
32 are the usual number, and seldom too few (Masters & Luschi 2018, arXiv:1804.07612)."""

STILL_FALLING = 0.1
"""Share of the whole fall that falls in the last fifth of the epochs. A straight line has 0.2, an
exponential that has settled (5 time constants) 0.01; 0.1 is that of one with 1.5 time constants behind it."""

LONGER_STEP = 10.0
"""A step so many times longer would still have been a good one along the gradient: a learning rate may be
off by a factor of 3 to either side without harm (Bengio 2012, arXiv:1206.5533, advises a grid of that ratio)."""

GAIN = 0.02
"""What such a step lowers the loss by, over the base-rate loss, for the rate to be too low although the loss falls slowly
as if it were done. Of 381 runs at low and usual rates, not those it was chosen on, 28 are found by this alone: at ten times
the rate 26 of them end lower by 0.05 and more of the base-rate loss, and none with a higher validation loss. Of healthy
runs none has more (calibration set)."""

FAR_BELOW = 1 / 30
"""Of the usual rate: a tenth of what may be without harm (Bengio 2012). Of 26 runs below it that had not learned what could
be known, and were not found by their steps, 24 come lower at the usual rate by a tenth of the base-rate loss and more,
though 10 of the 26 rested near a saddle; at a tenth of this the rate is named before that."""

NEARLY_USUAL = 1 / 3
"""Of the usual rate, which does no harm (Bengio 2012). Of 17 runs of fewer than SHORT epochs at such rates that
bear longer steps, 6 were healthy at a higher rate, with a loss of 0.47 in the mean, and 14 in ten times as many epochs, with
0.31."""

FADED = 0.1
"""Of its highest value, the mean rate of the second half of the epochs at which a schedule has ended training; half a cosine
has 0.18. Of 77 random runs of which it is the main finding 58 come further at a constant rate, and 36 are healthy there."""

SIGNAL = 1.0
"""Of the gradient that tells classes apart, its square over its variance, which pure noise would have too. Up to 0.4 on a
saddle, where it is of single rows, and 1.9 and more where only the learning rate is at fault (calibration set)."""

UNMOVED = 0.01
"""The longest way of a layer's weights, over their size: 0.0004 to 0.009 at rates of 1e-6, 0.025 and more on saddles and
where the gradient vanishes (calibration set, and 44 more runs)."""

VANISHED = 1e-3
"""RMS delta of the first layer over that of the last. With σ' ≤ 1/4 and PyTorch's weights one layer leaves
about 0.14 and the last step to one output 0.05, so three hidden layers come to it."""

EXPLODED = 12.0
"""The same ratio upwards. Healthy networks start with 0.35 and less and end with 11 and less (calibration set); more, and
first-layer steps are so much longer than those of the output layer that no common rate fits."""

SATURATED_SHARE = 0.5
"""Of a layer's slopes: more than half of the error is then cut to a fifth or less in this layer alone."""

SILENT_SHARE, SPARED_SHARE = 0.4, 0.5
"""Of a relu layer's units. The latter of a network that knows what can be known and whose loss does not leap: up to a half
in healthy ones of 8 to 48 units (60 runs), 0.55 and more where a high rate killed them (calibration set). Of others less
will do."""

SAME = 1e-4
"""Relative distance of two neurons' weights below which no step of float32 sets them apart."""
FEW_WEIGHTS = 4  # of a neuron, its bias first: other neurons hardly ever have the same by chance

FLAT = 0.01
"""Change of the loss, relative to the base-rate loss, that is no change: a fifth of HARDLY_LEARNED, and a fiftieth of
what a run that has learned moved by."""

SHORT = 10
"""Epochs below which nothing is said of where the loss settles: a fifth of them is then a single one."""

FEW_STEPS, ENOUGH_NEURONS = 500, 8
"""Of the optimizer, and hidden ones: fewer steps tell nothing of what so many neurons can fit. Of 28 runs that were said to
underfit 27 come further in ten times as many epochs, 26 further than with a second layer. Fewer neurons (1 to 4)
do not."""

SETTLED = 0.05
"""Fall of the loss over the last fifth of the epochs, relative to the base-rate loss: at that pace, as many epochs again
would gain a quarter of what is there to gain."""

UNFINISHED = 0.02
"""The same of a run that is not at its end: as many epochs again would gain twice what HARDLY_LEARNED is. No healthy run
that has learned what others learn of its rows has more (calibration set)."""

RISE, RISE_ROWS = 0.1, 150
"""Rise of the validation loss from its lowest value, relative to the base-rate loss. The mean of 150 rows has a
standard error of about 0.06 of it; both values are of the same rows, so chance moves their difference by less. Of
fewer rows, by the root of their number more."""

APART, OF_ONE_ROW = 0.3, 0.6
"""How far the validation loss lies above the training loss at the end, relative to the base-rate loss and beyond the
standard error of the mean over its rows, of which one has that of so much: of 400 runs on 100 to 1,000 rows, 12 whose
validation loss neither falls any more nor has risen lie so far apart, and what helps against overfitting gains 10 of them
0.05 and more."""

UNEVEN = 100.0
"""Largest over smallest standard deviation of the features: gradient descent then needs about its square
in steps (the condition number; LeCun et al. 1998, Efficient BackProp, section 5)."""

FAR_FROM_ZERO = 10.0
"""Of a feature's mean, in its standard deviations: the bias direction drowns all others (same source)."""

RARE = 0.1
"""Share of the rarest class times the number of classes over 2, below which accuracy hides it: of two classes, predicting
the frequent one is then right on more than nine rows of ten."""

REPEATED, STRAY = 0.01, 3
"""Share of held-out rows that are training rows, beyond the share of training rows that repeat each other, as
rows of few discrete features do; and their least number: iris itself holds one pair of equal flowers."""

CONSTANT_SHARE = 0.1
"""Of the features: a few are a bias more, which does no harm."""

JUMP, JUMP_OF_BOTH = 0.035, 0.05
"""Mean change of the loss from one epoch to the next, relative to the base-rate loss, of a run that jumps about: up to
0.018 in healthy runs whose loss turns, 0.053 and more in nine of ten at too high a rate (calibration set). And the geometric
mean of that and the same of the validation loss, which is no mean over the steps of an epoch and so jumps farther; over the
progress, of which less than LITTLE counts as so much: up to 0.036 in healthy runs, 0.055 and more at too high a rate."""

JITTER, LITTLE = 0.03, 0.4
"""By how much the losses of training and validation rows jump about their own course, the geometric mean of both, over
the progress, of which less than LITTLE counts as so much. Of 800 runs with batches of 1 to 8 rows and any rate it finds
0.90 of those that batches of 32 rows make better by a tenth of the base-rate loss, and 0.07 of those that they do not."""

TURNS = 0.3
"""Share of the changes that undo the one before: a loss that falls has none, a random walk a half."""

RISEN = 1.1
"""Final loss over the base-rate loss: worse than knowing nothing, by more than the noise of one epoch."""

LOST = 0.2
"""Progress that a run had made which ends below HARDLY_LEARNED: four times as much, so no noise about that."""


@dataclass(frozen=True)
class Finding:
    """One symptom of one run.

    Attributes:
        symptom: its name.
        severity: `fatal` (nothing was learned, or all lost), `serious` (it costs much of the result),
            `warning` (it may).
        step: optimizer step at which it first showed.
        evidence: the numbers behind it.
        layer: where, or None for the whole network or the data.
        neurons: which of the layer's, if not all.
    """

    symptom: str
    severity: Severity
    step: int
    evidence: dict[str, float | str]
    layer: str | None = None
    neurons: list[int] = field(default_factory=list)


Symptom = Callable[[Observations], Finding | None]


def non_finite(seen: Observations) -> Finding | None:
    """A loss or a weight stopped being a number."""
    for layer in seen.end:
        if not (np.isfinite(layer.weight).all() and np.isfinite(layer.bias).all()):
            return Finding(
                "non_finite", "fatal", _last_step(seen), {"tensor": f"{layer.name}.weight"}, layer.name
            )
    if seen.error is not None and any(f" is {word} " in seen.error for word in ("nan", "inf", "-inf")):
        evidence: dict[str, float | str] = {"error": seen.error}
        if seen.first_non_finite is not None:
            evidence["first_tensor"] = ".".join(seen.first_non_finite)
        where = seen.first_non_finite[0] if seen.first_non_finite else None
        return Finding("non_finite", "fatal", _last_step(seen), evidence, where)
    return None


def diverging(seen: Observations) -> Finding | None:
    """The loss climbed to that of knowing nothing, or above it."""
    loss = seen.loss("train")
    if len(loss) < 2:
        return None
    late = float(np.median(loss[-max(1, len(loss) // 4) :]))
    lowest = int(loss.argmin())
    # A start far from 0 may have a large loss too, and come down from it.
    is_above = late > RISEN * max(seen.base_loss, seen.start_loss)
    has_lost = seen.progress() < HARDLY_LEARNED and seen.progress_of(loss[lowest]) >= LOST
    if not is_above and not has_lost:
        return None
    first = int(np.argmax(loss > RISEN * seen.base_loss)) if is_above else lowest + 1
    return Finding(
        "diverging",
        "fatal",
        first * seen.steps_per_epoch,
        {
            "late_loss": late if is_above else float(loss[-1]),
            "lowest_loss": float(loss[lowest]),
            "base_rate_loss": seen.base_loss,
            "loss_before_training": seen.start_loss,
        },
    )


def oscillating(seen: Observations) -> Finding | None:
    """The loss jumps up and down from epoch to epoch instead of falling."""
    jumps = {part: _jump(seen.loss(part)) / seen.base_loss for part in PARTS}
    of_both = math.sqrt(math.prod(jumps.values())) / max(seen.progress(), LITTLE)
    # Of few epochs or rows, smaller jumps are chance.
    are_many = len(seen.loss("train")) >= SHORT and seen.data.rows.get("val", 0) >= RISE_ROWS
    if jumps["train"] < JUMP and not (are_many and of_both >= JUMP_OF_BOTH):
        return None
    if batch_too_small(seen) is not None:
        return None
    return Finding(
        "oscillating",
        _by_progress(seen),
        _first_rise(seen, JUMP),
        {f"mean_jump_of_{part}_loss_over_base_rate_loss": jump for part, jump in jumps.items() if jump},
    )


def batch_too_small(seen: Observations) -> Finding | None:
    """The loss jumps up and down because the few rows of a batch hardly show where the gradient points."""
    if seen.batch_signal >= DROWNED or seen.settings.batch_size >= FEW:
        return None
    losses = {part: seen.loss(part) for part in PARTS}
    jitters = {part: _jitter(loss) / seen.base_loss for part, loss in losses.items() if len(loss)}
    least = JITTER * max(seen.progress(), LITTLE)
    if not jitters or math.prod(jitters.values()) < least ** len(jitters):
        return None
    return Finding(
        "batch_too_small",
        _by_progress(seen),
        _first_rise(seen, least),
        {
            "signal_over_noise_of_a_batch": seen.batch_signal,
            **{f"jitter_of_{part}_loss_over_base_rate_loss": jitter for part, jitter in jitters.items()},
        },
    )


def symmetric_neurons(seen: Observations) -> Finding | None:
    """Neurons of a layer are copies of each other, get the same gradient, and stay copies."""
    for step, moment in ((0, seen.start), (_last_step(seen), seen.end)):
        for layer in moment[:-1]:
            copies = _copies(layer)
            if len(layer.weight) > 1 and len(copies) > len(layer.weight) / 2:
                return Finding(
                    "symmetric_neurons",
                    _by_progress(seen),
                    step,
                    {"copies": float(len(copies)), "neurons": float(len(layer.weight))},
                    layer.name,
                    copies,
                )
    return None


def dead_units(seen: Observations) -> Finding | None:
    """Units of relu have slope 0 on every row: no error passes them, so they cannot come back."""
    if seen.settings.activation != "relu":
        return None
    # A network that knows less than the neighbours may lack just these.
    is_harmless = seen.progress() >= LEARNED and _missing(seen) < BELOW
    enough = SPARED_SHARE if is_harmless and oscillating(seen) is None else SILENT_SHARE
    moments = [(_last_step(seen), seen.end)]
    if not is_harmless:  # one that has learned may have brought back what was silent at its start
        moments.insert(0, (0, seen.start))
    for step, moment in moments:
        for layer in moment[:-1]:
            share = float(layer.silent.mean())
            if share > enough:
                return Finding(
                    "dead_units",
                    "warning" if is_harmless else _by_progress(seen),
                    step,
                    {"share": share},
                    layer.name,
                    np.flatnonzero(layer.silent).tolist(),
                )
    return None


def saturated_neurons(seen: Observations) -> Finding | None:
    """Slopes near 0 cut the error off, from the start or in a network that has not learned."""
    if seen.settings.activation not in ("sigmoid", "tanh"):
        return None
    moments = [(0, seen.start)]
    # Networks that have learned something saturate as they become sure of it.
    if seen.progress() < HARDLY_LEARNED:
        moments.append((_last_step(seen), seen.end))
    for step, moment in moments:
        for layer in moment[:-1]:
            share = float(layer.saturation.mean())
            if share > SATURATED_SHARE:
                return Finding(
                    "saturated_neurons",
                    "warning" if _is_harmless(seen) else _by_progress(seen),
                    step,
                    {"share_of_slopes_below_0.05": share, "progress": seen.progress()},
                    layer.name,
                    np.flatnonzero(layer.saturation > SATURATED_SHARE).tolist(),
                )
    return None


def vanishing_gradient(seen: Observations) -> Finding | None:
    """Hardly any error reaches the first layer of a network that has not learned."""
    # Of many classes half of the way is not yet what the neighbours know.
    if _has_learned(seen) and _missing(seen) < BELOW:
        return None
    for step, moment in ((0, seen.start), (_last_step(seen), seen.end)):
        ratio = _first_over_last(moment)
        if len(moment) > 2 and ratio < VANISHED:
            return Finding(
                "vanishing_gradient",
                _by_progress(seen),
                step,
                {"first_over_last_rms_delta": ratio, "progress": seen.progress()},
                moment[0].name,
            )
    return None


def exploding_gradient(seen: Observations) -> Finding | None:
    """The error grows from layer to layer on its way back."""
    moments = [(0, seen.start)]
    # One that has learned may look unusual at its end, not when it starts; and one that diverged has grown so.
    if not _has_learned(seen) and diverging(seen) is None:
        moments.append((_last_step(seen), seen.end))
    for step, moment in moments:
        ratio = _first_over_last(moment)
        if ratio > EXPLODED:
            return Finding(
                "exploding_gradient",
                "warning" if _is_harmless(seen) else _by_progress(seen),
                step,
                {"first_over_last_rms_delta": ratio},
                moment[0].name,
            )
    return None


def unscaled_features(seen: Observations) -> Finding | None:
    """Features of very different size, far from 0, or constant."""
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
    if not evidence:
        return None
    is_harmless = set(evidence) == {"constant"} or (seen.progress() >= LEARNED and oscillating(seen) is None)
    return Finding("unscaled_features", "warning" if is_harmless else _by_progress(seen), 0, evidence)


def leakage(seen: Observations) -> Finding | None:
    """Rows held out are also training rows, so that their metrics flatter."""
    leaked: dict[str, float | str] = {
        f"share_of_{part}_rows_in_train": share
        for part, (repeats, share) in seen.data.repeated_in.items()
        if repeats >= STRAY and share - seen.data.repeated > REPEATED
    }
    return Finding("leakage", "serious", 0, leaked) if leaked else None


def learning_rate_too_low(seen: Observations) -> Finding | None:
    """Steps are much shorter than they could be: training ends far from where longer ones would lead."""
    if len(seen.loss("train")) < max(2, min(5, seen.settings.max_epochs)):  # of an unfinished run five epochs
        return None
    bears_longer, is_cut_short = _bears_longer_steps(seen), _is_cut_short(seen)
    is_at_fault = bears_longer or is_cut_short or _is_far_below_usual(seen)
    if not is_at_fault and not has_faded(seen):
        return None
    is_usual = seen.settings.rate_over_usual >= NEARLY_USUAL
    if is_usual and len(seen.loss("train")) < SHORT and _ends_too_soon(seen) and not is_cut_short:
        return None
    # A saddle may hold others too.
    is_certain = bears_longer or plateau(seen) is None or seen.settings.rate_over_usual <= FAR_BELOW / 10
    severity = _by_progress(seen) if is_certain else "serious"
    return Finding(
        "learning_rate_too_low",
        severity if is_at_fault else "warning",
        _epochs_of_steps(seen) * seen.steps_per_epoch if has_faded(seen) else 0,
        {
            **({"rate_of_the_second_half_over_the_highest": _late_rate(seen)} if has_faded(seen) else {}),
            "share_of_the_fall_in_the_last_fifth": _late_share(seen),
            "times_longer_step_that_is_better": seen.longer_step,
            "what_it_would_gain": seen.longer_step_gain,
            "rate_over_the_usual_one": seen.settings.rate_over_usual,
            "progress": seen.progress(),
        },
    )


def too_few_epochs(seen: Observations) -> Finding | None:
    """The loss was still falling, and far from its floor, when training ended."""
    if not _ends_too_soon(seen) or learning_rate_too_low(seen) is not None or oscillating(seen) is not None:
        return None
    return Finding(
        "too_few_epochs",
        "warning" if seen.progress() >= HARDLY_LEARNED else "fatal",
        _last_step(seen),
        {
            "fall_in_the_last_fifth_over_base_rate_loss": _late_fall(seen) / seen.base_loss,
            "progress": seen.progress(),
            "accuracy_below_that_of_the_neighbours": _missing(seen),
        },
    )


def plateau(seen: Observations) -> Finding | None:
    """The loss has stopped far from its floor: a saddle or a local minimum, as XOR has (Rumelhart et al. 1986)."""
    loss = seen.loss("train")
    if len(loss) < SHORT or _has_learned(seen) or _bears_longer_steps(seen) or _is_cut_short(seen):
        return None
    if _makes_few_steps(seen) and _ends_too_soon(seen):
        return None
    if underfitting(seen) is not None or (_is_unknowable(seen) and seen.progress() < HARDLY_LEARNED):
        return None
    late = loss[len(loss) // 2 :]
    change = float(late.max() - late.min()) / seen.base_loss
    if change > FLAT:
        return None
    return Finding(
        "plateau",
        _by_progress(seen),
        _flat_since(seen, FLAT),
        {"relative_change_in_the_last_half": change, "progress": seen.progress()},
    )


def class_imbalance(seen: Observations) -> Finding | None:
    """A class is so rare that accuracy looks well although it is missed, or that every row is taken for it."""
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
        nearby, at_best = seen.data.neighbourhoods, balanced + _chance(seen)
        is_missed = accuracy - at_best > 0.1 and (nearby is None or nearby.balanced > at_best)
    if not (is_missed or is_everywhere):
        return None
    return Finding(
        "class_imbalance",
        _by_progress(seen),
        0,
        {"rarest_class_share": float(shares.min()), "accuracy": accuracy, "balanced_accuracy": balanced},
    )


def overfitting(seen: Observations) -> Finding | None:
    """The validation loss rises while the training loss falls, or ends far above it."""
    train, val = seen.loss("train"), seen.loss("val")
    if len(val) < 3 or len(train) != len(val):
        return None
    lowest = int(val.argmin())
    rise = float(val[-1] - val[lowest]) / seen.base_loss
    enough = RISE * math.sqrt(max(1, RISE_ROWS / seen.telling_rows))
    rises = rise >= enough and train[-1] < train[lowest]
    gap = float(val[-1] - train[-1]) / seen.base_loss - OF_ONE_ROW / math.sqrt(seen.telling_rows)
    has_turned = len(val) - lowest > len(val) / 5  # one that still falls is worth its gap
    is_apart = gap >= APART and has_turned and seen.progress() >= HARDLY_LEARNED
    is_blind = _is_blind(seen)
    if not (rises or is_apart or is_blind):
        return None
    return Finding(
        "overfitting",
        "serious" if rise > 3 * RISE or is_blind else "warning",
        (lowest + 1) * seen.steps_per_epoch,
        {"val_loss": float(val[-1]), "lowest_val_loss": float(val[lowest]), "train_loss": float(train[-1])},
    )


def underfitting(seen: Observations) -> Finding | None:
    """The loss has settled where the network fits its own training rows worse than their neighbours would."""
    nearby, train = seen.data.neighbourhoods, seen.loss("train")
    if (
        nearby is None
        or len(train) < SHORT
        or not seen.progress() >= HARDLY_LEARNED
        or _makes_few_steps(seen)
    ):
        return None
    gap = (seen.last("val/loss") - train[-1]) / seen.base_loss
    if not _missing(seen) >= BELOW or gap >= 2 * RISE or _late_fall(seen) / seen.base_loss > SETTLED:
        return None
    if oscillating(seen) is not None or batch_too_small(seen) is not None or _is_cut_short(seen):
        return None
    if has_rare_class(seen) and not seen.settings.weighs_classes:  # accuracy is the wrong measure then
        return None
    measured = (
        {
            "balanced_accuracy": seen.last("val/balanced_accuracy"),
            "balanced_accuracy_of_the_neighbours": nearby.balanced,
        }
        if seen.settings.weighs_classes
        else {"train_accuracy": seen.last("train/accuracy"), "accuracy_of_the_neighbours": nearby.attainable}
    )
    return Finding(
        "underfitting",
        "serious",
        _flat_since(seen, SETTLED),
        {**measured, "hidden_neurons": float(sum(seen.settings.hidden))},
    )


def label_noise(seen: Observations) -> Finding | None:
    """Rows carry other labels than all around them says even where that is surest, so that nobody can know them."""
    nearby = seen.data.neighbourhoods
    if nearby is None or nearby.noise < NOISY:
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
            "accuracy_of_the_neighbours": nearby.attainable,
        },
    )


def base_rate(seen: Observations) -> Finding | None:
    """The network knows little more than how frequent each class is."""
    if not seen.progress() < HARDLY_LEARNED or too_few_epochs(seen) is not None:
        return None
    if len(seen.loss("train")) < min(5, seen.settings.max_epochs):  # it has hardly begun
        return None
    # A loss that leaps says nothing of what the network could learn.
    if diverging(seen) is not None or oscillating(seen) is not None:
        return None
    return Finding(
        "base_rate",
        "fatal",
        0,
        {"train_loss": float(seen.loss("train")[-1]), "base_rate_loss": seen.base_loss},
    )


SYMPTOMS: dict[str, Symptom] = {
    symptom.__name__: symptom
    for symptom in (
        non_finite,
        symmetric_neurons,
        unscaled_features,
        saturated_neurons,
        exploding_gradient,
        dead_units,
        diverging,
        oscillating,
        batch_too_small,
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
    """What the symptom means, in one sentence: the docstring of its function."""
    return " ".join((SYMPTOMS[finding.symptom].__doc__ or "").split())


def _has_learned(seen: Observations) -> bool:
    """Whether the loss, or the accuracy beside that of the neighbours, says so."""
    if seen.progress() >= LEARNED:
        return True
    nearby = seen.data.neighbourhoods
    if nearby is None or not seen.progress() >= HARDLY_LEARNED:
        return False
    if nearby.attainable - seen.data.class_shares.max() < TELLING:
        return False
    return seen.last("train/accuracy") >= nearby.attainable - NEAR


def _is_blind(seen: Observations) -> bool:
    """Whether the network has learned its own rows, and of others knows less than the class shares."""
    # Few rare rows decide a weighed loss; where the neighbours know more of each class too, less will do.
    knows_less = seen.settings.weighs_classes and _missing(seen) >= BELOW
    return seen.progress() >= (HARDLY_LEARNED if knows_less else LEARNED) and seen.progress("val") < 0


def _is_harmless(seen: Observations) -> bool:
    """Whether what is unusual inside the network did not keep it from learning."""
    return _has_learned(seen) and not _is_blind(seen)


def _bears_longer_steps(seen: Observations) -> bool:
    """Whether steps along the last gradient that are many times longer would have been good ones, and not on a saddle."""
    # The longer step is the last to be asked for: it takes longer than all else.
    if seen.progress() >= LEARNED or not seen.longer_step >= LONGER_STEP:
        return False
    gain = seen.longer_step_gain / seen.base_loss
    has_hardly_moved = abs(_whole_fall(seen)) < FLAT * seen.base_loss
    # Whatever finds some of a rare class gains as much, or learns rows by heart; and strong decay takes back what is gained.
    gains_much = gain >= GAIN and not seen.settings.decays_strongly
    gains_much = gains_much and not (has_rare_class(seen) or _knows_as_neighbours(seen))
    if not (_late_share(seen) > STILL_FALLING or has_hardly_moved or gains_much):
        return False
    # On a saddle longer steps are better too: they fit single rows, and come to know next to nothing.
    is_above = max(seen.progress(), -gain) < -FLAT
    reaches = 1 - seen.loss("train")[-1] / seen.base_loss + gain >= HARDLY_LEARNED
    return bool(seen.output_signal >= SIGNAL or is_above or reaches or _is_where_it_began(seen))


def has_faded(seen: Observations) -> bool:
    """Whether a schedule has brought the rate down before the network knew what can be known."""
    knows = _has_learned(seen) and _missing(seen) < BELOW
    return _late_rate(seen) < FADED and not knows and not _is_unknowable(seen)


def _late_rate(seen: Observations) -> float:
    """The mean learning rate of the second half of the epochs, over the highest; 1 where none is known."""
    rates = seen.rates
    return float(rates[len(rates) // 2 :].mean() / rates.max()) if len(rates) and rates.max() > 0 else 1.0


def _epochs_of_steps(seen: Observations) -> int:
    """The epochs until the rate was below a third of its highest value for good."""
    return int(np.flatnonzero(seen.rates >= seen.rates.max() / 3)[-1]) + 1


def _is_cut_short(seen: Observations) -> bool:
    """Whether it has done so while the loss still fell, or before anybody could tell."""
    if not has_faded(seen):
        return False
    epochs = _epochs_of_steps(seen)
    until_then = replace(seen, series={**seen.series, "train/loss": seen.loss("train")[:epochs]})
    return epochs < SHORT or 5 * _late_fall(until_then) >= FLAT * seen.base_loss


def _is_far_below_usual(seen: Observations) -> bool:
    """Whether the rate is so low that it is at fault even on a saddle, where more can be known and no loss leaps."""
    lacks = seen.progress() < HARDLY_LEARNED or _missing(seen) >= BELOW
    is_idle = seen.settings.rate_over_usual <= FAR_BELOW and lacks
    return is_idle and diverging(seen) is None and oscillating(seen) is None


def _ends_too_soon(seen: Observations) -> bool:
    """Whether the run is at its end, and more epochs would still bring much."""
    loss = seen.loss("train")
    if len(loss) < max(1, seen.settings.max_epochs) and not seen.settings.stopped_hastily:
        return False
    # Of many classes half of the way is not yet what the neighbours know.
    if seen.progress() >= LEARNED and _missing(seen) < BELOW:
        return False
    pace = _late_fall(seen) / seen.base_loss
    # What knows as much as the neighbours may only be learning its rows by heart.
    is_fast = pace > (SETTLED if _has_learned(seen) else UNFINISHED)
    # So short a run cannot have settled where the neighbours know better.
    is_short = len(loss) < SHORT
    progress = seen.progress()
    has_hardly_learned = not progress >= HARDLY_LEARNED
    has_moved = not has_hardly_learned or 5 * pace >= FLAT
    is_behind = (is_short or _makes_few_steps(seen)) and has_moved and _missing(seen) >= BELOW
    # As many epochs again would double what it knows, and leave the base rate behind.
    has_begun = is_short and 5 * pace >= max(progress, HARDLY_LEARNED - min(progress, 0))
    if len(loss) == 1:  # which tells no pace: it fell from what it was before training
        is_fast, has_begun = False, has_begun and has_hardly_learned
    return has_begun or is_behind or (is_fast and not has_hardly_learned)


def _makes_few_steps(seen: Observations) -> bool:
    """Whether a network that may be large enough has made too few to tell."""
    return _last_step(seen) < FEW_STEPS and sum(seen.settings.hidden) >= ENOUGH_NEURONS


def _knows_as_neighbours(seen: Observations) -> bool:
    """Whether the network knows the classes of its training rows as well as their neighbours do."""
    nearby = seen.data.neighbourhoods
    return nearby is not None and seen.last("train/accuracy") >= nearby.attainable


def _is_unknowable(seen: Observations) -> bool:
    """Whether the neighbours of a row tell no more of its class than its share does, nor the contrary as in parity."""
    nearby = seen.data.neighbourhoods
    return nearby is not None and abs(nearby.attainable - seen.data.class_shares.max()) < TELLING


def _missing(seen: Observations) -> float:
    """By how much the neighbours of a row know its class better than the network does; 0 where nobody asked them."""
    nearby = seen.data.neighbourhoods
    if nearby is None:
        return 0.0
    if seen.settings.weighs_classes:
        lacks = nearby.balanced - seen.last("val/balanced_accuracy") - _chance(seen)
        return float(np.nan_to_num(lacks))
    held_out = float(np.nan_to_num(seen.last("val/accuracy")))
    # Few rows may be easier ones by chance.
    standard_error = math.sqrt(held_out * (1 - held_out) / seen.data.rows.get("val", 1))
    return nearby.attainable - max(seen.last("train/accuracy"), held_out - standard_error)


def _chance(seen: Observations) -> float:
    """The standard error of the balanced accuracy of the rows held out, where half of the rarest class is found."""
    shares = seen.data.class_shares
    return 0.5 / math.sqrt(max(1, shares.min() * seen.data.rows.get("val", 0))) / len(shares)


def _jump(loss: Floats) -> float:
    """The mean change of the loss in the second half of the epochs, but for what it falls in all; 0 if it does not turn.

    A fall that lasts is none of it, as where a network leaves a plateau late.
    """
    change = np.diff(loss[len(loss) // 2 :])
    way = np.sign(change)  # the product of two changes may overflow
    if len(change) < 3 or np.mean(way[1:] * way[:-1] < 0) < TURNS:
        return 0.0
    return float(2 * np.mean(change.clip(min=0)))


def has_rare_class(seen: Observations) -> bool:
    """Whether accuracy may hide that a class is missed."""
    shares = seen.data.class_shares
    return bool(shares.min() * len(shares) / 2 <= RARE)


def _jitter(loss: Floats) -> float:
    """How far the loss jumps about its own course in the second half of the epochs; 0 of too few.

    From its second differences, which a smooth course hardly has. Values that are independent about it differ so much
    from one to the next in the mean.
    """
    changes = np.diff(loss[len(loss) // 2 :], 2)
    return float(np.abs(changes).mean() / math.sqrt(3)) if len(changes) > 1 else 0.0


def _first_rise(seen: Observations, least: float) -> int:
    """The end of the first epoch whose loss is higher by so much of the base-rate loss, or as much as any."""
    change = np.diff(seen.loss("train")) / seen.base_loss
    return (int(np.argmax(change >= min(least, change.max()))) + 2) * seen.steps_per_epoch


def _flat_since(seen: Observations, within: float) -> int:
    """The end of the epoch from which on the loss changes no more than by so much of the base-rate loss."""
    backwards = seen.loss("train")[::-1]
    spread = np.maximum.accumulate(backwards) - np.minimum.accumulate(backwards)
    return int(len(spread) + 1 - np.count_nonzero(spread <= within * seen.base_loss)) * seen.steps_per_epoch


def _is_where_it_began(seen: Observations) -> bool:
    """Whether the weights have hardly moved from their start, so that it is no saddle that holds them."""
    return all(
        np.linalg.norm(after.weight - before.weight) < UNMOVED * np.linalg.norm(before.weight)
        for before, after in zip(seen.start, seen.end, strict=True)
    )


def _last_step(seen: Observations) -> int:
    return len(seen.series.get("train/loss", ())) * seen.steps_per_epoch


def _by_progress(seen: Observations) -> Severity:
    return "serious" if seen.progress() >= HARDLY_LEARNED else "fatal"


def _first_over_last(layers: list[LayerState]) -> float:
    last = layers[-1].rms_delta
    return layers[0].rms_delta / last if last > 0 else float("nan")


def _late_share(seen: Observations) -> float:
    """The share of the loss's whole fall that falls in the last fifth of the epochs."""
    whole = _whole_fall(seen)
    return float(_late_fall(seen) / whole) if whole > 0 else 0.0


def _whole_fall(seen: Observations) -> float:
    """By how much the loss fell; of a run that hardly knows more than the class shares without the fall to these.

    That comes soon, and is all there is where nobody can know more.
    """
    loss = seen.loss("train")
    has_more_to_learn = -FLAT < seen.progress() < HARDLY_LEARNED and not _is_unknowable(seen)
    return float((min(loss[0], seen.base_loss) if has_more_to_learn else loss[0]) - loss[-1])


def _late_fall(seen: Observations) -> float:
    """By how much the loss fell in the last fifth of the epochs, at the pace of whole epochs."""
    loss = seen.loss("train")
    epochs = max(1, len(loss) // 5)
    before = loss[-1 - epochs] if len(loss) > 1 else seen.start_loss
    return float(before - loss[-1]) / epochs * len(loss) / 5


def _copies(layer: LayerState) -> list[int]:
    """The neurons whose weights and bias another one has too."""
    rows = np.concatenate([layer.bias[:, None], layer.weight], axis=1)
    size = np.maximum(rows.max(axis=1, keepdims=True), -rows.min(axis=1, keepdims=True)).astype(np.float64)
    if not np.isfinite(size).all():
        return []
    # Of each neuron's own size: beside one that has run away all others look the same.
    size = size.clip(min=np.finfo(np.float32).tiny)
    neurons = np.arange(len(rows))
    for columns in (FEW_WEIGHTS, rows.shape[1]):  # a few tell nearly all apart
        scaled = np.append(rows[neurons, :columns] / size[neurons], np.log(size[neurons]), axis=1)
        neurons = neurons[_repeated(np.round(scaled / SAME).astype(np.int64))]
    return neurons.tolist()


def _repeated(rows: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Of each row, whether another one is the same."""
    # One number for each, by chance the same for others with a probability of 2⁻⁶³: rows take long to sort.
    draw = np.random.default_rng(0).integers(-(2**63), 2**63, rows.shape[1], dtype=np.int64)
    _, which, counts = np.unique((rows * (draw | 1)).sum(axis=1), return_inverse=True, return_counts=True)
    repeated: NDArray[np.bool_] = counts[which] > 1
    return repeated
