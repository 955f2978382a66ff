"""`summary.json`: what came of a run."""

import hashlib
import platform
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib.metadata import version
from typing import Any

import torch

from backlight.checkpoint import read_checkpoint
from backlight.files import to_yaml
from backlight.run_folder import RunFolder

PACKAGES = ("backlight", "torch", "lightning", "hydra-core", "scikit-learn", "numpy")


def blank(seed: int, config: str) -> dict[str, Any]:
    """The summary of a run of which nothing is known yet; failed until it has completed.

    Args:
        seed: of the run.
        config: resolved, as YAML.
    """
    return {
        "status": "failed",
        "error": None,
        "metrics": {},
        "diagnosis": [],
        "seed": seed,
        "steps": 0,
        "epochs": 0,
        "seconds": 0.0,
        "device": None,
        "threads": torch.get_num_threads(),
        "versions": dict(_versions()),
        "config_hash": hashlib.sha256(config.encode()).hexdigest()[:16],
    }


@cache
def _versions() -> dict[str, str]:
    return {"python": platform.python_version()} | {name: version(name) for name in PACKAGES}


@contextmanager
def recorded(folder: RunFolder, config: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Write the summary of the run inside this block, however the block ends.

    Yields the summary; the block adds what it knows (`metrics`, `diagnosis`, `device`).
    """
    folder.summary.unlink(missing_ok=True)  # it speaks of a part of the run that is now resumed
    summary = blank(config["seed"], to_yaml(config))
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
