"""Trains the trials of a sweep on other machines, each share of them as populations of one worker.

All machines must see the sweep folder under its path: there the run folders are written.
"""

import logging
import os
import re
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra.core.singleton import Singleton

from backlight.errors import BacklightError
from backlight.processes import leave_the_terminal_to_us
from backlight.sweep.compose import Trial
from backlight.sweep.progress import progress
from backlight.sweep.settings import Settings
from backlight.sweep.trials import Alone, Summaries, TrialRunner

log = logging.getLogger(__name__)

RETRIES = 10  # of a share whose worker was lost
SECONDS_TO_ANSWER = 10


@dataclass(frozen=True)
class Share:
    """Trials for one worker, and what it needs to train them."""

    trials: Sequence[Trial]
    swept: Sequence[str]
    path: Path
    settings: Settings
    alone: Alone
    working_folder: Path
    singletons: Mapping[Any, Any]
    """Hydra's, as in the process that launches."""


Outcome = tuple[Share, Summaries | Exception]


def train_on_cluster(
    trials: Sequence[Trial], swept: Sequence[str], path: Path, settings: Settings, alone: Alone
) -> Summaries:
    """Train trials on a cluster; returns the summaries of all that a worker could train.

    Args:
        trials: to train.
        swept: keys that the sweep gives different values.
        path: the sweep folder.
        settings: of the sweep, with a cluster.
        alone: as for `TrialRunner`.

    Raises:
        BacklightError: there is no such cluster.
    """
    size = -(-len(trials) // settings.shares)
    shares = [
        Share(trials[start : start + size], swept, path, settings, alone, Path.cwd(), Singleton.get_state())
        for start in range(0, len(trials), size)
    ]
    clusters: dict[str, Callable[[Settings, Sequence[Share]], Iterator[Outcome]]] = {
        "ray": _on_ray,
        "slurm": _on_slurm,
    }
    summaries: Summaries = {}
    with progress(f"{len(trials)} trials on {settings.cluster}", len(trials)) as advance:
        for share, outcome in clusters[str(settings.cluster)](settings, shares):
            if isinstance(outcome, Exception):
                reason = (str(outcome).strip() or type(outcome).__name__).splitlines()[-1]
                log.warning("%d trials are trained here, for a worker: %s", len(share.trials), reason)
            else:
                summaries |= outcome
                for number, summary in outcome.items():
                    if summary["error"]:
                        log.error("trial %d: %s", number, summary["error"])
            advance(len(share.trials))
    return summaries


def _on_ray(settings: Settings, shares: Sequence[Share]) -> Iterator[Outcome]:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
    except ModuleNotFoundError as error:
        raise BacklightError("sweep=ray: needs ray: pip install 'backlight[ray]'") from error

    where: dict[str, Any] = {"_node_ip_address": "127.0.0.1"}
    if settings.address is not None:
        where = {"address": settings.address}
    try:
        _require_answer(settings.address)
        ray.init(
            **where,
            include_dashboard=False,
            log_to_driver=False,
            logging_level=logging.ERROR,
            ignore_reinit_error=True,
        )
    except (OSError, OverflowError, ValueError, RuntimeError) as error:
        raise BacklightError(f"sweep.address={settings.address}: no cluster of Ray there: {error}") from error
    accelerator = shares[0].trials[0].node["trainer"].get("accelerator")
    train = ray.remote(_train).options(
        num_cpus=1, num_gpus=1 if accelerator in ("gpu", "cuda") else 0, max_retries=RETRIES
    )
    pending = {train.remote(share): share for share in shares}
    while pending:
        (done,), _ = ray.wait(list(pending))
        share = pending.pop(done)
        try:
            yield share, ray.get(done)
        except ray.exceptions.RayError as error:
            yield share, error


def _require_answer(address: str | None) -> None:
    """Raises an OSError if nobody listens at `host:port`; Ray would try for minutes."""
    at = re.fullmatch(r"(?:ray://)?([^/]+):(\d+)", address or "")
    if at:
        socket.create_connection((at[1], int(at[2])), SECONDS_TO_ANSWER).close()


def _train(share: Share) -> Summaries:
    """What a worker does; returns the summaries of its trials.

    A second worker goes on where one was lost: trials that have ended are taken as they are.
    """
    os.chdir(share.working_folder)
    Singleton.set_state(dict(share.singletons))
    leave_the_terminal_to_us()
    runner = TrialRunner(share.path, share.settings, share.alone)
    runner.run(runner.missing(share.trials), share.swept)
    return runner.results


def _on_slurm(settings: Settings, shares: Sequence[Share]) -> Iterator[Outcome]:
    try:
        import submitit
    except ModuleNotFoundError as error:
        raise BacklightError("sweep=slurm: needs submitit: pip install 'backlight[slurm]'") from error

    try:
        executor = submitit.AutoExecutor(shares[0].path / ".submitit", cluster="slurm")
        executor.update_parameters(**settings.job)
    except (RuntimeError, NameError, TypeError, ValueError) as error:
        raise BacklightError(f"sweep=slurm: {' '.join(str(error).split())}") from error
    with executor.batch():
        jobs = [executor.submit(_train, share) for share in shares]
    by_job = dict(zip(jobs, shares, strict=True))
    for job in submitit.helpers.as_completed(jobs):
        failure = job.exception()
        yield by_job[job], job.result() if failure is None else failure
