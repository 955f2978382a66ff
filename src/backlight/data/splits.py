"""Which rows train, which choose the best epoch, which judge."""

import numpy as np
from numpy.typing import NDArray
from sklearn.model_selection import train_test_split

from backlight.errors import BacklightError

Split = dict[str, NDArray[np.int64]]


def split(
    labels: NDArray[np.int64],
    class_names: list[str],
    *,
    val_fraction: float,
    test_fraction: float,
    stratify: bool,
    seed: int,
) -> Split:
    """Row numbers of `train`, `val` and `test`; a part whose fraction is 0 is empty.

    With `stratify=False` and `val_fraction=0` these are the rows of
    `train_test_split(…, test_size=test_fraction, random_state=seed)`, in its order.

    Raises:
        BacklightError: the fractions leave no training rows, or a class is absent from a part.
    """
    if val_fraction + test_fraction >= 1:
        raise BacklightError(
            f"data.val_fraction={val_fraction} and data.test_fraction={test_fraction}: their sum must be "
            "below 1, so that rows are left to train on"
        )
    rows = np.arange(len(labels))
    parts = {"train": rows, "val": rows[:0], "test": rows[:0]}
    for part, fraction in (("test", test_fraction), ("val", val_fraction)):
        count = int(np.ceil(fraction * len(labels) - 1e-9))
        if count == 0:
            continue
        try:
            parts["train"], parts[part] = train_test_split(
                parts["train"],
                test_size=count,
                random_state=seed,
                stratify=labels[parts["train"]] if stratify else None,
            )
        except ValueError as error:
            sizes = np.bincount(labels, minlength=len(class_names))
            raise BacklightError(
                f"data.{part}_fraction={fraction}: {count} of {len(labels)} rows cannot hold every class and "
                f"leave some to train on; the rarest class, '{class_names[sizes.argmin()]}', has {sizes.min()} "
                f"rows and there are {len(class_names)} classes"
            ) from error
    _require_every_class(labels, class_names, parts)
    return parts


def _require_every_class(labels: NDArray[np.int64], class_names: list[str], parts: Split) -> None:
    counts = np.bincount(labels, minlength=len(class_names))
    for part, rows in parts.items():
        present = np.bincount(labels[rows], minlength=len(class_names))
        if present.min() == 0 and (len(rows) > 0 or part == "train"):
            missing = int(present.argmin())
            setting = (
                "data.val_fraction and data.test_fraction" if part == "train" else f"data.{part}_fraction"
            )
            raise BacklightError(
                f"{setting}: no row of class '{class_names[missing]}' ({counts[missing]} of {len(labels)} rows) "
                f"is left for the {part} part; every part needs every class"
            )
