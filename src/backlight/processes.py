"""What this process, and those it spawns, say on the terminal; and how they end."""

import logging
import multiprocessing
import os
import signal
import threading
import time
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, wait
from multiprocessing.synchronize import Event
from types import FrameType
from typing import Any, TypeVar

import torch
from lightning.pytorch.strategies import DDPStrategy

Item = TypeVar("Item")
Result = TypeVar("Result")

log = logging.getLogger(__name__)

MAY_FORK = "fork" in multiprocessing.get_all_start_methods()
SECONDS_BETWEEN_LOOKS = 0.1


def leave_the_terminal_to_us() -> None:
    """Send what Lightning logs to the log file; its warnings are about code, which the user did not write."""
    for name in ("lightning", "lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).handlers.clear()
    warnings.filterwarnings("ignore", module=r"lightning\.")
    os.environ.setdefault(
        "PYTHONWARNINGS", "ignore::FutureWarning"
    )  # for spawned processes, while they start
    # TensorBoard's writer hands its error (a full disk) to the next write, which reports it.
    threading.excepthook = _log_failed_thread


def leave_memory_as_it_is() -> None:
    """Spare what PyTorch does for determinism to memory that is about to be written: a pass over every result."""
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]  # undeclared


class HeldInterrupt:
    """Ctrl-C, held back until `raise_if_any` is called; a second one interrupts at once.

    Python raises `KeyboardInterrupt` after any instruction. In a queue's `put` that leaves the queue locked, or
    unlocked twice, and who comes to it next, as TensorBoard's writer when it is closed, may wait for ever.
    """

    def __init__(self) -> None:
        self._has_come = False

    def hold(self) -> None:
        """Begin, where Ctrl-C would interrupt this thread."""
        is_main = threading.current_thread() is threading.main_thread()
        if is_main and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            signal.signal(signal.SIGINT, self._take)

    def release(self) -> None:
        """Let Ctrl-C interrupt again.

        Raises:
            KeyboardInterrupt: it was pressed.
        """
        if signal.getsignal(signal.SIGINT) == self._take:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        self.raise_if_any()

    def raise_if_any(self) -> None:
        """Interrupt, where Ctrl-C was pressed.

        Raises:
            KeyboardInterrupt: it was pressed.
        """
        if self._has_come:
            raise KeyboardInterrupt

    def _take(self, number: int, frame: FrameType | None) -> None:
        self._has_come = True
        signal.signal(signal.SIGINT, signal.default_int_handler)


def forked_map(
    function: Callable[[Item], Result],
    items: Sequence[Item],
    at_least: int,
    meanwhile: Callable[[], object] = lambda: None,
) -> list[Result]:
    """`[function(item) for item in items]`, shared among forked processes of one thread each, as many as torch has.

    They inherit the function and the items as they are; results must be such that pickle takes. No Ctrl-C reaches
    them: where it has reached this process, or this process has died, they end after the item at hand, and
    `is_abandoned` tells a function that takes long.

    Args:
        function: must leave nothing in memory that the caller needs.
        items: its arguments.
        at_least: items for which forking is worth its while.
        meanwhile: is called ten times a second while they work.

    Raises:
        BrokenProcessPool: one was killed.
    """
    processes = min(torch.get_num_threads(), len(items))
    if processes < 2 or len(items) < at_least or not MAY_FORK:
        return [function(item) for item in items]
    _inherited[:] = [function, items]
    results: list[Result | None] = [None] * len(items)
    fork = multiprocessing.get_context("fork")
    interrupted = fork.Event()
    held = HeldInterrupt()
    held.hold()
    with ProcessPoolExecutor(
        processes, fork, initializer=_begin, initargs=(os.getpid(), interrupted)
    ) as pool:
        shares = [slice(first, None, processes) for first in range(processes)]
        futures = [pool.submit(_map_share, share) for share in shares]
        _inherited.clear()  # they were all forked at the first
        try:
            while wait(futures, SECONDS_BETWEEN_LOOKS).not_done:
                held.raise_if_any()
                meanwhile()
        except BaseException:
            interrupted.set()
            raise
        finally:
            held.release()
        for share, future in zip(shares, futures, strict=True):
            results[share] = future.result()
    return results  # type: ignore[return-value]  # the shares are all there is


def is_abandoned() -> bool:
    """Whether nobody waits any more for what this process, a forked one, is at."""
    return _abandoned()


def _begin(parent: int, interrupted: Event) -> None:
    global _abandoned
    _abandoned = lambda: interrupted.is_set() or os.getppid() != parent  # noqa: E731
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # OpenMP's other threads are not there after a fork, and whoever asks for them waits for ever.
    torch.set_num_threads(1)
    threading.Thread(target=_end_after, args=(parent,), daemon=True).start()


def _end_after(parent: int) -> None:
    """End this process, when nothing is at hand, once its parent has died: a pool's process would wait for ever."""
    while os.getppid() == parent:
        time.sleep(SECONDS_BETWEEN_LOOKS)
    with _at_hand:
        os._exit(1)


def _map_share(share: slice) -> list[Any]:
    function, items = _inherited
    with _at_hand:
        return [function(item) for item in items[share] if not is_abandoned()]


_at_hand = threading.Lock()
_inherited: list[Any] = []
"""What `forked_map` leaves to the processes it forks."""
_abandoned: Callable[[], bool] = lambda: False  # noqa: E731


def _log_failed_thread(failure: threading.ExceptHookArgs) -> None:
    log.info("A thread failed: %s: %s", failure.exc_type.__name__, failure.exc_value)


class SpawnedDDP(DDPStrategy):
    """Data-parallel training in spawned processes.

    They run `fit` alone: no second Hydra, no second log file.
    """

    def __init__(self) -> None:
        super().__init__(start_method="spawn")

    def setup_environment(self) -> None:
        leave_the_terminal_to_us()
        leave_memory_as_it_is()
        super().setup_environment()

    def teardown(self) -> None:
        super().teardown()
        # Left to the interpreter's exit, gloo's threads are sometimes still running and abort the process.
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()
