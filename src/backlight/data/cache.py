"""What was decoded once is kept on disk, and read from there without filling memory."""

import hashlib
import logging
import math
import os
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

HEADER_BYTES = 4096  # of a .npy file, at most

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
    if path.exists():
        kept: NDArray[Any] = np.load(path, mmap_mode="r")
        if kept.shape == shape and kept.dtype == dtype:
            return kept
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(suffix=".npy", dir=folder)
        try:  # writing to mapped pages of a full disk would kill the process
            os.posix_fallocate(handle, 0, HEADER_BYTES + math.prod(shape) * dtype.itemsize)
        except OSError:
            Path(temporary).unlink()
            raise
        finally:
            os.close(handle)
    except OSError as error:
        log.info("not cached: %s", error)
        array = np.empty(shape, dtype)
        fill(array)
        return array
    try:
        mapped = np.lib.format.open_memmap(temporary, mode="w+", dtype=dtype, shape=shape)
        fill(mapped)
        mapped.flush()
        Path(temporary).replace(path)
    finally:
        Path(temporary).unlink(missing_ok=True)
    whole: NDArray[Any] = np.load(path, mmap_mode="r")
    return whole


def fingerprint(files: Iterable[str], settings: object) -> str:
    """Of these files, as they are now, and of the settings: 64 hexadecimal digits."""
    digest = hashlib.sha256(repr(settings).encode())
    for file in files:
        path = Path(file)
        stat = path.stat()
        digest.update(f"{path.resolve()}\0{stat.st_size}\0{stat.st_mtime_ns}\n".encode())
    return digest.hexdigest()
