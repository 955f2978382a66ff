"""What this process, and those it spawns, say on the terminal; and how they end."""

import logging
import os
import threading
import warnings

import torch
from lightning.pytorch.strategies import DDPStrategy

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
