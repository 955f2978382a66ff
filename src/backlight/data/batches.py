"""Batches of tensors that are already in memory on the training device."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice

import numpy as np
import torch
from torch import Tensor, nn

from backlight.backprop.sparse import Rows
from backlight.data.stored import Features, StoredRows

Batch = tuple[Rows, Tensor]
EVALUATION_ROWS = (
    2048  # rows per batch where nothing is learned: the activations of so many stay in the cache of the CPU
)
GATHERED_BYTES = 2**18  # of rows that are brought together at a time: a cache of the CPU holds them
GPU_GATHERED_BYTES = 2**24  # there each time costs as much as an operation


@torch.no_grad()
def logits_of(network: nn.Module, x: Features) -> Tensor:
    """`[rows, outputs]` on the CPU, of encoded features `[rows, features]` that may lie elsewhere than the network."""
    device = next(network.parameters()).device
    logits = torch.empty(len(x), 0)
    start = 0
    for rows in x.split(EVALUATION_ROWS):
        some = network(rows.to(device))
        if start == 0:
            # All at once: small results kept between large activations would hold the memory of these.
            logits = torch.empty(len(x), some.shape[1])
        logits[start : start + len(some)] = some
        start += len(some)
    return logits


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
        return torch.randperm(self.num_rows, generator=self._generator(self.seed))

    def _generator(self, seed: int) -> torch.Generator:
        state = np.random.SeedSequence([seed, self.epoch]).generate_state(1, np.uint64)[0]
        return torch.Generator().manual_seed(int(state >> np.uint64(1)))


class BlockShuffle(EpochShuffle):
    """The order of rows that lie on disk: blocks of neighbours are drawn, and the rows of many blocks are mixed.

    So what is read at a time lies in few places. Another order in each epoch, a function of `(seed, epoch)`
    alone too.

    Args:
        num_rows, seed: as for `EpochShuffle`.
        row_bytes: of a row on disk.
    """

    BLOCK_BYTES = 2**16
    MIXED_BYTES = 2**25

    def __init__(self, num_rows: int, seed: int | None, row_bytes: int) -> None:
        super().__init__(num_rows, seed)
        self.block = max(1, self.BLOCK_BYTES // row_bytes)

    def order(self) -> Tensor:
        """`[num_rows]` row numbers, int64."""
        if self.seed is None:
            return super().order()
        generator = self._generator(self.seed)
        blocks = torch.randperm(-(-self.num_rows // self.block), generator=generator)
        mixed = []
        for some in blocks.split(self.MIXED_BYTES // self.BLOCK_BYTES):
            rows = (some[:, None] * self.block + torch.arange(self.block)).flatten()
            rows = rows[rows < self.num_rows]
            mixed.append(rows[torch.randperm(len(rows), generator=generator)])
        return torch.cat(mixed)


class Batches:
    """Iterates over `(x [batch, features], y [batch, outputs])` in the order of the rows.

    Args:
        x, y: all rows, on the device that reads them.
        batch_size: rows per batch over all processes together; the last batch may be smaller.
        rank, world_size: of this process among those that share every batch. Each row is seen by
            exactly one process.
    """

    def __init__(self, x: Features, y: Tensor, batch_size: int, rank: int = 0, world_size: int = 1) -> None:
        self.x = x
        self.y = y
        self.batch_size = batch_size
        self.rank = rank
        self.world_size = world_size

    def __len__(self) -> int:
        return -(-len(self.x) // self.batch_size)

    def __iter__(self) -> Iterator[Batch]:
        for x, y in zip(self.x.split(self.batch_size), self.y.split(self.batch_size), strict=True):
            yield x[self.rank :: self.world_size], y[self.rank :: self.world_size]


@dataclass(frozen=True)
class Steps:
    """The batches of successive optimizer steps.

    Attributes:
        x: features that the rows of all of them are taken from.
        index: `[rows]` int64 of x, one batch after the other; None where x holds just these rows.
        y: `[rows, outputs]` of all batches.
        rows: of each batch.
        batch_sizes: what each batch's loss is a mean over: its rows, or with several processes the mean
            number of rows per process, so that the mean of all processes' gradients is exact.
    """

    x: Features
    index: Tensor | None
    y: Tensor
    rows: list[int]
    batch_sizes: Sequence[float]

    @classmethod
    def single(cls, batch: Batch) -> "Steps":
        x, y = batch
        return cls(x, None, y, [len(x)], [len(x)])

    def __iter__(self) -> Iterator[tuple[Rows, Tensor, float]]:
        """x, y and batch size of each step."""
        return zip(self._batches(), self.y.split(self.rows), self.batch_sizes, strict=True)

    def _batches(self) -> Iterator[Rows]:
        if self.index is None:
            yield from self.x[:].split(self.rows)
            return
        at_once = len(self.rows)
        if isinstance(self.x, Tensor):
            # What is read from memory is used while it is in the cache.
            most = GPU_GATHERED_BYTES if self.x.is_cuda else GATHERED_BYTES
            at_once = max(1, most // (4 * self.x.shape[1] * max(*self.rows, 1)))
        end = 0
        for start in range(0, len(self.rows), at_once):
            sizes = self.rows[start : start + at_once]
            begin, end = end, end + sum(sizes)
            some = self.index[begin:end]
            # `[…]` takes twice as long.
            rows = self.x.index_select(0, some) if isinstance(self.x, Tensor) else self.x[some]
            yield from rows.split(sizes) if len(sizes) > 1 else [rows]


class TrainingBatches:
    """Iterates over the batches of an epoch, shuffled, several `Steps` at a time.

    Args:
        x, y, batch_size, rank, world_size: as for `Batches`.
        seed: shuffles each epoch; None keeps the order.
        steps_at_once: batches in each `Steps`; the last may have fewer.
    """

    batch_sampler = None  # Lightning asks whatever has a sampler for one

    def __init__(
        self,
        x: Features,
        y: Tensor,
        batch_size: int,
        seed: int | None = None,
        *,
        steps_at_once: int = 1,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        self.x = x
        self.y = y
        self.batch_size = batch_size
        self.steps_at_once = steps_at_once
        self.rank = rank
        self.world_size = world_size
        # Lightning calls its `set_epoch`.
        self.sampler = (
            BlockShuffle(len(x), seed, 4 * x.shape[1])
            if isinstance(x, StoredRows)
            else EpochShuffle(len(x), seed)
        )

    @property
    def num_batches(self) -> int:
        """Optimizer steps in an epoch."""
        return -(-len(self.x) // self.batch_size)

    def __len__(self) -> int:
        return -(-self.num_batches // self.steps_at_once)

    def __iter__(self) -> Iterator[Steps]:
        steps = self._steps()
        is_shuffled = self.sampler.seed is not None
        return self._read(steps, self.x) if isinstance(self.x, StoredRows) and is_shuffled else steps

    def _read(self, steps: Iterator[Steps], x: StoredRows) -> Iterator[Steps]:
        """The same with their rows in memory; as many as lie close together on disk are read at a time."""
        bytes_of_each = 4 * x.shape[1] * self.steps_at_once * self.batch_size
        while some := list(islice(steps, max(1, BlockShuffle.MIXED_BYTES // bytes_of_each))):
            read = x[torch.cat([each.index for each in some if each.index is not None])]
            for each, own in zip(some, read.split([len(each.y) for each in some]), strict=True):
                yield replace(each, x=own, index=None)

    def _steps(self) -> Iterator[Steps]:
        order = None if self.sampler.seed is None else self.sampler.order().to(self.y.device)
        rows_at_once = self.steps_at_once * self.batch_size
        for start in range(0, len(self.x), rows_at_once):
            end = min(start + rows_at_once, len(self.x))
            index = torch.arange(start, end) if order is None else order[start:end]
            if self.world_size > 1:
                batches = index.split(self.batch_size)
                index = torch.cat([batch[self.rank :: self.world_size] for batch in batches])
            is_whole = order is None and self.world_size == 1
            sizes = [min(self.batch_size, end - first) for first in range(start, end, self.batch_size)]
            yield Steps(
                self.x[start:end] if is_whole else self.x,
                None if is_whole else index,
                self.y[start:end] if is_whole else self.y.index_select(0, index),
                [len(range(self.rank, size, self.world_size)) for size in sizes],
                [size / self.world_size for size in sizes],
            )
