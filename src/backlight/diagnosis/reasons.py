"""What the numbers of a finding say, in words, each beside the mark that it is judged by."""

from contextlib import suppress
from typing import Final

from backlight.diagnosis.finding import Finding
from backlight.diagnosis.layer_symptoms import VANISHED
from backlight.diagnosis.loss_symptoms import DROWNED

REASONS: Final[dict[str, tuple[str, ...]]] = {
    "non_finite": (
        "{tensor} holds values that are not finite.",
        "{first_tensor} is the first tensor that one more step makes infinite or NaN.",
    ),
    "symmetric_neurons": (
        "{copies:g} of the {neurons:g} neurons there have the same weights as another one.",
    ),
    "unscaled_features": (
        "The largest standard deviation is {largest_over_smallest_deviation:,.0f} times the smallest.",
        "The mean of {farthest} is {farthest_mean_in_deviations:.3g} of its standard deviations away from 0.",
        "In {narrowest} half of the rows lie in a range {narrowest_middle_half_over_deviation:.2g} times as wide as its"
        " deviation lets expect, since a few lie far off.",
        "These never change: {constant}.",
    ),
    "saturated_neurons": ("{share_of_slopes_near_0:.0%} of the slopes there are below 0.05.",),
    "exploding_gradient": (
        "The deltas there are {first_over_last_rms_delta:.3g} times those of the output layer;"
        " up to {usual_at_most:g} times is usual.",
    ),
    "dead_units": ("{share:.0%} of the units there are silent on every row.",),
    "diverging": (
        "It was {lowest_loss:.3g} at its lowest and ends at {late_loss:.3g}; knowing the class shares only gives"
        " {base_rate_loss:.3g}.",
    ),
    "oscillating": (
        "From one epoch to the next it changes by {mean_jump_of_train_loss_over_base_rate_loss:.1%} of"
        " {base_rate_loss:.3g}, the loss of knowing the class shares only.",
        "On validation rows it changes by {mean_jump_of_val_loss_over_base_rate_loss:.1%} of that.",
    ),
    "batch_too_small": (
        "The signal-to-noise ratio of a batch's gradient, its squared length over its variance, is"
        f" {{signal_over_noise_of_a_batch:.2g}}; below {DROWNED:g} the noise drowns it.",
    ),
    "vanishing_gradient": (
        "The deltas there are {first_over_last_rms_delta:.1g} times those of the output layer;"
        f" more than {VANISHED:g} times is usual.",
    ),
    "learning_rate_too_low": (
        "In the second half of the epochs the schedule leaves {rate_of_the_second_half_over_the_highest:.1%} of the rate.",
        "A step {times_longer_step_that_is_better:,g} times as long would still lower the loss.",
        "The rate is {rate_over_the_usual_one:.1g} times the usual one.",
    ),
    "too_few_epochs": (
        "In the last fifth of the epochs it fell by {fall_in_the_last_fifth_over_base_rate_loss:.1%} of"
        " {base_rate_loss:.3g}, the loss of knowing the class shares only.",
        "Whoever goes by the nearest other rows, or by a polynomial, is right on {accuracy_below_the_attainable_one:.0%}"
        " more of the rows.",
    ),
    "plateau": (
        "In the second half of the epochs it moved by {relative_change_in_the_last_half:.1%} of {base_rate_loss:.3g}, the"
        " loss of knowing the class shares only.",
    ),
    "class_imbalance": (
        "The rarest class has {rarest_class_share:.1%} of the rows; accuracy is {accuracy:.0%}, but"
        " {balanced_accuracy:.0%} if every class counts the same.",
    ),
    "leakage": (
        "{share_of_val_rows_in_train:.0%} of the validation rows are training rows too.",
        "{share_of_test_rows_in_train:.0%} of the test rows are training rows too.",
    ),
    "underfitting": (
        "It is right on {train_accuracy:.0%} of its training rows; whoever goes by the rows nearest to each, or by a"
        " polynomial, is right on {attainable_accuracy:.0%}.",
        "If every class counts the same it is right on {balanced_accuracy:.0%} of the validation rows; whoever takes the"
        " class of the rows nearest to each is right on {balanced_accuracy_of_the_neighbours:.0%}.",
    ),
    "overfitting": (
        "The validation loss was {lowest_val_loss:.3g} at its lowest and ends at {val_loss:.3g}; the training loss ends at"
        " {train_loss:.3g}.",
        "It is right on {train_accuracy:.0%} of its own rows and on {val_accuracy:.0%} of others, where always naming the"
        " most frequent class is right on {most_frequent_share:.0%}: what it learned holds for its own rows only.",
    ),
    "label_noise": (
        "Neighbours contradict {share_of_labels_that_other_rows_contradict:.0%} of the labels where they agree best, the"
        " network {share_that_the_network_contradicts_where_it_is_surest:.0%} where it is surest.",
    ),
    "base_rate": ("Its loss is {train_loss:.3g}; knowing the class shares only gives {base_rate_loss:.3g}.",),
}
"""Of each symptom, sentences about its evidence."""


def reason(finding: Finding) -> str:
    """The sentences whose numbers were found."""
    said = []
    for sentence in REASONS[finding.symptom]:
        with suppress(KeyError):
            said.append(sentence.format_map(finding.evidence))
    return " ".join(said)
