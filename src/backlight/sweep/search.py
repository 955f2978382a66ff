"""Looks for good settings: Optuna suggests trials, many at a time, and is told what came of them."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import groupby
from pathlib import Path

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
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.exc import SQLAlchemyError

from backlight.config import build, plain
from backlight.errors import BacklightError
from backlight.sweep.settings import Settings

Launch = Callable[[Sequence[Sequence[str]], int], Sequence[JobReturn]]


STUDY = "backlight"


def search(
    arguments: Sequence[str], master: DictConfig, launch: Launch
) -> tuple[list[Sequence[JobReturn]], dict[str, float]]:
    """Train trials that Optuna suggests until there are as many as asked for; returns also what mattered.

    The study is kept in `study.db` in the sweep folder: a search that stopped goes on with what it knew.

    Args:
        arguments: overrides of the command line; those with several values span the space.
        master: config of the sweep.
        launch: trains trials with these overrides, numbered from the number given.

    Raises:
        BacklightError: there is nothing to look for, or the folder's study looks for something else.
    """
    settings = build(Settings, plain(master.sweep), "sweep")
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
    study = _study(folder / "study.db", settings, space)

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


def _study(path: Path, settings: Settings, space: Mapping[str, BaseDistribution]) -> optuna.Study:
    """The study in this file, new or begun; its trials become overrides, so they must be of this search."""
    direction = StudyDirection.MINIMIZE if settings.improves_downwards else StudyDirection.MAXIMIZE
    sampler: BaseSampler = RandomSampler(seed=settings.seed)
    if settings.sampler == "tpe":
        sampler = TPESampler(seed=settings.seed, constant_liar=True)  # the others of a batch are no surprise
    try:
        study = optuna.create_study(
            storage=RDBStorage(f"sqlite:///{path.absolute()}"),
            study_name=STUDY,
            sampler=sampler,
            direction=direction,
            load_if_exists=True,
        )
        is_this = study.direction == direction and all(t.distributions == space for t in study.trials)
    except (SQLAlchemyError, ValueError, KeyError, RuntimeError) as error:
        raise BacklightError(f"{path}: cannot be read as a study of Optuna; the file is damaged") from error
    if not is_this:
        raise BacklightError(
            f"{path}: holds a search for another metric or through other values; give the command of that search"
        )
    return study


def _distribution(override: Override) -> BaseDistribution:
    """The values that an override stands for.

    Raises:
        BacklightError: there are none.
    """
    try:
        return _values_of(override)
    except (ValueError, IndexError) as error:
        raise BacklightError(f"{override.input_line}: no values to try: {error}") from error


def _values_of(override: Override) -> BaseDistribution:
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
        values = range(sweep.start, sweep.stop, sweep.step)  # type: ignore[arg-type]  # all are integers
        return IntDistribution(values[0], values[-1], step=values.step)
    return CategoricalDistribution(list(override.sweep_string_iterator()))


def _consecutive(trials: Iterable[FrozenTrial]) -> list[list[FrozenTrial]]:
    """Trials with numbers that follow each other, together."""
    groups = groupby(enumerate(trials), key=lambda pair: pair[1].number - pair[0])
    return [[trial for _, trial in group] for _, group in groups]


def _importance(study: optuna.Study) -> dict[str, float]:
    """How much of the metric's variance each key accounts for (fANOVA, Hutter et al. 2014)."""
    finished = study.get_trials(states=[TrialState.COMPLETE])
    if len({trial.value for trial in finished}) < 2:
        return {}
    return {key: float(share) for key, share in optuna.importance.get_param_importances(study).items()}
