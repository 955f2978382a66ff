"""The node `sweep` of the config."""

from typing import Annotated, Any, Literal

from pydantic import Field

from backlight.data.source import PARTS
from backlight.errors import nearest
from backlight.metrics import METRICS
from backlight.ranges import Count, Natural


class Settings:
    """How trials are trained and compared, and with `sweep=search` how many there are.

    Args:
        population: train together what can be.
        max_members: trials trained together at most; None is what memory allows.
        metric: what the leaderboard is sorted by, and a search improves; of the epoch that `best.ckpt` keeps.
        factor: of successive halving: of those that come to a rung, one in so many goes on; None trains
            every trial to its end.
        min_epochs: to the first rung; the others are `factor` times as far each.
        stop_sick: end trials that after a fifth of their epochs have learned nothing, or later are on the way to
            less than what the best that is trained with them has come to by then, on the training rows and on those held
            out, or whose validation loss has not come lower for a fifth of their epochs and is above that of the best. Who
            falls faster and faster goes on, and of those that have learned something the three tenths that have come
            lowest.
        cluster: that trains the trials; None is this process.
        address: of the cluster of Ray; None starts one on this machine.
        shares: into which the trials are divided for a cluster: a worker trains one at a time.
        job: of Slurm: what `submitit.AutoExecutor.update_parameters` takes.
        sampler: `tpe` learns from the trials so far (Bergstra et al. 2011), `random` does not.
        trials: of a search in all.
        at_once: trials suggested and trained together; the fewer, the more the sampler has learned.
        seed: of the sampler.
    """

    def __init__(
        self,
        *,
        population: bool = True,
        max_members: Annotated[int, Field(ge=2)] | None = None,
        metric: str = "val/loss",
        factor: Annotated[int, Field(ge=2)] | None = None,
        min_epochs: Count = 1,
        stop_sick: bool = False,
        cluster: Literal["ray", "slurm"] | None = None,
        address: str | None = None,
        shares: Count = 8,
        job: dict[str, Any] | None = None,
        sampler: Literal["tpe", "random"] = "tpe",
        trials: Count = 200,
        at_once: Count = 40,
        seed: Natural = 0,
    ) -> None:
        known = [f"{part}/{name}" for part in PARTS for name in ("loss", *METRICS)]
        if metric not in known:
            raise ValueError(f"metric={metric}: no such metric{nearest(metric, known)}")
        self.population = population
        self.max_members = max_members
        self.metric = metric
        if factor is not None and (metric.startswith("test/") or not population):
            raise ValueError(
                f"metric={metric}: trials are compared while they train, which test rows must not know of"
                if population
                else "factor: needs population=true"
            )
        if factor is not None and cluster is not None:
            raise ValueError(
                f"cluster={cluster}: successive halving compares all trials while they train, here only"
            )
        self.stop_sick = stop_sick
        self.cluster = cluster
        self.address = address
        self.shares = shares
        self.job = job or {}
        self.factor = factor
        self.min_epochs = min_epochs
        self.sampler = sampler
        self.trials = trials
        self.at_once = at_once
        self.seed = seed

    @property
    def improves_downwards(self) -> bool:
        """Whether less of the metric is better."""
        return self.metric.endswith(("loss", "calibration_error"))
