"""Text in pictures."""

from contextlib import AbstractContextManager
from functools import cache
from pathlib import Path

from PIL import ImageFont


@cache
def font(size: int) -> ImageFont.FreeTypeFont:
    """Matplotlib's own, for Pillow."""
    from matplotlib import get_data_path

    return ImageFont.truetype(Path(get_data_path()) / "fonts/ttf/DejaVuSans.ttf", size)


def names_as_they_are() -> "AbstractContextManager[None]":
    """Within it matplotlib takes no name of a feature or a class for a formula, as one with two dollars might be."""
    from matplotlib import rc_context

    return rc_context({"text.parse_math": False})
