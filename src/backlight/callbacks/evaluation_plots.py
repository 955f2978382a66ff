"""Pictures of how well the network tells the classes apart, drawn once from the test rows."""

from typing import TYPE_CHECKING, Literal

import numpy as np
from lightning.pytorch import Callback, LightningModule, Trainer
from numpy.typing import NDArray

from backlight.callbacks.lettering import names_as_they_are
from backlight.callbacks.reach import data_of, writer_of
from backlight.data.batches import logits_of
from backlight.probabilities import labels_of, predicted, probabilities
from backlight.ranges import Count

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


CURVE_ROWS = 50_000
"""Of more rows these many are drawn for the curves: a line through a million points looks the same and takes seconds."""


class EvaluationPlots(Callback):
    """Confusion matrix, ROC, precision-recall and calibration curves of the test part, for TensorBoard.

    Args:
        max_classes: with more classes than this the curves show only the most frequent ones.
    """

    def __init__(self, *, max_classes: Count = 10) -> None:
        self.max_classes = max_classes

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        writer = writer_of(trainer)
        if writer is None:
            return
        data = data_of(trainer)
        x, y = data.part("test")
        logits = logits_of(pl_module, x)
        probability = probabilities(logits)
        labels, guesses = labels_of(y).numpy(), predicted(probability).numpy()
        chance = _per_class(probability.numpy())
        frequent = np.argsort(-np.bincount(labels, minlength=len(data.class_names)))[: self.max_classes]
        shown = [1] if len(data.class_names) == 2 else sorted(frequent.tolist())
        with names_as_they_are():
            figures = {"confusion_matrix": confusion_matrix(labels, guesses, data.class_names)}
            if len(labels) > CURVE_ROWS:
                drawn = np.random.default_rng(0).choice(len(labels), CURVE_ROWS, replace=False)
                labels, chance = labels[drawn], chance[drawn]
            figures |= {
                "roc": roc(labels, chance, data.class_names, shown),
                "precision_recall": precision_recall(labels, chance, data.class_names, shown),
                "calibration": calibration(labels, chance),
            }
            for name, figure in figures.items():
                writer.add_figure(f"test/{name}", figure, trainer.global_step)


def _per_class(probability: NDArray[np.float32]) -> NDArray[np.float32]:
    """`[rows, classes]` of what `probabilities` returned."""
    return np.stack([1 - probability, probability], axis=1) if probability.ndim == 1 else probability


def _figure(layout: Literal["constrained"] | None = None) -> "Figure":
    # Not pyplot: it keeps every figure alive and picks a window system.
    from matplotlib.figure import Figure

    return Figure(figsize=(6, 5), dpi=100, layout=layout)


def _axes() -> "tuple[Figure, Axes]":
    figure = _figure()
    # A layout that is measured takes as long as to draw.
    return figure, figure.add_axes((0.11, 0.1, 0.86, 0.87))


def _explain(axes: "Axes", xlabel: str, ylabel: str) -> None:
    axes.set(xlabel=xlabel, ylabel=ylabel)
    axes.legend(fontsize="small")
    axes.grid(alpha=0.3)


def confusion_matrix(
    labels: NDArray[np.int64], guesses: NDArray[np.int64], class_names: list[str]
) -> "Figure":
    """Rows: true class; columns: predicted class; counts."""
    from sklearn.metrics import ConfusionMatrixDisplay

    figure = _figure("constrained")  # names of classes may be long
    axes = figure.subplots()
    ConfusionMatrixDisplay.from_predictions(
        labels,
        guesses,
        labels=np.arange(len(class_names)),
        display_labels=class_names,
        cmap="Blues",
        include_values=len(class_names) <= 20,
        xticks_rotation="vertical" if max(map(len, class_names)) > 3 else "horizontal",
        ax=axes,
    )
    return figure


def roc(
    labels: NDArray[np.int64], chance: NDArray[np.float32], class_names: list[str], shown: list[int]
) -> "Figure":
    """One class against the rest: true against false positives."""
    from sklearn.metrics import RocCurveDisplay

    figure, axes = _axes()
    for label in shown:
        RocCurveDisplay.from_predictions(labels == label, chance[:, label], name=class_names[label], ax=axes)
    _explain(axes, "false positive rate", "true positive rate")
    return figure


def precision_recall(
    labels: NDArray[np.int64], chance: NDArray[np.float32], class_names: list[str], shown: list[int]
) -> "Figure":
    """One class against the rest: precision against recall."""
    from sklearn.metrics import PrecisionRecallDisplay

    figure, axes = _axes()
    for label in shown:
        PrecisionRecallDisplay.from_predictions(
            labels == label, chance[:, label], name=class_names[label], ax=axes
        )
    _explain(axes, "recall", "precision")
    return figure


def calibration(labels: NDArray[np.int64], chance: NDArray[np.float32]) -> "Figure":
    """Share of right guesses against the predicted probability, in ten bins of equally many rows.

    For two classes the guess is the second class; for more it is the predicted class (Guo et al. 2017).
    """
    from sklearn.calibration import CalibrationDisplay

    is_binary = chance.shape[1] == 2
    confidence = chance[:, 1] if is_binary else chance.max(axis=1)
    right = labels == 1 if is_binary else labels == chance.argmax(axis=1)
    figure, axes = _axes()
    CalibrationDisplay.from_predictions(
        right, confidence, n_bins=10, strategy="quantile", pos_label=1, ax=axes
    )
    guess = "positive class" if is_binary else "predicted class"
    _explain(axes, f"mean probability of the {guess}", f"share of rows where the {guess} is right")
    return figure
