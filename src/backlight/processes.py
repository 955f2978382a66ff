"""What this process, and those it spawns, say on the terminal; and how they end."""

import logging
import multiprocessing
import os
import signal
import threading
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import Any, TypeVar

import torch
from lightning.pytorch.strategies import DDPStrategy

Item = TypeVar("Item")
Result = TypeVar("Result")

log = logging.getLogger(__name__)


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


def forked_map(function: Callable[[Item], Result], items: Sequence[Item], at_least: int) -> list[Result]:
    """`[function(item) for item in items]`; see `start_forked_map`."""
    return start_forked_map(function, items, at_least)()


def start_forked_map(
    function: Callable[[Item], Result], items: Sequence[Item], at_least: int
) -> Callable[[], list[Result]]:
    """Begin with `[function(item) for item in items]`; returns what waits for it, which must be called before the next.

    It is shared among forked processes, as many as torch has threads. They inherit the function and the items as
    they are now; results must be such that pickle takes. An interruption does not reach them; where this process has
    died they end after the item at hand.

    Args:
        function: must leave nothing in memory that the caller needs.
        items: its arguments.
        at_least: items for which forking is worth its while.
    """
    processes = torch.get_num_threads()
    if processes == 1 or len(items) < at_least or "fork" not in multiprocessing.get_all_start_methods():
        done = [function(item) for item in items]
        return lambda: done
    _inherited[:] = [function, items, os.getpid()]
    pool = ProcessPoolExecutor(processes, multiprocessing.get_context("fork"), initializer=_begin)
    shares = [slice(first, None, processes) for first in range(processes)]
    found = pool.map(_map_share, shares)  # which forks them all
    _inherited.clear()

    def wait() -> list[Result]:
        results: list[Result | None] = [None] * len(items)
        with pool:
            for share, some in zip(shares, found, strict=True):
                results[share] = some
        return results  # type: ignore[return-value]  # the shares are all there is

    return wait


def _begin() -> None:
    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _map_share(share: slice) -> list[Any]:
    function, items, parent = _inherited
    return [function(item) for item in items[share] if os.getppid() == parent]


_inherited: list[Any] = []
"""What `start_forked_map` leaves to the processes it forks."""


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
        super().setup_environment()

    def teardown(self) -> None:
        super().teardown()
        # Left to the interpreter's exit, gloo's threads are sometimes still running and abort the process.
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()
