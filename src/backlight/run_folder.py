"""The folder of one run: what lies where in it, and how it is written."""

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hydra.conf import HydraConf
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from backlight.config import as_typed
from backlight.errors import BacklightError
from backlight.files import write_whole

NEEDED = (
    "seed", "data", "model.hidden", "model.activation", "loss", "optimizer.name", "optimizer.lr", "scheduler.name",
    "trainer.max_epochs", "callbacks",
)  # fmt: skip
"""Of the config of a run, for whoever reads it afterwards."""


class RunFolder:
    """Paths of a run folder.

    `summary.json` is written last and whole; a folder without one is a run that has not finished.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.config = self.path / ".hydra" / "config.yaml"
        self.tensorboard = self.path / "tensorboard"
        self.checkpoints = self.path / "checkpoints"
        self.metrics = self.path / "metrics.csv"
        self.backprop_picture = self.path / "backprop.png"
        self.summary = self.path / "summary.json"

    def checkpoint(self, name: str) -> Path:
        """The path of the checkpoint `best` or `last`."""
        return self.checkpoints / f"{name}.ckpt"

    def refuse_if_used(self) -> None:
        """Raises a BacklightError if a run has been here before, so that none is written over."""
        if self.config.exists() or self.summary.exists():
            raise BacklightError(
                f"hydra.run.dir={self.path}: already holds a run; give another folder, or resume={self.path} to go on"
            )

    def discard(self) -> None:
        """Delete what a run that did not finish left behind."""
        shutil.rmtree(self.path)

    @property
    def shown(self) -> str:
        """The path as a person types it: relative where that is shorter."""
        return min(str(self.path), os.path.relpath(self.path), key=len)

    def write_hydra(self, hydra: HydraConf) -> None:
        """Write `.hydra/`: the command line's overrides and Hydra's own settings.

        Hydra would do it itself, but before a refused or resumed run can be told from a new one.
        """
        self.config.parent.mkdir(parents=True, exist_ok=True)
        write_whole(self.config.with_name("overrides.yaml"), OmegaConf.to_yaml(hydra.overrides.task))
        write_whole(self.config.with_name("hydra.yaml"), OmegaConf.to_yaml({"hydra": hydra}))

    def write_config(self, config: DictConfig) -> None:
        """Write `.hydra/config.yaml`, the task config as it is composed, interpolations and all."""
        write_whole(self.config, OmegaConf.to_yaml(config))

    def read_config(self) -> DictConfig:
        """The config of the run.

        Raises:
            BacklightError: there is no run here, or its config cannot be read.
        """
        if not self.config.is_file():
            raise BacklightError(f"{self.path}: not a run folder; it has no .hydra/config.yaml")
        try:
            config = OmegaConf.load(self.config)
        except (OSError, UnicodeDecodeError, YAMLError, OmegaConfBaseException) as error:
            reason = " ".join(str(error).split())
            raise BacklightError(f"{self.config}: cannot be read: {reason}") from error
        if not isinstance(config, DictConfig):
            raise BacklightError(f"{self.config}: not the config of a run")
        for key in NEEDED:
            if OmegaConf.select(config, key, default=None) is None:
                raise BacklightError(f"{self.config}: not the config of a run; {key} is missing")
        return config

    def read_overrides(self) -> list[str]:
        """The overrides of the command line that started the run; none where they are not recorded."""
        try:
            overrides = OmegaConf.load(self.config.with_name("overrides.yaml"))
        except (OSError, UnicodeDecodeError, YAMLError, OmegaConfBaseException):
            return []
        return as_typed(overrides)

    def write_summary(self, summary: Mapping[str, Any], *, wait: bool = True) -> None:
        """Write `summary.json`, whole or not at all; `wait` as for `write_whole`."""
        write_whole(self.summary, json.dumps(summary, indent=2, allow_nan=False) + "\n", wait=wait)

    def is_completed(self) -> bool:
        """Whether the summary says that training and testing went to their end."""
        try:
            return bool(json.loads(self.summary.read_text(encoding="utf-8"))["status"] == "completed")
        except (OSError, ValueError, KeyError):
            return False
