"""Entry point: train one network and leave a run folder behind."""

import logging
import signal
from typing import Any

from hydra.core.hydra_config import HydraConfig
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities.exceptions import SIGTERMException
from omegaconf import DictConfig, OmegaConf
from rich import get_console
from rich.table import Table
from torch.multiprocessing.spawn import ProcessRaisedException

from backlight.assemble import Experiment, assemble
from backlight.callbacks.stop_sick import StopSick
from backlight.callbacks.tensorboard import write_hparams
from backlight.config import as_typed, plain, task_of
from backlight.diagnose import Diagnosis
from backlight.early_warning import EarlyWarning
from backlight.errors import BacklightError
from backlight.examination import Evidence, best_epoch, read_series
from backlight.metrics import number
from backlight.processes import leave_the_terminal_to_us
from backlight.resume import reopen
from backlight.run_folder import RunFolder
from backlight.summary import recorded

log = logging.getLogger(__name__)


def run(config: DictConfig) -> dict[str, float]:
    """Train, test and record one run in Hydra's output folder; returns its metrics.

    Raises:
        BacklightError: the user can mend it.
        SystemExit: a signal interrupted the run; its checkpoints are whole.
    """
    leave_the_terminal_to_us()
    hydra = HydraConfig.get()
    folder = RunFolder(hydra.runtime.output_dir)
    resumes = not OmegaConf.is_missing(config, "resume")
    stops_sick = bool(OmegaConf.select(config, "sweep.stop_sick"))
    task_of(config)
    if resumes:
        config, checkpoint = reopen(folder, config, as_typed(hydra.overrides.task))
        node = plain(config)
        experiment = assemble(node, folder, resumed=checkpoint)
        folder.write_config(config)
        with recorded(folder, node) as summary:
            diagnosis = fit_and_test(experiment, folder, node, summary, resumes=True, stops_sick=stops_sick)
    else:
        folder.refuse_if_used()
        node = plain(config)
        folder.write_hydra(hydra)
        folder.write_config(config)
        with recorded(folder, node) as summary:
            experiment = assemble(node, folder)
            diagnosis = fit_and_test(experiment, folder, node, summary, resumes=False, stops_sick=stops_sick)
    metrics: dict[str, float] = summary["metrics"]
    show(metrics, diagnosis, folder)
    return metrics


def fit_and_test(
    experiment: Experiment,
    folder: RunFolder,
    config: dict[str, Any],
    summary: dict[str, Any],
    *,
    resumes: bool,
    stops_sick: bool,
) -> Diagnosis:
    """Train to the last epoch, test the best checkpoint and look for what ails the run.

    Every metric of the epoch that `best.ckpt` keeps, and the diagnosis, go into the summary.
    """
    data, classifier, trainer = experiment.data, experiment.classifier, experiment.trainer
    summary["device"] = str(trainer.strategy.root_device)
    warning = EarlyWarning(config, folder)
    trainer.callbacks += [warning, *([StopSick()] if stops_sick else [])]  # type: ignore[attr-defined]  # it is a list
    try:
        trainer.fit(
            classifier,
            data,
            ckpt_path=folder.checkpoint("last") if resumes else None,
            weights_only=True,
        )
        # From the file: a run that was killed after its last epoch trains none now.
        series = read_series(folder.metrics)
        metrics = {name: float(values[best_epoch(series)]) for name, values in series.items()}
        if data.has("test"):
            trainer.test(
                classifier, data, ckpt_path=folder.checkpoint("best"), weights_only=True, verbose=False
            )
            metrics |= {name: number(value) for name, value in trainer.callback_metrics.items()}
    except SystemExit as stop:  # how Lightning answers Ctrl-C (with code 1) and SIGTERM (with code 0)
        caught = signal.SIGTERM if isinstance(stop, SIGTERMException) else signal.SIGINT
        message = f"interrupted; to go on: python train.py resume={folder.shown}"
        get_console().print(message, soft_wrap=True, highlight=False)
        raise SystemExit(128 + caught) from stop
    except (BacklightError, ProcessRaisedException) as error:
        # That of a spawned process ends in the error itself.
        _, is_mendable, sentence = str(error).rpartition(f"{BacklightError.__module__}.BacklightError: ")
        if isinstance(error, ProcessRaisedException) and not is_mendable:
            raise
        failed = Diagnosis.of(config, Evidence.of(folder, sentence.strip()), data)
        _record(failed, experiment, summary)
        if failed.findings:
            show_verdict(failed)
        if isinstance(error, BacklightError):
            raise
        raise BacklightError(sentence.strip()) from error
    summary["metrics"] = {name: metrics[name] for name in sorted(metrics.keys() - {"epoch", "step"})}
    evidence = Evidence.of(folder, start=warning.start)
    diagnosis = Diagnosis.of(config, evidence, data).dated(warning.first_seen)
    assert isinstance(trainer.logger, TensorBoardLogger)
    write_hparams(trainer.logger.experiment, config, summary["metrics"])
    _record(diagnosis, experiment, summary)
    return diagnosis


def _record(diagnosis: Diagnosis, experiment: Experiment, summary: dict[str, Any]) -> None:
    """Into the summary, and as TensorBoard's last word of the run."""
    summary["diagnosis"] = diagnosis.as_data()
    trainer = experiment.trainer
    assert isinstance(trainer.logger, TensorBoardLogger)
    writer = trainer.logger.experiment
    writer.add_text("diagnosis", diagnosis.as_markdown(), trainer.global_step)
    writer.close()


def show(metrics: dict[str, float], diagnosis: Diagnosis, folder: RunFolder) -> None:
    """Print the closing table, the verdict and where to look."""
    part = "test" if any(name.startswith("test/") for name in metrics) else "train"
    table = Table(title=f"metrics on the {part} rows", title_justify="left", show_header=False)
    for name, value in metrics.items():
        if name.startswith(f"{part}/"):
            table.add_row(name, f"{value:.4f}")
            log.info("%s %.6f", name, value)
    console = get_console()
    console.print(table)
    series = read_series(folder.metrics)
    if "val/loss" in series:
        # The verdict is of the whole run, which may have lost what it knew then.
        kept = f"of epoch {best_epoch(series) + 1} of {len(series['val/loss'])}"
        console.print(f"metrics      of best.ckpt, {kept}", highlight=False)
    show_verdict(diagnosis)
    lines = f"run folder   {folder.shown}\nTensorBoard  tensorboard --logdir '{folder.shown}'"
    console.print(lines, soft_wrap=True, highlight=False, markup=False)


def show_verdict(diagnosis: Diagnosis) -> None:
    """Print what ails the run, and what to try first."""
    log.info("verdict: %s", diagnosis.verdict)
    lines = [f"verdict      {diagnosis.verdict}"]
    if diagnosis.remedies:
        remedy = diagnosis.remedies[0]
        lines.append(f"try          {remedy.overrides}  ({remedy.why})")
    get_console().print("\n".join(lines), soft_wrap=True, highlight=False, markup=False)
