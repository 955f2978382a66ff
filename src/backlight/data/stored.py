"""Rows that stay on disk, because memory need not hold them."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from backlight.backprop.sparse import Rows, SparseRows, concatenate
from backlight.data.cache import cached, fingerprint
from backlight.data.source import Encoder, Floats, Ints
from backlight.errors import BacklightError

if TYPE_CHECKING:
    import pandas as pd

PARQUET_SUFFIXES = (".parquet", ".pq")
ARROW_SUFFIXES = (".arrow", ".feather")

STORED_VALUES = 2**27
"""A file that holds more numbers is not read into memory, where they would take half a gigabyte and more."""

MAPPED_BYTES = 2**22
"""Of a file, mapped at a time: a page that was read counts as memory of the process until its mapping ends, and so do those
around it, 64 KB or, from Linux 6.18 on, up to 2 MB: of few rows far from each other all of a large file."""

ROWS_PER_THREAD = 4096
ROWS_AT_ONCE = 100_000
BUFFER_BYTES = 2**20  # of each column of a Parquet file
SAMPLE_ROWS = 8192


@dataclass(frozen=True)
class StoredRows:
    """Rows of a two-dimensional `.npy` file, of which no more is in memory than was just asked for.

    Attributes:
        path: of the file `[n, columns]`.
        rows: which of its rows these are.
        transform: turns rows of the file, as float32, into features `[n, features]`; None leaves them as they are.
        device: of what indexing returns; None is the CPU.
    """

    path: Path
    rows: Ints
    transform: Callable[[Floats], Any] | None = None
    device: torch.device | None = None

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def shape(self) -> tuple[int, int]:
        return len(self.rows), self._layout[1][1]

    def __getitem__(self, rows: slice | Tensor) -> Tensor:
        """Read `[rows, columns]`."""
        found = self._read(self.rows[rows.cpu().numpy() if isinstance(rows, Tensor) else rows])
        return torch.from_numpy(found).to(self.device)

    def split(self, size: int) -> Iterator[Tensor]:
        """Read so many rows at a time."""
        return (self[start : start + size] for start in range(0, len(self), size))

    def take(self, index: Ints) -> "StoredRows":
        """The rows at `index`, in that order; nothing is read."""
        return replace(self, rows=self.rows[index])

    def to(self, device: torch.device) -> "StoredRows":
        return replace(self, device=device)

    def _read(self, rows: Ints) -> Floats:
        offset, shape, dtype = self._layout
        found = np.empty((len(rows), shape[1]), np.float32)

        def find(some: Ints) -> None:
            places = rows[some] * (shape[1] * dtype.itemsize) // MAPPED_BYTES
            for piece in np.split(some, np.flatnonzero(np.diff(places)) + 1):
                read = np.memmap(self.path, dtype, "r", offset, shape)[rows[piece]].astype(
                    np.float32, copy=False
                )
                found[piece] = read if self.transform is None else self.transform(read)

        threads = max(1, min(torch.get_num_threads(), len(rows) // ROWS_PER_THREAD))
        try:
            with ThreadPoolExecutor(threads) as pool:
                # As they lie, so that neighbours are read together.
                list(pool.map(find, np.array_split(np.argsort(rows), threads)))
        except (OSError, ValueError) as error:
            reason = " ".join(str(error).split())
            raise BacklightError(f"{self.path}: was read before and cannot be read now: {reason}") from error
        return found

    @cached_property
    def _layout(self) -> "tuple[int, tuple[int, ...], np.dtype[Any]]":
        """Where the numbers begin in the file, their shape and type."""
        mapped = np.load(self.path, mmap_mode="r", allow_pickle=False)
        return mapped.offset, mapped.shape, mapped.dtype


@dataclass(frozen=True)
class StoredTable:
    """Rows of a Parquet or Arrow file, to be asked for one column of all rows, or for some rows of all columns.

    Attributes:
        path: of the file.
        columns: those that are wanted.
        rows: which of its rows these are.
        rows_in_file: these and all others.
        categories: columns whose numbers are names.
    """

    path: Path
    columns: Sequence[str]
    rows: Ints
    rows_in_file: int
    categories: frozenset[str] = frozenset()

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def shape(self) -> tuple[int, int]:
        return len(self.rows), len(self.columns)

    def __getitem__(self, name: str) -> "pd.Series[Any]":
        """Read one column; its index is the row in the file."""
        with _reading(self.path):
            column = _dataset(self.path).to_table(columns=[name]).column(0)
        series: pd.Series[Any] = column.to_pandas().rename(name).take(self.rows)
        return series.astype("category") if name in self.categories else series

    def take(self, index: Ints) -> "StoredTable":
        """The rows at `index`, in that order; nothing is read."""
        return replace(self, rows=self.rows[index])

    def drop(self, columns: Sequence[str]) -> "StoredTable":
        return replace(self, columns=[name for name in self.columns if name not in columns])

    def astype(self, kinds: dict[str, str]) -> "StoredTable":
        """As a data frame's, of which it knows `category` only."""
        return replace(self, categories=frozenset(kinds))

    def frames(self) -> "Iterator[pd.DataFrame]":
        """All rows of the file, these and others, some at a time."""
        start = 0
        with _reading(self.path):
            batches = _dataset(self.path).to_batches(
                columns=list(self.columns), batch_size=ROWS_AT_ONCE, batch_readahead=1
            )
            for batch in batches:
                frame = batch.to_pandas()
                frame.index += start
                start += len(frame)
                yield frame


Features = Rows | StoredRows
"""x of a part of the data."""


def stored_table(path: Path) -> StoredTable | None:
    """All rows of a file; None where it is small enough for memory, or none that can be read by columns."""
    if path.suffix.lower() not in PARQUET_SUFFIXES + ARROW_SUFFIXES:
        return None
    try:
        dataset = _dataset(path)
        rows, columns = dataset.count_rows(), dataset.schema.names
    except (OSError, ValueError):  # whoever reads it whole says what is wrong
        return None
    return StoredTable(path, columns, np.arange(rows), rows) if rows * len(columns) > STORED_VALUES else None


def stored_features(table: StoredTable, encoder: Encoder) -> Features:
    """What the encoder makes of these rows, kept on disk with the features of all other rows of the file.

    Sparse rows, which take little room, are kept in memory; so are others if the disk has no room for them.
    """
    first = encoder.transform(next(table.frames()))
    if isinstance(first, SparseRows):
        every = [encoder.transform(frame) for frame in table.frames()]
        return concatenate([rows for rows in every if isinstance(rows, SparseRows)])[
            torch.from_numpy(table.rows)
        ]

    def fill(into: NDArray[Any]) -> None:
        start = 0
        for frame in table.frames():
            _part(into, start, len(frame))[:] = encoder.transform(frame)
            start += len(frame)

    name = f"table-{fingerprint([str(table.path)], (table.categories, encoder.state_dict()))}"
    features = cached(name, (table.rows_in_file, first.shape[1]), np.dtype(np.float32), fill)
    if isinstance(features, np.memmap):
        return StoredRows(Path(str(features.filename)), table.rows)
    return torch.from_numpy(features[table.rows])


def _part(array: NDArray[Any], start: int, rows: int) -> NDArray[Any]:
    """Some rows of an array to write to; mapped on their own, so that what is written does not stay in memory."""
    if not isinstance(array, np.memmap):
        return array[start : start + rows]
    shape, row_bytes = (rows, *array.shape[1:]), array.strides[0]
    return np.memmap(str(array.filename), array.dtype, "r+", array.offset + start * row_bytes, shape)


def sampled_first(rows: Ints, seed: int) -> Ints:
    """These rows, a sample of them first and then the others as they lie on disk, where reading them is fast."""
    sample = np.random.default_rng(seed).choice(len(rows), min(len(rows), SAMPLE_ROWS), replace=False)
    return np.concatenate([rows[sample], np.sort(np.delete(rows, sample))])


def _dataset(path: Path) -> Any:
    import pyarrow.dataset

    if path.suffix.lower() not in PARQUET_SUFFIXES:
        return pyarrow.dataset.dataset(path, format="ipc")
    # Buffered as it goes; by default all that was read stays in memory until the end.
    scan = pyarrow.dataset.ParquetFragmentScanOptions(
        use_buffered_stream=True, buffer_size=BUFFER_BYTES, pre_buffer=False
    )
    return pyarrow.dataset.dataset(
        path, format=pyarrow.dataset.ParquetFileFormat(default_fragment_scan_options=scan)
    )


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Raises a BacklightError where Arrow finds the file damaged."""
    try:
        yield
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise BacklightError(f"{path}: not a readable table: {reason}") from error
