"""Arrays in `.npz` files."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from backlight.errors import BacklightError

Arrays = dict[str, NDArray[Any]]


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


def class_names_of(labels: NDArray[Any], path: Path) -> tuple[list[str], list[str]]:
    """The class of every row as text, and the classes, numbers in their order.

    Raises:
        BacklightError: fewer than two classes, or labels that are no whole numbers or texts.
    """
    if labels.ndim != 1 or not (labels.dtype.kind in "iubUS" or (labels == np.round(labels)).all()):
        raise BacklightError(f"{path}: labels must be one whole number or text per row")
    if labels.dtype.kind == "f":
        labels = labels.astype(np.int64)
    classes = [str(label) for label in np.unique(labels).tolist()]
    if len(classes) < 2:
        raise BacklightError(
            f"{path}: every row is of class '{classes[0] if classes else ''}'; two are needed"
        )
    return [str(label) for label in labels.tolist()], classes
