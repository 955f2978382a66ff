"""The LightningDataModule: one source, split, encoded and kept in memory."""

from collections.abc import Callable
from typing import Annotated, Any, Literal

import torch
from lightning.pytorch import LightningDataModule
from pydantic import Field
from torch import Tensor

from backlight.backprop.sparse import SparseRows
from backlight.data.batches import EVALUATION_ROWS, Batch, Batches, TrainingBatches
from backlight.data.encoding import encoder_of, outputs_for, tensors
from backlight.data.kinds import KINDS
from backlight.data.source import PARTS, Encoder, Ints, JudgedBy, Labelled, Part, Standardize
from backlight.data.splits import split
from backlight.data.stored import Features, StoredRows, StoredTable, sampled_first
from backlight.data.synthetic import perturbed
from backlight.errors import BacklightError
from backlight.ranges import Count, Fraction, Natural


class ClassificationData(LightningDataModule):
    """Train, validation and test batches of one source.

    `num_features`, `num_outputs`, `class_names` and `feature_names` are known after `setup`.

    Args:
        load: gives the labelled rows.
        run_seed: seeds the order of the batches.
        batch_size: rows per optimizer step, over all processes together; `full` is every training row.
        val_fraction, test_fraction: shares of all rows that are held out.
        stratify: keep the class proportions in every part.
        standardize: subtract the training mean of every numeric feature and divide by its standard
            deviation; `quantile` spreads the numbers of a table by their rank before. For what has no numeric features it
            changes nothing.
        label_noise, imbalance: see `backlight.data.synthetic.perturbed`.
        seed: of the split and the perturbations.
    """

    def __init__(
        self,
        load: Callable[[], Labelled],
        run_seed: int,
        *,
        batch_size: Count | Literal["full"] = 32,
        val_fraction: Fraction = 0.15,
        test_fraction: Fraction = 0.15,
        stratify: bool = True,
        standardize: Standardize = True,
        label_noise: Fraction = 0.0,
        imbalance: Annotated[float, Field(gt=0, le=1)] = 1.0,
        seed: Natural = 0,
    ) -> None:
        super().__init__()
        self.load = load
        self.run_seed = run_seed
        self.batch_size = batch_size
        self.val_fraction = val_fraction
        self.test_fraction = test_fraction
        self.stratify = stratify
        self.standardize = standardize
        self.label_noise = label_noise
        self.imbalance = imbalance
        self.seed = seed
        self.steps_at_once = 1
        """Batches that the training loader hands over together."""
        self.encoder: Encoder
        self.class_names: list[str]
        self.judged_by: JudgedBy | None = None
        self._kind: str
        self._parts: dict[Part, tuple[Features, Tensor]] = {}
        self._groups: dict[Part, Ints] = {}

    def setup(self, stage: str | None = None) -> None:
        """Load, split and encode; the second call does nothing."""
        if self._parts:
            return
        source = perturbed(self.load(), self.seed, label_noise=self.label_noise, imbalance=self.imbalance)
        rows = split(
            source,
            val_fraction=self.val_fraction,
            test_fraction=self.test_fraction,
            stratify=self.stratify,
            seed=self.seed,
        )
        if isinstance(source.rows, StoredRows | StoredTable):
            rows = {part: sampled_first(of_part, self.seed) for part, of_part in rows.items()}
        self.class_names, self._kind, self.judged_by = source.class_names, source.kind, source.judged_by
        options = dict(source.options)
        if source.kind == "columns":
            options["feature_names"] = source.feature_names
        train = source.take(rows["train"])
        self.encoder = KINDS[source.kind].fit(train.rows, standardize=self.standardize, **options)
        for part in PARTS:
            if len(rows[part]):
                chosen = train if part == "train" else source.take(rows[part])
                self._parts[part] = tensors(chosen, self.encoder)
                if chosen.groups is not None:
                    self._groups[part] = chosen.groups

    @property
    def feature_names(self) -> list[str]:
        return self.encoder.feature_names

    @property
    def num_features(self) -> int:
        return self.part("train")[0].shape[-1]

    @property
    def has_columns(self) -> bool:
        """Whether each column of the rows is encoded by itself, as those of tables are."""
        return self._kind == "columns"

    @property
    def is_sparse(self) -> bool:
        """Whether x is `SparseRows`."""
        return isinstance(self.part("train")[0], SparseRows)

    @property
    def is_dense(self) -> bool:
        """Whether x is a tensor in memory."""
        return isinstance(self.part("train")[0], Tensor)

    @property
    def num_outputs(self) -> int:
        return outputs_for(self.class_names)

    def has(self, name: Part) -> bool:
        """Whether the part holds any rows."""
        return name in self._parts

    def part(self, name: Part) -> tuple[Features, Tensor]:
        """`(x [rows, features], y [rows, outputs])`, both float32; no rows where the part is empty."""
        if name in self._parts:
            return self._parts[name]
        x, y = self._parts["train"]
        return x[:0], y[:0]

    def groups(self, name: Part) -> Ints | None:
        """`[rows]` the group of each row of the part; None where rows have none."""
        return self._groups.get(name)

    def class_weight(self) -> Tensor:
        """The weight `[classes]` of a row of each class, by which they balance: 1 in the mean of the training rows."""
        y = self.part("train")[1]
        rows = y.sum(dim=0)
        if self.num_outputs == 1:
            rows = torch.cat([len(y) - rows, rows])
        return len(y) / (len(rows) * rows.clamp(min=1))  # a class may have none

    @property
    def rows_per_step(self) -> int:
        """Training rows of one batch, over all processes together."""
        rows = len(self.part("train")[0])
        return rows if self.batch_size == "full" else min(self.batch_size, rows)

    @property
    def steps_per_epoch(self) -> int:
        """Batches of training rows."""
        return -(-len(self.part("train")[0]) // self.rows_per_step)

    def train_dataloader(self) -> TrainingBatches:
        x, y, rank, world_size = self._on_device("train")
        return TrainingBatches(
            x,
            y,
            self.rows_per_step,
            None if self.batch_size == "full" else self.run_seed,
            steps_at_once=self.steps_at_once,
            rank=rank,
            world_size=world_size,
        )

    def val_dataloader(self) -> Batches | list[Batches]:
        return self._held_out("val")

    def test_dataloader(self) -> Batches | list[Batches]:
        return self._held_out("test")

    def transfer_batch_to_device(self, batch: Batch, device: torch.device, dataloader_idx: int) -> Batch:
        return batch  # already there

    def state_dict(self) -> dict[str, Any]:
        """What prediction needs to read new rows, as plain data."""
        return {"kind": self._kind, "encoder": self.encoder.state_dict(), "class_names": self.class_names}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Check that the data is what it was in the run of this state.

        Raises:
            BacklightError: the columns, classes or training statistics have changed.
        """
        is_same = self._kind == state_dict["kind"] and self.class_names == state_dict["class_names"]
        if not is_same or not self.encoder.is_close(encoder_of(state_dict)):
            raise BacklightError("data: columns, classes or training rows differ from those of the run")

    def _held_out(self, name: Part) -> Batches | list[Batches]:
        if not self.has(name):
            return []
        x, y, rank, world_size = self._on_device(name)
        return Batches(x, y, EVALUATION_ROWS, rank, world_size)

    def _on_device(self, name: Part) -> tuple[Features, Tensor, int, int]:
        """The part on the device of this process, its rank, and how many processes there are."""
        x, y = self.part(name)
        if not self.trainer:
            return x, y, 0, 1
        device = self.trainer.strategy.root_device
        return x.to(device), y.to(device), self.trainer.global_rank, self.trainer.world_size
