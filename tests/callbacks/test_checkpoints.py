"""What the checkpoints of a run hold."""

from collections.abc import Callable

import torch

from backlight.run_folder import RunFolder
from tests.conftest import TrainedRun


def test_a_checkpoint_that_waits_to_be_written_keeps_its_own_epoch(train: Callable[..., TrainedRun]) -> None:
    """All of these epochs pass before a second has, after which checkpoints are written."""
    folder = RunFolder(train("data=moons", "optimizer.lr=3", "trainer.max_epochs=12", "seed=1").path)
    epochs = []
    for name in ("best", "last"):
        kept = torch.load(folder.checkpoint(name), weights_only=True)
        progress = kept["loops"]["fit_loop"]["epoch_progress"]["current"]
        steps = kept["loops"]["fit_loop"]["epoch_loop.state_dict"]["_batches_that_stepped"]
        assert (progress["processed"], steps) == (kept["epoch"] + 1, kept["global_step"])
        epochs.append(kept["epoch"])
    assert epochs[0] < epochs[1] == 11
