"""Folders with one sub-folder of files per class."""

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from backlight.data.source import Ints
from backlight.errors import BacklightError

PART_FOLDERS = {"train": 0, "training": 0, "val": 1, "valid": 1, "validation": 1, "test": 2, "testing": 2}


@dataclass(frozen=True)
class Folder:
    """Files with their classes.

    Attributes:
        files: `[n]`
        classes: `[n]`, the class of each.
        parts: `[n]` index into `PARTS` where the folder has a sub-folder for each part, else None.
    """

    files: list[Path]
    classes: list[str]
    parts: Ints | None

    @property
    def class_names(self) -> list[str]:
        return sorted(set(self.classes))


def read_folder(path: str, suffixes: Collection[str], what: str) -> Folder:
    """Files in one sub-folder per class; or in `train`, `val` and `test`, each with one sub-folder per class.

    Args:
        path: the folder.
        suffixes: of the files to take, in lower case; others are left out.
        what: they are called in messages.

    Raises:
        BacklightError: there is no such folder, or no file in some class, or only one class.
    """
    root = Path(path)
    if not root.is_dir():
        raise BacklightError(
            f"data.path={path}: no such folder; give one with a sub-folder of {what} per class"
        )
    tops = _folders(root)
    by_part = bool(tops) and all(top.name.lower() in PART_FOLDERS for top in tops)
    places = [(top, PART_FOLDERS[top.name.lower()]) for top in tops] if by_part else [(root, 0)]
    files, classes, parts = [], [], []
    for place, part in places:
        for folder in _folders(place):
            found = files_in(folder, suffixes)
            if not found:
                raise BacklightError(
                    f"data.path={path}: the class '{folder.name}' holds no {what} in {folder}; "
                    f"allowed: {', '.join(sorted(suffixes))}"
                )
            files += found
            classes += [folder.name] * len(found)
            parts += [part] * len(found)
    if len(set(classes)) < 2:
        raise BacklightError(
            f"data.path={path}: two or more sub-folders with {what} are needed, one per class; it has {len(set(classes))}"
        )
    return Folder(files, classes, np.array(parts, dtype=np.int64) if by_part else None)


def files_in(folder: Path, suffixes: Collection[str]) -> list[Path]:
    """At any depth, sorted; hidden ones are left out."""
    return sorted(
        file
        for file in folder.rglob("*")
        if file.suffix.lower() in suffixes and not file.name.startswith(".") and file.is_file()
    )


def files_at(path: Path, suffixes: Collection[str], what: str) -> list[Path]:
    """The file itself, or those in the folder.

    Raises:
        BacklightError: there are none, which `what` names.
    """
    files = files_in(path, suffixes) if path.is_dir() else [path] if path.is_file() else []
    if not files:
        raise BacklightError(f"{path}: no {what} there; give a file or a folder of {', '.join(suffixes)}")
    return files


def _folders(path: Path) -> list[Path]:
    return sorted(entry for entry in path.iterdir() if entry.is_dir() and not entry.name.startswith("."))
