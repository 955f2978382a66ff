"""The loss of a network that has learned the class shares only, beside which the others are judged."""

from weakref import WeakKeyDictionary

from backlight.data.module import ClassificationData
from backlight.data.stored import SAMPLE_ROWS
from backlight.diagnosis.measure import constant_loss
from backlight.loss import BinaryCrossEntropy


def base_loss(data: ClassificationData, loss: BinaryCrossEntropy) -> float:
    """The loss of knowing the class shares only, on the first training rows; those of a sweep often share it.

    It moves by 0.003 from sample to sample of so many rows, with 256 by 0.02.
    """
    known, weight = _base_losses.setdefault(data, {}), loss.class_weight
    key = (loss.label_smoothing, str(weight))
    if key not in known:
        y = data.part("train")[1][:SAMPLE_ROWS]
        known[key] = constant_loss(loss.targets(y), None if weight is None else weight.cpu()).item()
    return known[key]


_base_losses: WeakKeyDictionary[ClassificationData, dict[tuple[float, str], float]] = WeakKeyDictionary()
