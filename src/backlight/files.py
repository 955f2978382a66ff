"""Files that appear whole or not at all."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from backlight.errors import BacklightError


@contextmanager
def whole_file(target: Path) -> Iterator[Path]:
    """Gives a path to write; when the block ends well, that file takes the place of `target`.

    Raises:
        BacklightError: the folder of `target` does not exist.
    """
    if not target.parent.is_dir():
        raise BacklightError(f"{target}: the folder {target.parent} does not exist; give one that does")
    temporary = target.with_name(f".{os.getpid()}.{target.name}")
    try:
        yield temporary
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)


def write_whole(target: Path, content: str | bytes) -> None:
    """Write a file (text as UTF-8); the old content stays until the new one is complete on disk."""
    with whole_file(target) as temporary, temporary.open("wb") as file:
        file.write(content.encode() if isinstance(content, str) else content)
        file.flush()
        os.fsync(file.fileno())
