"""The exception that means: the user can mend this; and a hint how."""

import difflib
from collections.abc import Iterable


class BacklightError(Exception):
    """Bad input, said in one sentence that names the key or file, what was given and what is allowed.

    Entry points print the sentence and exit with code 2; they never show a traceback for it
    unless ``HYDRA_FULL_ERROR=1`` is set.
    """


def printable(text: str) -> str:
    """For a terminal: what would break the line or move its cursor, as a name of somebody's file may, becomes `?`."""
    return "".join(sign if sign.isprintable() else "?" for sign in text)


def nearest(name: str, names: Iterable[str]) -> str:
    """`"; did you mean 'x'?"` for the closest of `names`, else `"; allowed: x, y"`."""
    names = list(names)
    close = difflib.get_close_matches(name, names, n=1)
    if close:
        return f"; did you mean '{close[0]}'?"
    return f"; allowed: {', '.join(names)}" if names else ""
