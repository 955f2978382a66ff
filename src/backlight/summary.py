"""`summary.json`: what came of a run."""

import hashlib
import platform
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from typing import Any

import torch
from omegaconf import OmegaConf

from backlight.checkpoint import read_checkpoint
from backlight.run_folder import RunFolder

PACKAGES = ("backlight", "torch", "lightning", "hydra-core", "scikit-learn", "numpy")


@contextmanager
def recorded(folder: RunFolder, config: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Write the summary of the run inside this block, however the block ends.

    Yields the summary; the block adds what it knows (`metrics`, `diagnosis`, `device`).
    """
    folder.summary.unlink(missing_ok=True)  # it speaks of a part of the run that is now resumed
    summary: dict[str, Any] = {
        "status": "failed",
        "error": None,
        "metrics": {},
        "diagnosis": [],
        "seed": config["seed"],
        "steps": 0,
        "epochs": 0,
        "seconds": 0.0,
        "device": None,
        "threads": torch.get_num_threads(),
        "versions": {"python": platform.python_version()} | {name: version(name) for name in PACKAGES},
        "config_hash": hashlib.sha256(OmegaConf.to_yaml(config).encode()).hexdigest()[:16],
    }
    started = time.monotonic()
    try:
        yield summary
        summary["status"] = "completed"
    except (KeyboardInterrupt, SystemExit):
        summary["status"] = "interrupted"
        raise
    except BaseException as exception:
        summary["error"] = str(exception) or type(exception).__name__
        raise
    finally:
        if folder.checkpoint("last").exists():
            checkpoint = read_checkpoint(folder.checkpoint("last"))
            summary |= {"steps": checkpoint["global_step"], "epochs": checkpoint["epoch"] + 1}
        summary["seconds"] = round(time.monotonic() - started, 3)
        folder.write_summary(summary)
