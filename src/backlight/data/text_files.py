"""Text files that may not be what they should be."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from backlight.errors import BacklightError


@contextmanager
def reading_text(path: Path) -> Iterator[None]:
    """While a text file is read: an error of it becomes a sentence.

    Raises:
        BacklightError: the file cannot be read, or is not UTF-8.
    """
    try:
        yield
    except UnicodeDecodeError as error:
        raise BacklightError(
            f"{path}: not UTF-8 text at byte {error.start}; save the file as UTF-8"
        ) from error
    except OSError as error:
        raise BacklightError(f"{path}: cannot be read: {error.strerror or error}") from error
