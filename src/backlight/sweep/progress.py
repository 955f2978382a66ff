"""How far a sweep has come."""

import multiprocessing
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

from rich import get_console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn


@contextmanager
def progress(what: str, total: int) -> Iterator[Callable[[int], None]]:
    """A bar in a terminal, and nothing elsewhere; gives what moves it on.

    Args:
        what: stands before it.
        total: where it ends.
    """
    console = get_console()
    bar = Progress(
        TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:>3.0f} %"),
        TimeRemainingColumn(compact=True), console=console, transient=True, disable=not console.is_terminal,
    )  # fmt: skip
    with bar:
        task = bar.add_task(what, total=total)
        yield lambda count: bar.advance(task, count)


class SharedProgress(ExitStack):
    """`progress` of what forked processes do; a context.

    Args:
        what, total: as for `progress`.
    """

    def __init__(self, what: str, total: int) -> None:
        super().__init__()
        self._what, self._total = what, total
        self._done = multiprocessing.get_context("fork").Value("q")
        self._shown = 0
        self._move: Callable[[int], None] | None = None

    def advance(self, count: int) -> None:
        """Tell, in a forked process, how far it has come."""
        with self._done.get_lock():
            self._done.value += count

    def show(self) -> None:
        """Show it, in the process that forked them: at first afterwards, for they would inherit the bar's locks."""
        if self._move is None:
            self._move = self.enter_context(progress(self._what, self._total))
        done = self._done.value
        self._move(done - self._shown)
        self._shown = done
