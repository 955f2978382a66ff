"""Arrays in NumPy's files."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from backlight.data import stored
from backlight.data.source import Ints, Labelled, labelled
from backlight.data.stored import ROWS_AT_ONCE, StoredRows
from backlight.errors import BacklightError

LABELS = ("y", "labels", "label", "targets", "target")
Arrays = dict[str, NDArray[Any]]


def arrays(seed: int, *, path: str, labels: str | None = None) -> Labelled:
    """Rows of numbers in NumPy's files; many of them stay on disk.

    Args:
        seed: not used; the files are what they are.
        path: a `.npy` file `[n, features]`, or a `.npz` file with such an array x and the labels y.
        labels: beside a `.npy` file, another one `[n]`.

    Raises:
        BacklightError: the files cannot be read, or do not fit each other.
    """
    place = Path(path)
    if place.suffix.lower() == ".npz":
        found = read_npz(place)
        rows, of_rows = (
            pick(found, ("x", "data", "features"), place, "features"),
            pick(found, LABELS, place, "labels"),
        )
    elif labels is None:
        raise BacklightError(f"data.labels: {path} needs a second .npy file, of the class of every row")
    else:
        rows, of_rows = read_npy(place), read_npy(Path(labels))
    if rows.ndim != 2 or rows.dtype.kind not in "iufb":
        raise BacklightError(
            f"{path}: is {list(rows.shape)} of {rows.dtype}; allowed: [n, features] of numbers"
        )
    if len(of_rows) != len(rows):
        raise BacklightError(f"{path}: has {len(rows)} rows and {len(of_rows)} labels; allowed: as many")
    codes, class_names = classes_of(np.asarray(of_rows), place)
    names = [f"x{column}" for column in range(rows.shape[1])]
    if rows.size <= stored.STORED_VALUES or not isinstance(rows, np.memmap):
        return labelled(rows, codes, names, class_names)
    on_disk = StoredRows(place, np.arange(len(rows)))
    for number, some in enumerate(on_disk.split(ROWS_AT_ONCE)):
        is_wrong = ~some.isfinite().all(dim=1)
        if is_wrong.any():
            row = number * ROWS_AT_ONCE + int(is_wrong.int().argmax()) + 1
            raise BacklightError(
                f"{path}: row {row} holds a value that is not a finite number; allowed: finite"
            )
    return Labelled(on_disk, codes, names, class_names)


def read_npy(path: Path) -> NDArray[Any]:
    """The array of the file, memory-mapped.

    Raises:
        BacklightError: the file is absent, damaged, or holds Python objects.
    """
    if not path.is_file():
        raise BacklightError(f"{path}: no such file")
    try:
        mapped: NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
        return mapped
    except (OSError, ValueError, EOFError) as error:
        raise BacklightError(
            f"{path}: cannot be read as a .npy file of one plain array: {' '.join(str(error).split())}"
        ) from error


def read_npz(path: Path) -> Arrays:
    """Every array of the file; nothing is unpickled.

    Raises:
        BacklightError: the file is absent, damaged, or holds Python objects.
    """
    if not path.is_file():
        raise BacklightError(f"{path}: no such file")
    try:
        with np.load(path, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except (OSError, ValueError, BadZipFile, EOFError, AttributeError) as error:
        raise BacklightError(
            f"{path}: cannot be read as a .npz file of plain arrays: {' '.join(str(error).split())}"
        ) from error


def pick(arrays: Mapping[str, NDArray[Any]], names: tuple[str, ...], path: Path, what: str) -> NDArray[Any]:
    """The first array that has one of these names, in any case.

    Raises:
        BacklightError: none has.
    """
    lower = {name.lower(): array for name, array in arrays.items()}
    for name in names:
        if name in lower:
            return lower[name]
    raise BacklightError(
        f"{path}: holds no array of {what}; it has {', '.join(arrays) or 'none'}; allowed: {', '.join(names)}"
    )


def classes_of(labels: NDArray[Any], path: Path) -> tuple[Ints, list[str]]:
    """`[n]` the class of every row, and the classes, numbers in their order.

    Raises:
        BacklightError: fewer than two classes, or labels that are no whole numbers or texts.
    """
    if labels.ndim != 1 or not (labels.dtype.kind in "iubUS" or (labels == np.round(labels)).all()):
        raise BacklightError(f"{path}: labels must be one whole number or text per row")
    if labels.dtype.kind == "f":
        labels = labels.astype(np.int64)
    distinct, codes = np.unique(labels, return_inverse=True)
    classes = [str(label) for label in distinct.tolist()]
    if len(classes) < 2:
        raise BacklightError(
            f"{path}: every row is of class '{classes[0] if classes else ''}'; two are needed"
        )
    return codes.astype(np.int64), classes
