"""Metrics of a classifier, all from torchmetrics, for two classes and for more."""

import warnings
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torchmetrics import MetricCollection, SumMetric
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
from torchmetrics.retrieval import RetrievalHitRate, RetrievalNormalizedDCG

from backlight.data.source import JudgedBy
from backlight.loss import BinaryCrossEntropy
from backlight.probabilities import labels_of, predicted, probabilities


class BinaryBalancedAccuracy(MulticlassAccuracy):
    """Mean of sensitivity and specificity (Brodersen et al. 2010), from the positive class's probability."""

    def __init__(self) -> None:
        super().__init__(num_classes=2, average="macro")

    def update(self, preds: Tensor, target: Tensor) -> None:
        super().update((preds > 0.5).long(), target)


def cheap_metrics(num_outputs: int) -> MetricCollection:
    """What costs little enough for every training epoch: the accuracy."""
    accuracy = BinaryAccuracy() if num_outputs == 1 else MulticlassAccuracy(num_outputs, average="micro")
    return MetricCollection({"accuracy": accuracy})


def every_metric(num_outputs: int) -> MetricCollection:
    """Accuracy, balanced accuracy, F1, AUROC, average precision and expected calibration error.

    For more than two classes F1, AUROC and average precision are means over the classes, and the
    calibration error is that of the predicted class (Guo et al. 2017).
    """
    # A class may be absent where whole groups, or the last rows, are held out: means leave it out.
    warnings.filterwarnings("ignore", category=UserWarning, module="torchmetrics")
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


RANKED = 10  # places at the top of a ranking


def group_metrics(logits: Tensor, y: Tensor, groups: Tensor, judged_by: JudgedBy) -> dict[str, Tensor]:
    """What rows of one group come to together, as a mean over groups.

    Of sentences the share in which every row is right. Of rankings how often the positive row is among the ten
    most probable, and its discounted gain there (HR@10 and NDCG@10, He et al., WWW 2017).

    Args:
        logits, y: `[rows, outputs]`
        groups: `[rows]` int64
        judged_by: what groups are.
    """
    probability, labels = probabilities(logits), labels_of(y)
    if judged_by == "sentence":
        wrong = predicted(probability) != labels
        of_group = groups.unique(return_inverse=True)[1]
        return {"sentence_accuracy": (of_group.bincount(wrong.double()) == 0).double().mean()}
    metrics = MetricCollection(
        {
            f"hit_rate_{RANKED}": RetrievalHitRate(top_k=RANKED),
            f"ndcg_{RANKED}": RetrievalNormalizedDCG(top_k=RANKED),
        }
    )
    found: dict[str, Tensor] = metrics(probability, labels, indexes=groups)
    return found


class EpochMetrics(nn.Module):
    """Mean loss and metrics of all rows seen since the last `compute`.

    Updating a metric costs more than a training step of a small network, so rows are kept as they
    come and go into the metrics many at a time.

    Args:
        loss: from logits and targets to a mean.
        metrics: of probabilities and labels.
    """

    ROWS_AT_ONCE = 65_536

    def __init__(self, loss: BinaryCrossEntropy, metrics: MetricCollection) -> None:
        super().__init__()
        self.loss = loss
        # Not MeanMetric: with nan_strategy="disable" torchmetrics 1.9 ignores the weights.
        self.loss_sum = SumMetric(nan_strategy="disable")
        self.num_rows = SumMetric(nan_strategy="disable")
        self.metrics = metrics
        self._kept: list[tuple[Tensor, Tensor]] = []
        self._kept_rows = 0

    def update(self, logits: Tensor, y: Tensor) -> None:
        """Add rows: logits and targets `[rows, outputs]`."""
        if len(y) == 0:  # a process's share of a batch smaller than the number of processes
            return
        self._kept.append((logits, y))
        self._kept_rows += len(y)
        if self._kept_rows >= self.ROWS_AT_ONCE:
            self._flush()

    def compute(self) -> dict[str, Tensor]:
        """`loss` and every metric over all processes; forgets the rows."""
        self._flush()
        values = {"loss": self.loss_sum.compute() / self.num_rows.compute()}
        if values["loss"].isfinite():  # torchmetrics has no answer for NaN probabilities
            values |= self.metrics.compute()
        for metric in (self.loss_sum, self.num_rows, self.metrics):
            metric.reset()
        return values

    def _flush(self) -> None:
        if not self._kept:
            return
        logits, y = (torch.cat(tensors) for tensors in zip(*self._kept, strict=True))
        self._kept, self._kept_rows = [], 0
        loss = self.loss(logits, y, batch_size=1)
        self.loss_sum.update(loss)
        self.num_rows.update(len(y))
        if loss.isfinite():  # else some logits are not, or the epoch's loss will not be
            self.metrics.update(probabilities(logits), labels_of(y))


def number(value: Tensor | np.float32) -> float:
    """The shortest decimal number that is this float32: 0.1, not 0.10000000149011612."""
    if isinstance(value, Tensor):
        return float(str(value.detach().cpu().numpy().astype(np.float32)))
    return float(str(value))
