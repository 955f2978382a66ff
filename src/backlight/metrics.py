"""Metrics of a classifier, all from torchmetrics, for two classes and for more."""

from typing import Any

import torch
from torch import Tensor
from torchmetrics import MetricCollection
from torchmetrics.classification import (
    BinaryAccuracy,
    BinaryAUROC,
    BinaryAveragePrecision,
    BinaryCalibrationError,
    BinaryF1Score,
    MulticlassAccuracy,
    MulticlassAUROC,
    MulticlassAveragePrecision,
    MulticlassCalibrationError,
    MulticlassF1Score,
)


class BinaryBalancedAccuracy(MulticlassAccuracy):
    """Mean of sensitivity and specificity (Brodersen et al. 2010), from the positive class's probability."""

    def __init__(self) -> None:
        super().__init__(num_classes=2, average="macro")

    def update(self, preds: Tensor, target: Tensor) -> None:
        super().update((preds > 0.5).long(), target)


def accuracy(num_outputs: int) -> MetricCollection:
    """The one metric that is cheap enough for every training epoch."""
    return MetricCollection(
        {"accuracy": BinaryAccuracy() if num_outputs == 1 else MulticlassAccuracy(num_outputs, average="micro")}
    )


def every_metric(num_outputs: int) -> MetricCollection:
    """Accuracy, balanced accuracy, F1, AUROC, average precision and expected calibration error.

    For more than two classes F1, AUROC and average precision are means over the classes, and the
    calibration error is that of the predicted class (Guo et al. 2017).
    """
    if num_outputs == 1:
        metrics: dict[str, Any] = {
            "accuracy": BinaryAccuracy(),
            "balanced_accuracy": BinaryBalancedAccuracy(),
            "f1": BinaryF1Score(),
            "auroc": BinaryAUROC(),
            "average_precision": BinaryAveragePrecision(),
            "calibration_error": BinaryCalibrationError(),
        }
    else:
        metrics = {
            "accuracy": MulticlassAccuracy(num_outputs, average="micro"),
            "balanced_accuracy": MulticlassAccuracy(num_outputs, average="macro"),
            "f1": MulticlassF1Score(num_outputs),
            "auroc": MulticlassAUROC(num_outputs),
            "average_precision": MulticlassAveragePrecision(num_outputs),
            "calibration_error": MulticlassCalibrationError(num_outputs),
        }
    return MetricCollection(metrics, compute_groups=False)


def probabilities(logits: Tensor) -> Tensor:
    """What the metrics and the user are given: `[rows]` of the positive class, or `[rows, classes]`.

    One-vs-rest sigmoids are divided by their sum, so that each row adds up to 1.
    """
    p = torch.sigmoid(logits)
    if p.shape[1] == 1:
        return p[:, 0]
    # All outputs can underflow to 0 together; the softmax of log σ(z) is the same ratio without that.
    return torch.softmax(torch.nn.functional.logsigmoid(logits), dim=1)


def labels_of(y: Tensor) -> Tensor:
    """`[rows]` class index of targets `[rows, outputs]`."""
    return y[:, 0].long() if y.shape[1] == 1 else y.argmax(dim=1)


def predicted(probability: Tensor) -> Tensor:
    """`[rows]` class index of what `probabilities` returned."""
    return (probability > 0.5).long() if probability.ndim == 1 else probability.argmax(dim=1)
