"""Hydra's side of sweeps: it finds these classes by looking into `hydra_plugins`.

Hydra imports this file at every start, so it imports nothing heavy itself.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from hydra._internal.core_plugins.basic_launcher import BasicLauncher
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.config_store import ConfigStore
from hydra.core.utils import JobReturn


class PopulationLauncher(BasicLauncher):
    """Trains trials together where they can be, and the others one after the other."""

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """What Hydra's launchers do: run these trials and return what came of each."""
        from backlight.sweep.launch import launch

        def alone(overrides: Sequence[str], number: int) -> JobReturn:
            (returned,) = super(PopulationLauncher, self).launch([overrides], number)
            return returned

        assert self.hydra_context is not None and self.config is not None
        return launch(
            self.hydra_context.config_loader,
            self.config,
            job_overrides,
            initial_job_idx,
            alone=alone,
            failed=getattr(self.task_function, "failed", lambda: None),
        )


class ComposedSweeper(BasicSweeper):
    """Hydra's sweeper of grids, but trials are composed once, by the launcher."""

    def validate_batch_is_legal(self, batch: Sequence[Sequence[str]]) -> None:
        """Nothing: the launcher composes every trial before it trains the first."""


@dataclass
class PopulationLauncherConfig:
    """Of `hydra/launcher=population`."""

    _target_: str = "hydra_plugins.backlight_sweeps.PopulationLauncher"


@dataclass
class ComposedSweeperConfig:
    """Of `hydra/sweeper=composed`."""

    _target_: str = "hydra_plugins.backlight_sweeps.ComposedSweeper"
    max_batch_size: int | None = None
    params: dict[str, Any] | None = None


for group, name, node in (
    ("hydra/launcher", "population", PopulationLauncherConfig),
    ("hydra/sweeper", "composed", ComposedSweeperConfig),
):
    ConfigStore.instance().store(group=group, name=name, node=node, provider="backlight")
