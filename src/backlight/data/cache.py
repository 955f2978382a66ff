"""What was decoded once is kept on disk, and read from there without filling memory."""

import hashlib
import logging
import os
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

log = logging.getLogger(__name__)


def cached(
    name: str, shape: tuple[int, ...], dtype: "np.dtype[Any]", fill: Callable[[NDArray[Any]], None]
) -> NDArray[Any]:
    """The array of this name from the cache, read-only and memory-mapped; filled now where it is not there.

    It lies in `backlight/` of the user's cache folder (`XDG_CACHE_HOME`), where it may be deleted any time.
    Where it cannot be written the array is in memory.

    Args:
        name: tells everything that the content depends on.
        shape, dtype: of the array.
        fill: is given the array to write to.
    """
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "backlight"
    path = folder / f"{name}.npy"
    kept = _read(path)
    if kept is not None and kept.shape == shape and kept.dtype == dtype:
        return kept
    temporary = ""
    try:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            handle, temporary = tempfile.mkstemp(suffix=".npy", dir=folder)
            os.close(handle)
            mapped = np.lib.format.open_memmap(temporary, mode="w+", dtype=dtype, shape=shape)
            _reserve(Path(temporary))
        except OSError as error:
            log.info("not cached: %s", error)
            array = np.empty(shape, dtype)
            fill(array)
            return array
        fill(mapped)
        mapped.flush()
        Path(temporary).replace(path)
    finally:
        if temporary:
            Path(temporary).unlink(missing_ok=True)
    whole: NDArray[Any] = np.load(path, mmap_mode="r")
    return whole


def _read(path: Path) -> NDArray[Any] | None:
    """The array of a file; None where it is not there, or damaged."""
    try:
        kept: NDArray[Any] = np.load(path, mmap_mode="r")
        return kept
    except (OSError, ValueError, EOFError):
        return None


def _reserve(path: Path) -> None:
    """Have the disk hold all of the file: writing to mapped pages for which it has no room would kill the process.

    Raises:
        OSError: it has no room.
    """
    if hasattr(os, "posix_fallocate"):  # not on macOS
        with path.open("r+b") as file:
            os.posix_fallocate(file.fileno(), 0, path.stat().st_size)


def fingerprint(files: Iterable[str], settings: object) -> str:
    """Of these files, as they are now, and of the settings: 64 hexadecimal digits."""
    digest = hashlib.sha256(repr(settings).encode())
    for file in files:
        path = Path(file)
        stat = path.stat()
        digest.update(f"{path.resolve()}\0{stat.st_size}\0{stat.st_mtime_ns}\n".encode())
    return digest.hexdigest()
