"""CPU or GPU."""

from functools import cache
from typing import Literal

import torch
from lightning.fabric import Fabric
from lightning.pytorch.accelerators import CUDAAccelerator, MPSAccelerator

from backlight.errors import BacklightError

Accelerator = Literal["auto", "cpu", "gpu", "mps"]


def require_accelerator(name: Accelerator, key: str) -> None:
    """Raises a BacklightError that names the config key if this machine has no such accelerator."""
    cuda, mps = CUDAAccelerator.is_available(), MPSAccelerator.is_available()
    available = {"auto": True, "cpu": True, "gpu": cuda or mps, "mps": mps}
    if not available[name]:
        there = ", ".join(option for option, is_there in available.items() if is_there)
        raise BacklightError(f"{key}={name}: this machine has none; allowed here: {there}")


@cache
def device_of(name: Accelerator, key: str) -> torch.device:
    """The device that Lightning picks for one process."""
    require_accelerator(name, key)
    return Fabric(accelerator=name, devices=1).device
