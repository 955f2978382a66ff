"""Looks for good settings: Optuna suggests trials, many at a time, and is told what came of them."""

from collections.abc import Callable, Iterable, Sequence
from itertools import groupby
from pathlib import Path
from typing import Literal

import optuna
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import IntervalSweep, Override, RangeSweep
from hydra.core.utils import JobReturn
from omegaconf import DictConfig, OmegaConf
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.samplers import BaseSampler, RandomSampler, TPESampler
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, TrialState

from backlight.config import build
from backlight.errors import BacklightError
from backlight.ranges import Count, Natural
from backlight.sweep.leaderboard import is_lower_better

Launch = Callable[[Sequence[Sequence[str]], int], Sequence[JobReturn]]


class SearchSettings:
    """What `conf/sweep/search.yaml` adds to the node `sweep`.

    Args:
        sampler: `tpe` learns from the trials so far (Bergstra et al. 2011), `random` does not.
        trials: how many in all.
        at_once: suggested and trained together; the fewer, the more the sampler has learned.
        seed: of the sampler.
        metric: what to improve.
    """

    def __init__(
        self,
        *,
        sampler: Literal["tpe", "random"] = "tpe",
        trials: Count = 200,
        at_once: Count = 40,
        seed: Natural = 0,
        metric: str = "val/loss",
    ) -> None:
        self.sampler = sampler
        self.trials = trials
        self.at_once = at_once
        self.seed = seed
        self.metric = metric

    def build_sampler(self) -> BaseSampler:
        """Optuna's."""
        if self.sampler == "random":
            return RandomSampler(seed=self.seed)
        return TPESampler(seed=self.seed, constant_liar=True)  # the others of a batch are no surprise


def search(
    arguments: Sequence[str], master: DictConfig, launch: Launch
) -> tuple[list[Sequence[JobReturn]], str]:
    """Train trials that Optuna suggests until there are as many as asked for; returns also what mattered.

    The study is kept in `study.db` in the sweep folder: a search that stopped goes on with what it knew.

    Args:
        arguments: overrides of the command line; those with several values span the space.
        master: config of the sweep.
        launch: trains trials with these overrides, numbered from the number given.

    Raises:
        BacklightError: there is nothing to look for.
    """
    options = OmegaConf.to_container(master.sweep, resolve=True)
    assert isinstance(options, dict)
    own = ("sampler", "trials", "at_once", "seed", "metric")
    settings = build(
        SearchSettings, {str(key): value for key, value in options.items() if key in own}, "sweep"
    )
    overrides = OverridesParser.create().parse_overrides(list(arguments))
    space = {o.get_key_element(): _distribution(o) for o in overrides if o.is_sweep_override()}
    if not space:
        raise BacklightError(
            "sweep=search: give some keys several values, such as optimizer.lr=interval(0.001,1) or model.hidden=[5],[20]"
        )
    fixed = [str(o.input_line) for o in overrides if not o.is_sweep_override()]
    folder = Path(master.hydra.sweep.dir)
    folder.mkdir(parents=True, exist_ok=True)
    OmegaConf.save(master, folder / "multirun.yaml")
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(
        storage=RDBStorage(f"sqlite:///{(folder / 'study.db').absolute()}"),
        study_name=folder.name,
        sampler=settings.build_sampler(),
        direction="minimize" if is_lower_better(settings.metric) else "maximize",
        load_if_exists=True,
    )

    def train(trials: Sequence[FrozenTrial | optuna.Trial]) -> Sequence[JobReturn]:
        chosen = [[*fixed, *(f"{key}={value}" for key, value in trial.params.items())] for trial in trials]
        returned = launch(chosen, trials[0].number)
        for trial, one in zip(trials, returned, strict=True):
            value = (one.return_value or {}).get(settings.metric)
            study.tell(trial.number, value, TrialState.COMPLETE if value is not None else TrialState.FAIL)
        return returned

    lost = study.get_trials(states=[TrialState.RUNNING])  # when the search was stopped
    results = [train(trials) for trials in _consecutive(lost)]
    while len(study.trials) < settings.trials:
        count = min(settings.at_once, settings.trials - len(study.trials))
        results.append(train([study.ask(space) for _ in range(count)]))
    return results, _importance(study)


def _distribution(override: Override) -> BaseDistribution:
    """The values that an override stands for."""
    sweep = override.value()
    log = "log" in getattr(sweep, "tags", ())
    if isinstance(sweep, IntervalSweep):
        assert sweep.start is not None and sweep.end is not None
        if isinstance(sweep.start, int) and isinstance(sweep.end, int):
            return IntDistribution(sweep.start, sweep.end, log=log)
        return FloatDistribution(float(sweep.start), float(sweep.end), log=log)
    if isinstance(sweep, RangeSweep) and all(
        isinstance(x, int) for x in (sweep.start, sweep.stop, sweep.step)
    ):
        values = range(sweep.start, sweep.stop, sweep.step)  # type: ignore[arg-type]
        return IntDistribution(values[0], values[-1], step=values.step)
    return CategoricalDistribution(list(override.sweep_string_iterator()))


def _consecutive(trials: Iterable[FrozenTrial]) -> list[list[FrozenTrial]]:
    """Trials with numbers that follow each other, together."""
    groups = groupby(enumerate(trials), key=lambda pair: pair[1].number - pair[0])
    return [[trial for _, trial in group] for _, group in groups]


def _importance(study: optuna.Study) -> str:
    """How much of the metric's variance each key accounts for (fANOVA, Hutter et al. 2014), in one line."""
    finished = study.get_trials(states=[TrialState.COMPLETE])
    if len({trial.value for trial in finished}) < 2:
        return "mattered     nothing that these trials could tell"
    shares = optuna.importance.get_param_importances(study)
    return f"mattered     {', '.join(f'{key} {share:.0%}' for key, share in shares.items())}"
