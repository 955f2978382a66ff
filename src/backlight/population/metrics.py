"""The metrics of `backlight.metrics`, of all members at once.

Each function gives what torchmetrics gives for every member: `[members]` from probabilities
`[members, rows]` of the positive class and labels `[members, rows]`, booleans or numbers, or for more than two classes
from `[members, rows, classes]`.
"""

import torch
from torch import Tensor
from torch.nn import functional

CALIBRATION_BINS = 15


def cheap_metrics(probabilities: Tensor, labels: Tensor) -> dict[str, Tensor]:
    """What is known of training rows."""
    return {"accuracy": _mean_of(_predicted(probabilities) == labels)}


def every_metric(probabilities: Tensor, labels: Tensor) -> dict[str, Tensor]:
    """What is known of rows held out, under the names of `backlight.metrics.every_metric`."""
    predicted = _predicted(probabilities)
    is_binary = probabilities.ndim == 2
    classes = 2 if is_binary else probabilities.shape[2]
    hits, wrong, missed = _counts(predicted, labels, classes)
    present = (hits + wrong + missed > 0).float()
    recall, f1 = _ratio(hits, hits + missed), _ratio(2 * hits, 2 * hits + wrong + missed)
    columns = probabilities[..., None] if is_binary else probabilities
    positives = (
        labels[..., None] == torch.arange(1 if is_binary else 0, classes, device=labels.device)
    ).float()
    area, precision = _ranking(columns.transpose(1, 2), positives.transpose(1, 2))
    confidence, right = (
        (probabilities, labels.float())
        if is_binary
        else (probabilities.amax(dim=2), (predicted == labels).float())
    )
    return {
        "accuracy": _mean_of(predicted == labels),
        "balanced_accuracy": _mean(recall, present),
        "f1": f1[:, 1] if is_binary else _mean(f1, present),
        "auroc": area.mean(dim=1),
        "average_precision": precision.nan_to_num().squeeze(1) if is_binary else precision.nanmean(dim=1),
        "calibration_error": _calibration_error(confidence, right),
    }


def _mean_of(hits: Tensor) -> Tensor:
    """`[members]` of booleans `[members, rows]`."""
    return hits.sum(dim=1) / hits.shape[1]


def _predicted(probabilities: Tensor) -> Tensor:
    return probabilities > 0.5 if probabilities.ndim == 2 else probabilities.argmax(dim=2)


def _counts(predicted: Tensor, labels: Tensor, classes: int) -> tuple[Tensor, Tensor, Tensor]:
    """True positives, false positives and false negatives `[members, classes]`."""
    members = torch.arange(len(labels), device=labels.device)[:, None] * classes**2
    cells = (members + labels * classes + predicted).flatten()
    table = torch.bincount(cells, minlength=len(labels) * classes**2).reshape(-1, classes, classes)
    hits = table.diagonal(dim1=1, dim2=2)
    return hits.float(), (table.sum(dim=1) - hits).float(), (table.sum(dim=2) - hits).float()


def _ratio(part: Tensor, whole: Tensor) -> Tensor:
    return torch.where(whole > 0, part / whole, 0.0)


def _mean(values: Tensor, weights: Tensor) -> Tensor:
    return (values * weights).sum(dim=1) / weights.sum(dim=1)


def _ranking(scores: Tensor, positives: Tensor) -> tuple[Tensor, Tensor]:
    """The area under the ROC curve and the average precision `[members, classes]`.

    Args:
        scores, positives: `[members, classes, rows]`
    """
    scores, order = scores.sort(dim=-1, descending=True)
    hits = positives.gather(-1, order).double().cumsum(dim=-1)
    alarms = torch.arange(1, scores.shape[-1] + 1, device=scores.device) - hits
    # A curve has a point where the score changes; until there, rows of one score are taken together.
    ends = functional.pad(scores[..., 1:] != scores[..., :-1], (0, 1), value=True)
    row = torch.arange(scores.shape[-1], device=scores.device)
    last = torch.where(ends, row, scores.shape[-1]).flip(-1).cummin(dim=-1).values.flip(-1)
    hits, alarms = hits.gather(-1, last), alarms.gather(-1, last)
    zero = torch.zeros_like(hits[..., :1])
    gained = torch.diff(hits, dim=-1, prepend=zero)
    crossed = torch.diff(alarms, dim=-1, prepend=zero)
    before = hits - gained / 2
    area = _ratio((crossed * before).sum(dim=-1), hits[..., -1] * alarms[..., -1])
    precision = (gained * hits / (hits + alarms)).sum(dim=-1) / hits[..., -1]
    return area.float(), precision.float()


def _calibration_error(confidence: Tensor, right: Tensor) -> Tensor:
    """Guo et al. 2017: the mean gap between confidence and accuracy over 15 bins."""
    edges = torch.linspace(0, 1, CALIBRATION_BINS + 1, device=confidence.device)
    bins = torch.bucketize(confidence, edges, right=True) - 1
    sums = torch.zeros(len(confidence), CALIBRATION_BINS + 1, device=confidence.device)
    gap = sums.scatter_add(1, bins, confidence - right)
    return gap.abs().sum(dim=1) / confidence.shape[1]
