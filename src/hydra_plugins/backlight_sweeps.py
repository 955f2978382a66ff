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
from omegaconf import DictConfig

from backlight.errors import BacklightError
from backlight.imports import import_heavy


def _is_ours(config: DictConfig | None) -> bool:
    """Whether this is a sweep of Backlight's, and not of another program whose environment we are in."""
    return config is not None and "sweep" in config


class PopulationLauncher(BasicLauncher):
    """Trains trials together where they can be, and the others one after the other."""

    def __init__(self) -> None:
        super().__init__()
        self._sweep: Any = None

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """What Hydra's launchers do: run these trials and return what came of each."""
        assert self.hydra_context is not None and self.config is not None
        if not _is_ours(self.config):
            others: Sequence[JobReturn] = super().launch(job_overrides, initial_job_idx)
            return others
        if self._sweep is None:
            assert self.task_function is not None
            basic = BasicLauncher()
            basic.setup(
                hydra_context=self.hydra_context, task_function=self.task_function, config=self.config
            )
            self._sweep = import_heavy("backlight.sweep.launch").Sweep(
                self.hydra_context.config_loader,
                self.config,
                alone=lambda overrides, number: basic.launch([overrides], number),
                failed=getattr(self.task_function, "failed", lambda: None),
            )
        returned: list[JobReturn] = self._sweep.launch(job_overrides, initial_job_idx)
        return returned

    def finish(self, importance: dict[str, float] | None = None) -> None:
        """Write and print what came of the whole sweep; see `Sweep.finish`."""
        if self._sweep is not None:
            self._sweep.finish(importance)


class ComposedSweeper(BasicSweeper):
    """Hydra's sweeper of grids, but trials are composed once, by the launcher."""

    def sweep(self, arguments: list[str]) -> Any:
        """Launch every combination of values."""
        returned = super().sweep(arguments)
        if isinstance(self.launcher, PopulationLauncher):
            self.launcher.finish()
        return returned

    def validate_batch_is_legal(self, batch: Sequence[Sequence[str]]) -> None:
        """Nothing: the launcher composes every trial before it trains the first."""
        if not _is_ours(self.config):
            super().validate_batch_is_legal(batch)


class SearchSweeper(BasicSweeper):
    """Trains what Optuna suggests."""

    def sweep(self, arguments: list[str]) -> Any:
        """Launch trials until there are enough."""
        assert self.config is not None and self.launcher is not None
        try:
            from backlight.sweep.search import search
        except ModuleNotFoundError as error:
            raise BacklightError(
                f"sweep=search: needs {error.name}: pip install 'backlight[search]'"
            ) from error

        returned, importance = search(arguments, self.config, self.launcher.launch)
        if isinstance(self.launcher, PopulationLauncher):
            self.launcher.finish(importance)
        return returned


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


@dataclass
class SearchSweeperConfig:
    """Of `hydra/sweeper=search`."""

    _target_: str = "hydra_plugins.backlight_sweeps.SearchSweeper"
    max_batch_size: int | None = None
    params: dict[str, Any] | None = None


for group, name, node in (
    ("hydra/launcher", "population", PopulationLauncherConfig),
    ("hydra/sweeper", "composed", ComposedSweeperConfig),
    ("hydra/sweeper", "search", SearchSweeperConfig),
):
    ConfigStore.instance().store(group=group, name=name, node=node, provider="backlight")
