"""The command line: Hydra around each entry point, errors as one sentence, exit codes.

0 done · 1 a bug of ours · 2 the user can mend it · 3 a sweep with failed trials · 130, 143 interrupted.

Nothing heavy is imported before a command has a valid config, so `--help` answers at once.
"""

import logging
import os
import re
import sys
from pathlib import Path
from typing import Any, NoReturn

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import (
    ConfigCompositionException,
    HydraException,
    MissingConfigException,
    OverrideParseException,
)
from hydra.types import RunMode
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from backlight.errors import BacklightError, nearest, printable
from backlight.imports import import_heavy

log = logging.getLogger(__name__)

MENDABLE, BUG, FAILED_TRIALS, INTERRUPTED = 2, 1, 3, 130


def config_folder() -> Path:
    """`conf/`: inside the installed package, or beside `src/` in a checkout."""
    package = Path(__file__).parent
    installed = package / "conf"
    return installed if installed.is_dir() else package.parents[1] / "conf"


def train() -> None:
    """`python train.py`: see `backlight.train`."""
    for index, argument in enumerate(sys.argv):
        key, _, value = argument.partition("=")
        folder = value.strip("'\"")
        if key == "sweep.resume":
            if not {"-m", "--multirun"} & set(sys.argv):
                _refuse("sweep.resume: needs the command of the sweep, with -m and all its values", MENDABLE)
            if not Path(folder, "multirun.yaml").is_file():
                _refuse(f"sweep.resume={folder}: not a sweep folder; it has no multirun.yaml", MENDABLE)
            sys.argv[index] = f"hydra.sweep.dir={value}"
        # Hydra creates the folder of a run that is not there.
        if key == "resume" and not Path(folder, ".hydra", "config.yaml").is_file():
            _refuse(f"resume={folder}: not a run folder; it has no .hydra/config.yaml", MENDABLE)
    _command("train")


def evaluate() -> None:
    """`python scripts/evaluate.py`: see `backlight.evaluate`."""
    _command("evaluate")


def predict() -> None:
    """`python scripts/predict.py`: see `backlight.predict`."""
    _command("predict")


def export() -> None:
    """`python scripts/export.py`: see `backlight.export`."""
    _command("export")


def gradcheck() -> None:
    """`python scripts/gradcheck.py`: see `backlight.gradcheck`."""
    _command("gradcheck")


def explain() -> None:
    """`python scripts/explain.py`: see `backlight.explain`."""
    _command("explain")


def diagnose() -> None:
    """`python scripts/diagnose.py`: see `backlight.diagnose`."""
    _command("diagnose")


def treat() -> None:
    """`python scripts/treat.py`: see `backlight.treat`."""
    _command("treat")


def report() -> None:
    """`python scripts/report.py`: see `backlight.report`."""
    # To Hydra `sweep=` chooses from the group of that name.
    sys.argv = [re.sub(r"^sweep=", "folder=", argument) for argument in sys.argv]
    _command("report")


def _command(name: str) -> None:
    """Run `backlight.<name>.run` on the config `conf/<name>.yaml` and exit."""
    wants_traceback = os.environ.get("HYDRA_FULL_ERROR") == "1"
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra then raises its errors instead of printing them
    codes: list[int] = []

    def job(config: DictConfig) -> Any:
        try:
            return import_heavy(f"backlight.{name}").run(config)
        except Exception as error:
            if wants_traceback:
                raise
            # Not raised: in a sweep the other trials go on.
            sentence, code = _explain(error)
            log.error(printable(sentence))
            if code == BUG:
                log.info("Where it happened", exc_info=error)  # goes to the log file only
            is_sweep = HydraConfig.get().mode == RunMode.MULTIRUN
            codes.append(FAILED_TRIALS if is_sweep else code)
            return None

    # For trials of a sweep that are not trained by this function.
    job.failed = lambda: codes.append(FAILED_TRIALS)  # type: ignore[attr-defined]  # an attribute of a function

    try:
        hydra.main(version_base="1.3", config_path=str(config_folder()), config_name=name)(job)()
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    except Exception as error:
        if wants_traceback:
            raise
        sentence, code = _explain(error)
        _refuse(sentence, code)
    finally:
        if not wants_traceback:
            del os.environ["HYDRA_FULL_ERROR"]
    sys.exit(max(codes, default=0))


def _refuse(sentence: str, code: int) -> NoReturn:
    print(f"ERROR: {printable(sentence)}", file=sys.stderr)
    sys.exit(code)


def _explain(error: Exception) -> tuple[str, int]:
    """One sentence and the exit code."""
    if isinstance(error, BacklightError):
        return str(error), MENDABLE
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename or 'a file'}: {error.strerror}", MENDABLE
    if isinstance(error, HydraException | OmegaConfBaseException):
        return _explain_config_error(error), MENDABLE
    reason = " ".join(str(error).split())
    return f"a bug in Backlight: {type(error).__name__}: {reason} (HYDRA_FULL_ERROR=1 shows where)", BUG


def _explain_config_error(error: Exception) -> str:
    """Hydra's and OmegaConf's messages in one line, with the nearest valid name."""
    if isinstance(error, MissingConfigException) and error.options is not None:
        group, _, option = str(error.missing_cfg_file).rpartition("/")
        return f"{group}={option}: no such option{nearest(option, error.options)}"
    if isinstance(error, OverrideParseException):
        return (
            f"{error.override}: cannot be read; allowed: key=value, +key=value, ~key and group=option; a value with "
            "blanks, accents or other signs is quoted twice, as in \"key='value'\""
        )
    cause = error.__cause__
    if (
        isinstance(error, ConfigCompositionException)
        and isinstance(cause, OmegaConfBaseException)
        and cause.key
    ):
        parent = cause.parent_node
        names = [str(key) for key in parent] if isinstance(parent, DictConfig) else []
        return f"{cause.full_key}: no such key{nearest(str(cause.key), names)}"
    lines = [line.strip() for line in f"{error}\n{cause or ''}".splitlines()]
    return "; ".join(dict.fromkeys(line for line in lines if line))
