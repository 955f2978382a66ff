"""Symptoms of the loss: how it moved, and where it came to rest."""

import math

import numpy as np

from backlight.diagnosis.course import (
    FLAT,
    PARTS,
    SHORT,
    epochs_of_steps,
    first_rise,
    flat_since,
    has_faded,
    is_cut_short,
    jitter,
    jump,
    last_step,
    late_fall,
    late_rate,
    late_share,
    whole_fall,
)
from backlight.diagnosis.finding import Finding, by_progress
from backlight.diagnosis.knowledge import (
    BELOW,
    HARDLY_LEARNED,
    LEARNED,
    has_learned,
    has_rare_class,
    is_blind,
    is_unknowable,
    knows_as_neighbours,
    knows_the_little_there_is,
    missing,
    surely_tells_others,
)
from backlight.diagnosis.observations import Observations

DROWNED, FEW = 0.5, 16
"""Of a batch's gradient, its square over its variance: the noise is well above the signal. And the rows of such a batch:
32 are the usual number, and seldom too few (Masters & Luschi 2018, arXiv:1804.07612)."""

TOO_HIGH = 30
"""Times the usual rate, from which on a run diverges whatever its batches: of 35 that did so at lower rates with too small
ones 32 do not with 32 rows at the same rate, of 15 at higher rates 4."""

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

NEARLY_USUAL = 0.32
"""Of the usual rate, a third at most when rounded, which does no harm (Bengio 2012). Of 17 runs of fewer than SHORT epochs
at such rates that bear longer steps, 6 were healthy at a higher rate, with a loss of 0.47 in the mean, and 14 in ten times
as many epochs, with 0.31."""

SIGNAL = 1.0
"""Of the gradient that tells classes apart, its square over its variance, which pure noise would have too. Up to 0.4 on a
saddle, where it is of single rows, and 1.9 and more where only the learning rate is at fault (calibration set)."""

UNMOVED = 0.01
"""The longest way of a layer's weights, over their size: 0.0004 to 0.009 at rates of 1e-6, 0.025 and more on saddles and
where the gradient vanishes (calibration set, and 44 more runs)."""

FEW_STEPS, ENOUGH_NEURONS = 500, 8
"""Of the optimizer, and hidden ones: fewer steps tell nothing of what so many neurons can fit. Of 28 runs that were said to
underfit 27 come further in ten times as many epochs, 26 further than with a second layer. Fewer neurons (1 to 4)
do not."""

SETTLED = 0.05
"""Fall of the loss over the last fifth of the epochs, relative to the base-rate loss: at that pace, as many epochs again
would gain a quarter of what is there to gain."""

UNFINISHED = 0.02
"""The same of a run that is not at its end: as many epochs again would gain twice what HARDLY_LEARNED is. No healthy run
that has learned what others learn of its rows has more (calibration set). Of 54 runs that knew as much as the neighbours,
and whose losses of training and other rows fell so fast, 43 come lower on these by 0.05 of the base-rate loss and more in
ten times as many epochs; of 50 whose loss of other rows fell more slowly 20."""

MANY_NEURONS = 16
"""Hidden ones, which are not said to be too few while the loss falls by more than UNFINISHED: of 61 such runs 49 are healthy
after ten times as many epochs, and 37 with a second layer; of 61 with fewer neurons 21 and 51."""

RISE, RISE_ROWS = 0.1, 150
"""Rise of the validation loss from its lowest value, relative to the base-rate loss. The mean of 150 rows has a
standard error of about 0.06 of it; both values are of the same rows, so chance moves their difference by less. Of
fewer rows, by the root of their number more."""

UNLEARNED = 0.15
"""Of what the network knew of the validation rows, the share that it has lost: where it knew little, less than RISE is much.
Of 12 runs on 1,400 to 5,600 rows that lost so much, and beyond chance, what helps against overfitting gains all 0.004 to
0.064 of the base-rate loss, and nine 0.02 and more."""

APART, OF_ONE_ROW = 0.3, 0.6
"""How far the validation loss lies above the training loss at the end, relative to the base-rate loss and beyond the
standard error of the mean over its rows, of which one has that of so much: of 400 runs on 100 to 1,000 rows, 12 whose
validation loss neither falls any more nor has risen lie so far apart, and what helps against overfitting gains 10 of them
0.05 and more."""

JUMP, JUMP_OF_BOTH = 0.035, 0.05
"""Mean change of the loss from one epoch to the next, relative to the base-rate loss, of a run that jumps about: up to
0.018 in healthy runs whose loss turns, 0.053 and more in nine of ten at too high a rate (calibration set). And the geometric
mean of that and the same of the validation loss, which is no mean over the steps of an epoch and so jumps farther; over the
progress, of which less than LITTLE counts as so much: up to 0.036 in healthy runs, 0.055 and more at too high a rate."""

JITTER, LITTLE = 0.03, 0.4
"""By how much the losses of training and validation rows jump about their own course, the geometric mean of both, over
the progress, of which less than LITTLE counts as so much. Of 800 runs with batches of 1 to 8 rows and any rate it finds
0.90 of those that batches of 32 rows make better by a tenth of the base-rate loss, and 0.07 of those that they do not."""

RISEN = 1.1
"""Final loss over the base-rate loss: worse than knowing nothing, by more than the noise of one epoch. Or over that of a
network that says ½ of every class, `log 2`."""

LOST = 0.2
"""Progress that a run had made which ends below HARDLY_LEARNED: four times as much, so no noise about that."""


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
    jumps = {part: jump(seen.loss(part)) / seen.base_loss for part in PARTS}
    of_both = math.sqrt(math.prod(jumps.values())) / max(seen.progress(), LITTLE)
    # Of few epochs or rows, smaller jumps are chance.
    are_many = len(seen.loss("train")) >= SHORT and seen.data.rows.get("val", 0) >= RISE_ROWS
    if jumps["train"] < JUMP and not (are_many and of_both >= JUMP_OF_BOTH):
        return None
    if batch_too_small(seen) is not None:
        return None
    return Finding(
        "oscillating",
        by_progress(seen),
        first_rise(seen, JUMP),
        {
            **{f"mean_jump_of_{part}_loss_over_base_rate_loss": far for part, far in jumps.items() if far},
            "base_rate_loss": seen.base_loss,
        },
    )


def batch_too_small(seen: Observations) -> Finding | None:
    """The loss jumps up and down because the few rows of a batch hardly show where the gradient points."""
    if seen.batch_signal >= DROWNED or seen.settings.batch_size >= FEW:
        return None
    losses = {part: seen.loss(part) for part in PARTS}
    jitters = {part: jitter(loss) / seen.base_loss for part, loss in losses.items() if len(loss)}
    least = JITTER * max(seen.progress(), LITTLE)
    if not jitters or math.prod(jitters.values()) < least ** len(jitters):
        return None
    is_second = seen.settings.rate_over_usual >= TOO_HIGH and diverging(seen) is not None
    return Finding(
        "batch_too_small",
        "serious" if is_second else by_progress(seen),
        first_rise(seen, least),
        {
            "signal_over_noise_of_a_batch": seen.batch_signal,
            **{f"jitter_of_{part}_loss_over_base_rate_loss": far for part, far in jitters.items()},
        },
    )


def learning_rate_too_low(seen: Observations) -> Finding | None:
    """Steps are much shorter than they could be: training ends far from where longer ones would lead."""
    if len(seen.loss("train")) < max(2, min(5, seen.settings.max_epochs)):  # of an unfinished run five epochs
        return None
    if _memorises(seen):  # longer steps would only learn more by heart
        return None
    bears_longer, cut_short = _bears_longer_steps(seen), is_cut_short(seen)
    is_at_fault = bears_longer or cut_short or _is_far_below_usual(seen)
    if not is_at_fault and not has_faded(seen):
        return None
    is_usual = seen.settings.rate_over_usual >= NEARLY_USUAL
    if is_usual and len(seen.loss("train")) < SHORT and _ends_too_soon(seen) and not cut_short:
        return None
    # A saddle may hold others too.
    is_certain = bears_longer or plateau(seen) is None or seen.settings.rate_over_usual <= FAR_BELOW / 10
    severity = by_progress(seen) if is_certain else "serious"
    return Finding(
        "learning_rate_too_low",
        severity if is_at_fault else "warning",
        epochs_of_steps(seen) * seen.steps_per_epoch if has_faded(seen) else 0,
        {
            **({"rate_of_the_second_half_over_the_highest": late_rate(seen)} if has_faded(seen) else {}),
            **(
                {
                    "times_longer_step_that_is_better": seen.longer_step,
                    "what_it_would_gain": seen.longer_step_gain,
                }
                if bears_longer
                else {}
            ),
            **({} if is_usual else {"rate_over_the_usual_one": seen.settings.rate_over_usual}),
            "share_of_the_fall_in_the_last_fifth": late_share(seen),
            "progress": seen.progress(),
        },
    )


def too_few_epochs(seen: Observations) -> Finding | None:
    """Training ended far from where it might have led: while the loss still fell, or after few steps."""
    if not _ends_too_soon(seen) or learning_rate_too_low(seen) is not None or oscillating(seen) is not None:
        return None
    fall, lacks = late_fall(seen), missing(seen)
    return Finding(
        "too_few_epochs",
        "warning" if seen.progress() >= HARDLY_LEARNED else "fatal",
        last_step(seen),
        {
            **({"fall_in_the_last_fifth_over_base_rate_loss": fall / seen.base_loss} if fall > 0 else {}),
            "base_rate_loss": seen.base_loss,
            "progress": seen.progress(),
            **({"accuracy_below_the_attainable_one": lacks} if lacks >= BELOW else {}),
        },
    )


def plateau(seen: Observations) -> Finding | None:
    """The loss has stopped far from its floor: a saddle or a local minimum, as XOR has (Rumelhart et al. 1986)."""
    loss = seen.loss("train")
    if len(loss) < SHORT or has_learned(seen) or _bears_longer_steps(seen) or is_cut_short(seen):
        return None
    if _makes_few_steps(seen) and _ends_too_soon(seen):
        return None
    if underfitting(seen) is not None or (is_unknowable(seen) and seen.progress() < HARDLY_LEARNED):
        return None
    late = loss[len(loss) // 2 :]
    change = float(late.max() - late.min()) / seen.base_loss
    if change > FLAT:
        return None
    return Finding(
        "plateau",
        by_progress(seen),
        flat_since(seen, FLAT),
        {
            "relative_change_in_the_last_half": change,
            "base_rate_loss": seen.base_loss,
            "progress": seen.progress(),
        },
    )


def overfitting(seen: Observations) -> Finding | None:
    """The network learns its own rows and others less: the validation loss rises or stays where the training loss falls."""
    train, val = seen.loss("train"), seen.loss("val")
    if len(val) < 3 or len(train) != len(val):
        return None
    lowest = int(val.argmin())
    rise = float(val[-1] - val[lowest]) / seen.base_loss
    enough = RISE * math.sqrt(max(1, RISE_ROWS / seen.telling_rows))
    rises = rise >= enough and train[-1] < train[lowest]
    has_learned_any = seen.progress() >= HARDLY_LEARNED
    known = 1 - float(val[lowest]) / seen.base_loss
    # Who stops as soon as it rises has lost what a few epochs do.
    unlearns = has_learned_any and rise >= UNLEARNED * known and not seen.settings.stopped_hastily
    blind = is_blind(seen)
    tells_none = blind and "val/accuracy" in seen.series and not surely_tells_others(seen)
    if not (rises or (unlearns and _has_turned(seen)) or _is_apart(seen) or blind):
        return None
    return Finding(
        "overfitting",
        "serious" if rise > 3 * RISE or blind else "warning",
        (lowest + 1) * seen.steps_per_epoch,
        {
            "val_loss": float(val[-1]),
            "lowest_val_loss": float(val[lowest]),
            "train_loss": float(train[-1]),
            **(_what_it_knows(seen) if tells_none else {}),
        },
    )


def _what_it_knows(seen: Observations) -> dict[str, float | str]:
    """Of its own rows and of others, beside the most frequent class."""
    accuracies = {f"{part}_accuracy": seen.last(f"{part}/accuracy") for part in ("train", "val")}
    return {**accuracies, "most_frequent_share": float(seen.data.class_shares.max())}


def underfitting(seen: Observations) -> Finding | None:
    """The loss has settled where the network fits its own training rows worse than a simple rule would."""
    nearby, train = seen.data.neighbourhoods, seen.loss("train")
    # Through a single neuron no more can pass than two sides of a plane, which may be nothing; others may be on a saddle.
    may_settle = seen.progress() >= HARDLY_LEARNED or 1 in seen.settings.hidden
    if nearby is None or len(train) < SHORT or not may_settle or _makes_few_steps(seen):
        return None
    gap = (seen.last("val/loss") - train[-1]) / seen.base_loss
    if not missing(seen) >= BELOW or gap >= 2 * RISE:
        return None
    settled = UNFINISHED if sum(seen.settings.hidden) >= MANY_NEURONS else SETTLED
    if late_fall(seen) / seen.base_loss > settled:
        return None
    if oscillating(seen) is not None or batch_too_small(seen) is not None or is_cut_short(seen):
        return None
    if has_rare_class(seen) and not seen.settings.weighs_classes:  # accuracy is the wrong measure then
        return None
    measured = (
        {
            "balanced_accuracy": seen.last("val/balanced_accuracy"),
            "balanced_accuracy_of_the_neighbours": nearby.balanced,
        }
        if seen.settings.weighs_classes
        else {"train_accuracy": seen.last("train/accuracy"), "attainable_accuracy": nearby.attainable}
    )
    return Finding(
        "underfitting",
        by_progress(seen),
        flat_since(seen, SETTLED),
        {**measured, "hidden_neurons": float(sum(seen.settings.hidden))},
    )


def base_rate(seen: Observations) -> Finding | None:
    """The network knows little more than how frequent each class is."""
    if not seen.progress() < HARDLY_LEARNED or too_few_epochs(seen) is not None:
        return None
    if knows_the_little_there_is(seen):
        return None
    if seen.loss("train")[-1] > RISEN * max(seen.base_loss, math.log(2)):  # it is sure of what is wrong
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


def _bears_longer_steps(seen: Observations) -> bool:
    """Whether steps along the last gradient that are many times longer would have been good ones, and not on a saddle."""
    # The longer step is the last to be asked for: it takes longer than all else.
    if seen.progress() >= LEARNED or knows_the_little_there_is(seen) or not seen.longer_step >= LONGER_STEP:
        return False
    gain = seen.longer_step_gain / seen.base_loss
    has_hardly_moved = abs(whole_fall(seen)) < FLAT * seen.base_loss
    # Whatever finds some of a rare class gains as much, or learns rows by heart; and strong decay takes back what is gained.
    gains_much = gain >= GAIN and not seen.settings.decays_strongly
    gains_much = gains_much and not (has_rare_class(seen) or knows_as_neighbours(seen))
    if not (late_share(seen) > STILL_FALLING or has_hardly_moved or gains_much):
        return False
    # On a saddle longer steps are better too: they fit single rows, and come to know next to nothing.
    is_above = max(seen.progress(), -gain) < -FLAT
    reaches = 1 - seen.loss("train")[-1] / seen.base_loss + gain >= HARDLY_LEARNED
    return bool(seen.output_signal >= SIGNAL or is_above or reaches or _is_where_it_began(seen))


def _is_far_below_usual(seen: Observations) -> bool:
    """Whether the rate is so low that it is at fault even on a saddle, where more can be known and no loss leaps."""
    lacks = seen.progress() < HARDLY_LEARNED or missing(seen) >= BELOW
    is_idle = seen.settings.rate_over_usual <= FAR_BELOW and lacks
    return is_idle and diverging(seen) is None and oscillating(seen) is None


def _ends_too_soon(seen: Observations) -> bool:
    """Whether the run is at its end, and more epochs would still bring much."""
    loss = seen.loss("train")
    if len(loss) < max(1, seen.settings.max_epochs) and not seen.settings.stopped_hastily:
        return False
    if _memorises(seen):
        return False
    # Of many classes half of the way is not yet what the neighbours know.
    if seen.progress() >= LEARNED and missing(seen) < BELOW:
        return False
    pace = late_fall(seen) / seen.base_loss
    # What knows as much as the neighbours may only be learning its rows by heart, unless it comes to know others too.
    may_memorise = has_learned(seen) and late_fall(seen, "val") <= UNFINISHED * seen.base_loss
    is_fast = pace > (SETTLED if may_memorise else UNFINISHED)
    # So short a run cannot have settled where the neighbours know better.
    is_short = len(loss) < SHORT
    progress = seen.progress()
    has_hardly_learned = not progress >= HARDLY_LEARNED
    # Strong decay takes back what is gained.
    has_moved = not has_hardly_learned or (5 * pace >= FLAT and not seen.settings.decays_strongly)
    is_behind = (is_short or _makes_few_steps(seen)) and has_moved and missing(seen) >= BELOW
    # As many epochs again would double what it knows, and leave the base rate behind.
    has_begun = is_short and 5 * pace >= max(progress, HARDLY_LEARNED - min(progress, 0))
    if len(loss) == 1:  # which tells no pace: it fell from what it was before training
        is_fast, has_begun = False, has_begun and has_hardly_learned
    return has_begun or is_behind or (is_fast and not has_hardly_learned)


def _has_turned(seen: Observations) -> bool:
    """Whether the validation loss has risen by more than chance, and not for an epoch only, while the training loss fell."""
    train, val = seen.loss("train"), seen.loss("val")
    if len(val) < 3 or len(train) != len(val):
        return False
    lowest = int(val.argmin())
    rise = float(val[-max(1, len(val) // 5) :].min() - val[lowest]) / seen.base_loss
    return rise >= RISE * math.sqrt(RISE_ROWS / seen.telling_rows) and bool(train[-1] < train[lowest])


def _is_apart(seen: Observations) -> bool:
    """Whether the validation loss ends far above the training loss, and falls no more, which would be worth a gap."""
    train, val = seen.loss("train"), seen.loss("val")
    if len(val) < 3 or len(train) != len(val) or not seen.progress() >= HARDLY_LEARNED:
        return False
    gap = float(val[-1] - train[-1]) / seen.base_loss - OF_ONE_ROW / math.sqrt(seen.telling_rows)
    return gap >= APART and len(val) - int(val.argmin()) > len(val) / 5


def _memorises(seen: Observations) -> bool:
    """Whether a network that learns more of its own rows comes to know no more of others."""
    return _has_turned(seen) or _is_apart(seen)


def _makes_few_steps(seen: Observations) -> bool:
    """Whether a network that may be large enough has made too few to tell."""
    return last_step(seen) < FEW_STEPS and sum(seen.settings.hidden) >= ENOUGH_NEURONS


def _is_where_it_began(seen: Observations) -> bool:
    """Whether the weights have hardly moved from their start, so that it is no saddle that holds them."""
    return all(
        np.linalg.norm(after.weight - before.weight) < UNMOVED * np.linalg.norm(before.weight)
        for before, after in zip(seen.start, seen.end, strict=True)
    )
