"""Importing what takes seconds to import."""

import gc
from importlib import import_module
from types import ModuleType


def import_heavy(name: str) -> ModuleType:
    """Import a module that brings half a million objects with it.

    They stay until the process ends, so nothing is gained by looking for garbage among them: not meanwhile,
    not in later collections and not at the end, where it would take a second.
    """
    gc.disable()
    try:
        return import_module(name)
    finally:
        gc.freeze()
        gc.enable()
