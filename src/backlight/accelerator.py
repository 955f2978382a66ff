"""CPU or GPU."""

import os
from functools import cache
from pathlib import Path
from typing import Literal

import torch

from backlight.errors import BacklightError

Accelerator = Literal["auto", "cpu", "gpu", "mps"]


def require_accelerator(name: Accelerator, key: str) -> None:
    """Raises a BacklightError that names the config key if this machine has no such accelerator."""
    cuda, mps = torch.cuda.is_available(), torch.backends.mps.is_available()
    available = {"auto": True, "cpu": True, "gpu": cuda or mps, "mps": mps}
    if not available[name]:
        there = ", ".join(option for option, is_there in available.items() if is_there)
        raise BacklightError(f"{key}={name}: this machine has none; allowed here: {there}")


@cache
def device_of(name: Accelerator, key: str) -> torch.device:
    """The device that Lightning picks for one process."""
    require_accelerator(name, key)
    if not torch.cuda.is_available() and not torch.backends.mps.is_available():
        return torch.device("cpu")
    from lightning.fabric import Fabric  # takes seconds

    return Fabric(accelerator=name, devices=1).device


def free_bytes(device: torch.device) -> int:
    """Memory that is free: of a GPU, or of this machine, counting what files are cached in."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    for line in _lines(Path("/proc/meminfo")):
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []
