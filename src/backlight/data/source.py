"""What every data source returns."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from backlight.backprop.sparse import SparseRows
from backlight.errors import BacklightError

if TYPE_CHECKING:
    import pandas as pd

Ints = NDArray[np.int64]
Floats = NDArray[np.float32]
RawRows = Any
"""`[n, …]` numbers, `[n]` paths, a data frame of n rows, or rows that stay on disk: what the encoder of its kind takes."""

Standardize = bool | Literal["quantile"]
JudgedBy = Literal["sentence", "ranking"]
Part = Literal["train", "val", "test"]
PARTS: tuple[Part, ...] = ("train", "val", "test")


class Encoder(Protocol):
    """Turns raw rows into features; what it has learned of the training rows is plain data."""

    @property
    def feature_names(self) -> list[str]: ...

    def transform(self, rows: RawRows) -> Floats | SparseRows:
        """`[n, features]`

        Raises:
            BacklightError: rows are not what they were in training.
        """
        ...

    @property
    def mean(self) -> Sequence[float]:
        """`[features]`, what was subtracted of each before it was divided by its `scale`."""
        ...

    @property
    def scale(self) -> Sequence[float]:
        """`[features]`"""
        ...

    def is_close(self, other: Any) -> bool:
        """Whether both encode alike, but for the rounding in which one machine differs from another."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """Plain data for a checkpoint."""
        ...


class NotStandardized:
    """Of an encoder whose features are mostly 0: nothing is subtracted of them."""

    @property
    def feature_names(self) -> list[str]:
        raise NotImplementedError

    @property
    def mean(self) -> list[float]:
        return [0.0] * len(self.feature_names)

    @property
    def scale(self) -> list[float]:
        return [1.0] * len(self.feature_names)


class Chunk(NamedTuple):
    """Some rows of a file: `rows`, and `keys`, a data frame that says which they are, maybe without columns."""

    keys: "pd.DataFrame"
    rows: RawRows


@dataclass(frozen=True)
class Labelled:
    """Rows with their labels, before any split, encoding or scaling.

    Attributes:
        rows: raw; of the kind `columns` `[n, features]` float32 numbers, or a data frame.
        labels: `[n]` int64 index into `class_names`.
        feature_names: one name per column of `rows`, where it has columns.
        class_names: one name per class, in the order of the outputs.
        kind: of the rows, a key of `backlight.data.kinds.KINDS`.
        options: of the encoder that is to be fitted.
        groups: `[n]`; rows of one group stay in one part.
        ordered_by: `[n]`; the last rows in this order are held out.
        parts: `[n]` index into `PARTS`, where the source itself says which rows are held out.
        judged_by: what metrics look at groups: whether all of a `sentence` is right, or where the positive
            row is in the `ranking` of its group.
    """

    rows: RawRows
    labels: Ints
    feature_names: list[str]
    class_names: list[str]
    kind: str = "columns"
    options: Mapping[str, Any] = field(default_factory=dict)
    groups: Ints | None = None
    ordered_by: NDArray[Any] | None = None
    parts: Ints | None = None
    judged_by: JudgedBy | None = None

    def take(self, index: Ints) -> "Labelled":
        """The rows at `index`, in that order."""
        of_rows = {
            name: getattr(self, name)[index]
            for name in ("labels", "groups", "ordered_by", "parts")
            if getattr(self, name) is not None
        }
        rows = self.rows[index] if isinstance(self.rows, np.ndarray) else self.rows.take(index)
        return replace(self, rows=rows, **of_rows)


Source = Callable[..., Labelled]


def labelled(
    x: Any,
    labels: Any,
    feature_names: Sequence[str] | None = None,
    class_names: Sequence[str] | None = None,
) -> Labelled:
    """`Labelled` from arrays; features are called x0, x1, … and classes 0, 1, … unless named.

    Raises:
        BacklightError: a value of `x` is NaN or infinite.
    """
    rows = np.ascontiguousarray(x, dtype=np.float32)
    if not np.isfinite(rows).all():
        raise BacklightError("data: the source gave a value that is not a finite number; allowed: finite")
    y = np.asarray(labels, dtype=np.int64)
    return Labelled(
        rows,
        y,
        list(feature_names or (f"x{column}" for column in range(rows.shape[1]))),
        list(class_names or (str(label) for label in range(int(y.max()) + 1))),
    )


def numbered(names: Iterable[str], class_names: Sequence[str]) -> Ints:
    """`[n]` the index of each name among the classes."""
    codes = {name: code for code, name in enumerate(class_names)}
    return np.array([codes[name] for name in names], dtype=np.int64)


def sparse_rows(matrix: Any) -> SparseRows:
    """Of a SciPy matrix in compressed sparse rows `[n, features]`."""
    return SparseRows(
        torch.from_numpy(matrix.indptr.astype(np.int64)),
        torch.from_numpy(matrix.indices.astype(np.int64)),
        torch.from_numpy(matrix.data.astype(np.float32)),
        matrix.shape[1],
    )
