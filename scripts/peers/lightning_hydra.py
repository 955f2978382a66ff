"""What a sweep costs with Lightning and Hydra as their documentation shows them; for `benchmark.py sweep`."""

from dataclasses import dataclass

import hydra
import torch
from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from lightning.pytorch import LightningDataModule, LightningModule, Trainer, seed_everything
from lightning.pytorch.loggers import TensorBoardLogger
from sklearn.datasets import make_classification
from sklearn.model_selection import train_test_split
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset
from torchmetrics.classification import BinaryAccuracy


@dataclass
class Config:
    """Of a trial."""

    lr: float = 0.1
    seed: int = 0
    epochs: int = 20


ConfigStore.instance().store("config", Config)


class Data(LightningDataModule):
    """800 rows to train on and 100 each to validate and test."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        x, y = make_classification(1000, 10, n_informative=5, random_state=seed)
        rest, held_out = train_test_split(range(1000), test_size=200, random_state=seed)
        parts = [rest, held_out[:100], held_out[100:]]
        self.sets = [
            TensorDataset(torch.tensor(x[part]).float(), torch.tensor(y[part])[:, None].float())
            for part in parts
        ]

    def train_dataloader(self) -> DataLoader[tuple[Tensor, ...]]:
        return DataLoader(self.sets[0], batch_size=32, shuffle=True)

    def val_dataloader(self) -> DataLoader[tuple[Tensor, ...]]:
        return DataLoader(self.sets[1], batch_size=100)

    def test_dataloader(self) -> DataLoader[tuple[Tensor, ...]]:
        return DataLoader(self.sets[2], batch_size=100)


class Module(LightningModule):
    """10-5-1."""

    def __init__(self, lr: float) -> None:
        super().__init__()
        self.lr = lr
        self.net = nn.Sequential(nn.Linear(10, 5), nn.Sigmoid(), nn.Linear(5, 1))
        self.loss = nn.BCEWithLogitsLoss()
        self.accuracy = BinaryAccuracy()

    def _log(self, stage: str, batch: tuple[Tensor, Tensor]) -> Tensor:
        logits = self.net(batch[0])
        loss: Tensor = self.loss(logits, batch[1])
        self.log(f"{stage}/loss", loss, on_step=False, on_epoch=True)
        if stage != "train":
            self.accuracy(logits, batch[1])
            self.log(f"{stage}/accuracy", self.accuracy, on_step=False, on_epoch=True)
        return loss

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        return self._log("train", batch)

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        self._log("val", batch)

    def test_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        self._log("test", batch)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), self.lr)


@hydra.main(version_base="1.3", config_path=None, config_name="config")
def main(config: Config) -> None:
    """Train and test one trial."""
    seed_everything(config.seed, verbose=False)
    folder = HydraConfig.get().runtime.output_dir
    trainer = Trainer(
        max_epochs=config.epochs, accelerator="cpu", logger=TensorBoardLogger(folder),
        enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    data = Data(config.seed)
    module = Module(config.lr)
    trainer.fit(module, data)
    trainer.test(module, data, verbose=False)


if __name__ == "__main__":
    main()
