"""Going on with a run that stopped."""

from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf

from backlight.checkpoint import FORM, read_checkpoint
from backlight.errors import BacklightError
from backlight.run_folder import RunFolder

CHANGEABLE = ("trainer", "callbacks")  # all else is fixed by what the checkpoint holds


def reopen(folder: RunFolder, config: DictConfig, overrides: list[str]) -> tuple[DictConfig, dict[str, Any]]:
    """The config and the last checkpoint of the run to go on with.

    Args:
        folder: of that run.
        config: composed for this start, with the overrides applied.
        overrides: of this start; their values replace those of the run.

    Raises:
        BacklightError: there is no run, it is complete, another version of Backlight left its checkpoint, or an override
            would make it another run.
    """
    stored = folder.read_config()
    last = folder.checkpoint("last")
    checkpoint = read_checkpoint(last)
    if checkpoint.get("form") != FORM:
        raise BacklightError(
            f"{last}: another version of Backlight left it; this one can predict with it, but not go on training"
        )
    for override in OverridesParser.create().parse_overrides(overrides):
        key = override.key_or_group
        group, _, value_key = key.partition(".")
        if group in ("resume", "sweep"):
            continue
        if group not in CHANGEABLE or not value_key or override.is_delete():
            raise BacklightError(
                f"{override.input_line}: cannot change when a run is resumed; "
                "allowed: values below trainer and callbacks, such as trainer.max_epochs=200"
            )
        OmegaConf.update(stored, key, OmegaConf.select(config, key), force_add=True)

    done = checkpoint["epoch"] + 1
    epochs = stored.trainer.max_epochs
    if folder.is_completed() and isinstance(epochs, int) and done >= epochs:
        raise BacklightError(
            f"resume={folder.path}: the run is complete ({done} epochs); give trainer.max_epochs above {done} to go on"
        )
    if epochs != folder.read_config().trainer.max_epochs and stored.scheduler.name == "cosine":
        raise BacklightError(
            f"trainer.max_epochs={epochs}: cannot change when a run with scheduler=cosine is resumed, "
            "since its learning rate depends on it"
        )
    return stored, checkpoint
