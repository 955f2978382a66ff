"""Metrics of a classifier, from torchmetrics, for two classes and for more."""

import warnings

import numpy as np
import torch
from torch import Tensor, distributed
from torchmetrics import MetricCollection
from torchmetrics.functional.classification import (
    binary_auroc,
    binary_average_precision,
    binary_calibration_error,
    binary_f1_score,
    multiclass_accuracy,
    multiclass_auroc,
    multiclass_average_precision,
    multiclass_calibration_error,
    multiclass_f1_score,
)
from torchmetrics.retrieval import RetrievalHitRate, RetrievalNormalizedDCG
from torchmetrics.utilities.distributed import gather_all_tensors

from backlight.data.source import JudgedBy
from backlight.loss import BinaryCrossEntropy
from backlight.probabilities import labels_of, predicted, probabilities

METRICS = ("accuracy", "auroc", "average_precision", "balanced_accuracy", "calibration_error", "f1")
"""Of rows held out, beside the loss."""


def every_metric(probability: Tensor, labels: Tensor) -> dict[str, Tensor]:
    """Accuracy, balanced accuracy, F1, AUROC, average precision and expected calibration error: the `METRICS`.

    Balanced accuracy is the mean of the recalls of all classes (Brodersen et al. 2010). For more than two classes F1,
    AUROC and average precision are means over the classes, and the calibration error is that of the predicted class
    (Guo et al. 2017).

    Args:
        probability: `[rows]` of the positive class, or `[rows, classes]`.
        labels: `[rows]` int64.
    """
    guess = predicted(probability)
    classes = 2 if probability.ndim == 1 else probability.shape[1]
    found = {
        "accuracy": multiclass_accuracy(guess, labels, classes, average="micro", validate_args=False),
        "balanced_accuracy": multiclass_accuracy(
            guess, labels, classes, average="macro", validate_args=False
        ),
    }
    if probability.ndim == 1:
        found |= {
            "f1": binary_f1_score(probability, labels, validate_args=False),
            "auroc": binary_auroc(probability, labels, validate_args=False),
            "average_precision": binary_average_precision(probability, labels, validate_args=False),
            "calibration_error": binary_calibration_error(probability, labels, validate_args=False),
        }
    else:
        found |= {
            "f1": multiclass_f1_score(guess, labels, classes, validate_args=False),
            "auroc": multiclass_auroc(probability, labels, classes, validate_args=False),
            "average_precision": multiclass_average_precision(
                probability, labels, classes, validate_args=False
            ),
            "calibration_error": multiclass_calibration_error(
                probability, labels, classes, validate_args=False
            ),
        }
    return {name: found[name] for name in METRICS}


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


class EpochMetrics:
    """Mean loss and every metric of all rows since the last `compute`, in all processes.

    Args:
        loss: from logits and targets to a mean.
    """

    def __init__(self, loss: BinaryCrossEntropy) -> None:
        self.loss = loss
        self._kept: list[tuple[Tensor, Tensor]] = []
        # A class may be absent where whole groups, or the last rows, are held out: means leave it out.
        warnings.filterwarnings("ignore", category=UserWarning, module="torchmetrics")

    def update(self, logits: Tensor, y: Tensor) -> None:
        """Add rows: logits and targets `[rows, outputs]`."""
        self._kept.append((logits, y))

    def compute(self) -> dict[str, Tensor]:
        """`loss` and, where that is finite, the `METRICS`; forgets the rows."""
        logits, y = (_of_all_processes(torch.cat(tensors)) for tensors in zip(*self._kept, strict=True))
        self._kept = []
        loss = self.loss(logits, y)
        metrics = every_metric(probabilities(logits), labels_of(y)) if loss.isfinite() else {}
        return {"loss": loss, **metrics}


class EpochMeans:
    """Mean loss and accuracy of all rows since the last `compute`, in all processes.

    To measure takes longer than a step of a small network, so rows are kept as they come and measured many at a time.

    Args:
        loss: from logits and targets to a mean.
    """

    ENTRIES_AT_ONCE = 2**17  # logits: more do not fit into a core's cache

    def __init__(self, loss: BinaryCrossEntropy) -> None:
        self.loss = loss
        self._kept: list[tuple[Tensor, Tensor]] = []
        self._kept_entries = 0
        self._sums: list[Tensor] = []
        """Of many rows at a time the loss, how many were right, and how many there were."""

    def update(self, logits: Tensor, y: Tensor) -> None:
        """Add rows: logits and targets `[rows, outputs]`."""
        self._kept.append((logits, y))
        self._kept_entries += y.numel()
        if self._kept_entries >= self.ENTRIES_AT_ONCE:
            self._add_up()

    def compute(self) -> dict[str, Tensor]:
        """`loss` and `accuracy`; forgets the rows."""
        if self._kept:
            self._add_up()
        sums = torch.stack(self._sums).sum(dim=0)
        self._sums = []
        if _are_several_processes():
            distributed.all_reduce(sums)
        loss, right, rows = sums
        return {"loss": loss / rows, "accuracy": right / rows}

    def _add_up(self) -> None:
        logits, y = (torch.cat(tensors) for tensors in zip(*self._kept, strict=True))
        self._kept, self._kept_entries = [], 0
        right = (predicted(probabilities(logits)) == labels_of(y)).sum()
        self._sums.append(
            torch.stack([self.loss(logits, y, batch_size=1), right, right.new_full((), len(y))])
        )


def _are_several_processes() -> bool:
    return distributed.is_available() and distributed.is_initialized()


def _of_all_processes(rows: Tensor) -> Tensor:
    return torch.cat(gather_all_tensors(rows)) if _are_several_processes() else rows


def number(value: Tensor | np.float32) -> float:
    """The shortest decimal number that is this float32: 0.1, not 0.10000000149011612."""
    if isinstance(value, Tensor):
        return float(str(value.detach().cpu().numpy().astype(np.float32)))
    return float(str(value))
