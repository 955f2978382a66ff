"""What callbacks reach through the trainer."""

from lightning.pytorch import Trainer
from lightning.pytorch.loggers import TensorBoardLogger
from torch.utils.tensorboard import SummaryWriter

from backlight.data.batches import TrainingBatches
from backlight.data.module import ClassificationData
from backlight.run_folder import RunFolder


def writer_of(trainer: Trainer) -> SummaryWriter | None:
    """The TensorBoard writer of this run; None where there is none, as on every process but the first."""
    if trainer.is_global_zero and isinstance(trainer.logger, TensorBoardLogger):
        writer: SummaryWriter = trainer.logger.experiment
        return writer
    return None


def folder_of(trainer: Trainer) -> RunFolder:
    """The folder of this run."""
    return RunFolder(trainer.default_root_dir)


def data_of(trainer: Trainer) -> ClassificationData:
    """The data of this run."""
    data = trainer.datamodule  # type: ignore[attr-defined]  # set in its __init__, without an annotation
    assert isinstance(data, ClassificationData)
    return data


def steps_per_epoch(trainer: Trainer) -> int:
    """Optimizer steps in an epoch of the training that has started."""
    loader = trainer.train_dataloader
    return loader.num_batches if isinstance(loader, TrainingBatches) else int(trainer.num_training_batches)
