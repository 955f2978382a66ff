"""What the network of a run knows, beside what can be known of its rows.

"The neighbours" are whoever goes by these or, where they are lost among features, by a polynomial; see `Neighbourhoods`.
"""

import math

import numpy as np

from backlight.diagnosis.observations import Observations

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

SURELY = 3
"""Standard errors of an accuracy, beyond which it is no chance."""

RARE = 0.1
"""Share of the rarest class times the number of classes over 2, below which accuracy hides it: of two classes, predicting
the frequent one is then right on more than nine rows of ten."""


def has_learned(seen: Observations) -> bool:
    """Whether the loss, or the accuracy beside that of the neighbours, says so."""
    if seen.progress() >= LEARNED:
        return True
    nearby = seen.data.neighbourhoods
    if nearby is None or not seen.progress() >= HARDLY_LEARNED:
        return False
    if nearby.attainable - seen.data.class_shares.max() < TELLING:
        return False
    return seen.last("train/accuracy") >= nearby.attainable - NEAR


def is_blind(seen: Observations) -> bool:
    """Whether the network has learned its own rows, and of others knows less than the class shares, or not surely more."""
    # Few rare rows decide a weighed loss; where the neighbours know more of each class too, less will do.
    knows_less = seen.settings.weighs_classes and missing(seen) >= BELOW
    if seen.progress() >= (HARDLY_LEARNED if knows_less else LEARNED) and seen.progress("val") < 0:
        return True
    most = seen.data.class_shares.max()
    # A loss of soft targets hardly falls before training ends.
    tells_its_own = seen.last("train/accuracy") - most >= LEARNED * (1 - most)
    return bool(tells_its_own) and seen.progress("val") < HARDLY_LEARNED and not surely_tells_others(seen)


def surely_tells_others(seen: Observations) -> bool:
    """Whether of the rows held out the network surely knows more than the class shares, by its accuracy or its loss.

    Where outputs lie near the shares, a loss that is lower by g nats has a standard error of √(2g/n) over n rows, as the
    ratio of two likelihoods has.
    """
    most, rows = seen.data.class_shares.max(), max(1.0, seen.telling_rows)
    gain = seen.base_loss - seen.last("val/loss")
    return bool(
        seen.last("val/accuracy") > most + SURELY * math.sqrt(most * (1 - most) / rows)
        or gain > 2 * SURELY**2 / rows
    )


def is_harmless(seen: Observations) -> bool:
    """Whether what is unusual inside the network did not keep it from learning."""
    return has_learned(seen) and not is_blind(seen)


def knows_as_neighbours(seen: Observations) -> bool:
    """Whether the network knows the classes of its training rows as well as their neighbours do."""
    nearby = seen.data.neighbourhoods
    return nearby is not None and seen.last("train/accuracy") >= nearby.attainable


def is_unknowable(seen: Observations) -> bool:
    """Whether the neighbours of a row tell no more of its class than its share does, nor the contrary as in parity."""
    nearby = seen.data.neighbourhoods
    return nearby is not None and abs(nearby.attainable - seen.data.class_shares.max()) < TELLING


def knows_the_little_there_is(seen: Observations) -> bool:
    """Whether little can be known of the rows, as of many wrong labels, and the network knows that, of others too."""
    return is_unknowable(seen) and knows_as_neighbours(seen) and surely_tells_others(seen)


def missing(seen: Observations) -> float:
    """By how much the neighbours of a row know its class better than the network does; 0 where nobody asked them."""
    nearby = seen.data.neighbourhoods
    if nearby is None:
        return 0.0
    if seen.settings.weighs_classes:
        lacks = nearby.balanced - seen.last("val/balanced_accuracy") - chance(seen)
        return float(np.nan_to_num(lacks))
    held_out = float(np.nan_to_num(seen.last("val/accuracy")))
    # Few rows may be easier ones by chance.
    standard_error = math.sqrt(held_out * (1 - held_out) / seen.data.rows.get("val", 1))
    return nearby.attainable - max(seen.last("train/accuracy"), held_out - standard_error)


def chance(seen: Observations) -> float:
    """The standard error of the balanced accuracy of the rows held out, where half of the rarest class is found."""
    shares = seen.data.class_shares
    return 0.5 / math.sqrt(max(1, shares.min() * seen.data.rows.get("val", 0))) / len(shares)


def has_rare_class(seen: Observations) -> bool:
    """Whether accuracy may hide that a class is missed."""
    shares = seen.data.class_shares
    return bool(shares.min() * len(shares) / 2 <= RARE)
