"""Which rows train, which choose the best epoch, which judge."""

import numpy as np
from numpy.typing import NDArray
from sklearn.model_selection import GroupShuffleSplit, train_test_split

from backlight.data.source import PARTS, Ints, Labelled, Part
from backlight.data.stored import StoredRows, StoredTable
from backlight.errors import BacklightError

Split = dict[Part, Ints]

FEW_GROUPS = 3  # a class that fewer groups hold cannot be in every part


def split(source: Labelled, *, val_fraction: float, test_fraction: float, stratify: bool, seed: int) -> Split:
    """Row numbers of `train`, `val` and `test`; a part whose fraction is 0 is empty.

    With `stratify=False` and `val_fraction=0` these are the rows of
    `train_test_split(…, test_size=test_fraction, random_state=seed)`, in its order.

    Parts that the source itself names stay as they are: the fractions are taken of what it lets train. Rows
    that have an order are held out from its end; groups are held out whole, as many as are that
    fraction of the groups, except those that hold a class which fewer than three groups have.

    Raises:
        BacklightError: the fractions leave no training rows, or a class is absent from a part.
    """
    if val_fraction + test_fraction >= 1:
        raise BacklightError(
            f"data.val_fraction={val_fraction} and data.test_fraction={test_fraction}: their sum must be "
            "below 1, so that rows are left to train on"
        )
    labels, rows = source.labels, np.arange(len(source.labels))
    parts: Split = {"train": rows, "val": rows[:0], "test": rows[:0]}
    if source.parts is not None:
        parts = {part: rows[source.parts == number] for number, part in enumerate(PARTS)}
    if source.ordered_by is not None:
        parts["train"] = parts["train"][np.argsort(source.ordered_by[parts["train"]], kind="stable")]
    total = len(parts["train"])
    fractions: dict[Part, float] = {"test": test_fraction, "val": val_fraction}
    for part, fraction in fractions.items():
        count = int(np.ceil(fraction * total - 1e-9))
        if count == 0 or len(parts[part]):
            continue
        if source.ordered_by is not None:
            parts["train"], parts[part] = parts["train"][:-count], parts["train"][-count:]
        elif source.groups is not None:
            share = count / len(parts["train"])
            parts["train"], parts[part] = _whole_groups(
                parts["train"], source.groups, labels, share, seed, part
            )
        else:
            setting = f"data.{part}_fraction={fraction}"
            parts["train"], parts[part] = _at_random(parts["train"], source, count, stratify, seed, setting)
    if not _is_ours(source):
        # Whoever looks at the first rows shall see a sample.
        parts["train"] = np.random.default_rng(seed).permutation(parts["train"])
    _require_every_class(source, parts)
    return parts


def _at_random(
    rows: Ints, source: Labelled, count: int, stratify: bool, seed: int, setting: str
) -> list[Ints]:
    labels = source.labels
    if isinstance(source.rows, StoredRows | StoredTable) and stratify:
        return _spread(rows, labels, count, seed)
    try:
        halves: list[Ints] = train_test_split(
            rows, test_size=count, random_state=seed, stratify=labels[rows] if stratify else None
        )
        return halves
    except ValueError as error:
        sizes = np.bincount(labels, minlength=len(source.class_names))
        raise BacklightError(
            f"{setting}: {count} of {len(labels)} rows cannot hold every class and "
            f"leave some to train on; the rarest class, '{source.class_names[sizes.argmin()]}', has "
            f"{sizes.min()} rows and there are {len(source.class_names)} classes"
        ) from error


def _spread(rows: Ints, labels: Ints, count: int, seed: int) -> list[Ints]:
    """A stratified draw of many rows, for which `train_test_split` makes a Python object each.

    Every (n / count)-th of the rows, shuffled and then brought in the order of their classes.
    """
    shuffled = np.random.default_rng(seed).permutation(rows)
    by_class = shuffled[np.argsort(labels[shuffled], kind="stable")]
    drawn = np.zeros(len(rows), dtype=bool)
    drawn[(np.arange(count) * len(rows)) // count] = True
    return [by_class[~drawn], by_class[drawn]]


def _whole_groups(
    rows: Ints, groups: Ints, labels: Ints, share: float, seed: int, part: str
) -> tuple[Ints, Ints]:
    """The rows that stay, and those of about this share of the groups."""
    pairs = np.unique(np.stack([labels[rows], groups[rows]]), axis=1)
    rare = np.bincount(pairs[0])[pairs[0]] < FEW_GROUPS
    stays: NDArray[np.bool_] = np.isin(groups[rows], pairs[1][rare])
    movable = rows[~stays]
    names = np.unique(groups[movable])
    if len(names) < 2:
        raise BacklightError(
            f"data.{part}_fraction: {len(np.unique(groups[rows]))} groups are too few to hold some out whole"
        )
    count = min(max(1, round(share * len(names))), len(names) - 1)
    chosen = GroupShuffleSplit(n_splits=1, test_size=count, random_state=seed)
    kept, held_out = next(chosen.split(movable, groups=groups[movable]))
    return np.sort(np.concatenate([rows[stays], movable[kept]])), movable[held_out]


def _is_ours(source: Labelled) -> bool:
    """Whether rows are held out at random, one by one."""
    return source.groups is None and source.ordered_by is None and source.parts is None


def _require_every_class(source: Labelled, parts: Split) -> None:
    """Of grouped, ordered and given parts only the training part must have it: who made them may know better."""
    names = source.class_names
    counts = np.bincount(source.labels, minlength=len(names))
    for part, rows in parts.items():
        present = np.bincount(source.labels[rows], minlength=len(names))
        if present.min() == 0 and (part == "train" or (_is_ours(source) and len(rows) > 0)):
            missing = int(present.argmin())
            setting = (
                "data.val_fraction and data.test_fraction" if part == "train" else f"data.{part}_fraction"
            )
            raise BacklightError(
                f"{setting}: no row of class '{names[missing]}' ({counts[missing]} of {len(source.labels)} rows) "
                f"is left for the {part} part; every part needs every class"
            )
