"""Batches of tensors that are already in memory on the training device."""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

Batch = tuple[Tensor, Tensor]


class EpochShuffle:
    """The order of the rows in each epoch, a function of `(seed, epoch)` alone.

    Lightning calls `set_epoch` before each epoch, so a resumed run sees the batches of the epoch
    it resumes.

    Args:
        num_rows: rows to order.
        seed: of the run; None keeps the rows in their order.
    """

    def __init__(self, num_rows: int, seed: int | None) -> None:
        self.num_rows = num_rows
        self.seed = seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def order(self) -> Tensor:
        """`[num_rows]` row numbers, int64."""
        if self.seed is None:
            return torch.arange(self.num_rows)
        state = np.random.SeedSequence([self.seed, self.epoch]).generate_state(1, np.uint64)[0]
        generator = torch.Generator().manual_seed(int(state >> np.uint64(1)))
        return torch.randperm(self.num_rows, generator=generator)


class Batches:
    """Iterates over `(x [batch, features], y [batch, outputs])` by slicing one permuted index.

    Args:
        x, y: all rows, on the device that trains.
        batch_size: rows per batch over all processes together; the last batch may be smaller.
        seed: shuffles each epoch; None keeps the order.
        rank, world_size: of this process among those that share every batch. Each row is seen by
            exactly one process.
    """

    def __init__(
        self,
        x: Tensor,
        y: Tensor,
        batch_size: int,
        seed: int | None = None,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        self.x = x
        self.y = y
        self.batch_size = batch_size
        self.rank = rank
        self.world_size = world_size
        # Lightning calls `sampler.set_epoch`, and asks whatever has a sampler for a batch sampler too.
        self.sampler = EpochShuffle(len(x), seed)
        self.batch_sampler = None

    def __len__(self) -> int:
        return -(-len(self.x) // self.batch_size)

    def __iter__(self) -> Iterator[Batch]:
        if self.sampler.seed is None and self.world_size == 1:
            yield from zip(self.x.split(self.batch_size), self.y.split(self.batch_size), strict=True)
            return
        order = self.sampler.order().to(self.x.device)
        for start in range(0, len(order), self.batch_size):
            index = order[start : start + self.batch_size][self.rank :: self.world_size]
            yield self.x[index], self.y[index]
