"""Hydra's own tests of launchers and sweepers."""

from collections.abc import Iterator

import pytest
from hydra.core.plugins import Plugins
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from hydra.test_utils.launcher_common_tests import (
    BatchedSweeperTestSuite,
    IntegrationTestSuite,
    LauncherTestSuite,
)
from hydra.version import VersionBase

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")
OURS = ["hydra/launcher=population", "hydra/sweeper=composed"]


@pytest.fixture(autouse=True)
def _fresh_version_base() -> Iterator[None]:
    """The suites count on a process in which no program has chosen Hydra's defaults; our tests choose 1.3."""
    before = VersionBase.instance()
    VersionBase.set_instance(type.__call__(VersionBase))
    yield
    VersionBase.set_instance(before)


def test_hydra_finds_them() -> None:
    found = {plugin.__name__ for kind in (Launcher, Sweeper) for plugin in Plugins.instance().discover(kind)}
    assert {"PopulationLauncher", "ComposedSweeper", "SearchSweeper"} <= found


@pytest.mark.parametrize(("launcher_name", "overrides"), [("population", ["hydra/sweeper=composed"])])
class TestLauncher(LauncherTestSuite):
    """In this process."""


@pytest.mark.parametrize(
    ("launcher_name", "overrides"),
    [("population", ["hydra/sweeper=composed", "hydra.sweeper.max_batch_size=2"])],
)
class TestBatches(BatchedSweeperTestSuite):
    """Of two trials."""


@pytest.mark.parametrize(("task_launcher_cfg", "extra_flags"), [({}, ["-m", *OURS])])
class TestIntegration(IntegrationTestSuite):
    """In processes of their own."""
