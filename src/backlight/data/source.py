"""What every data source returns."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from backlight.errors import BacklightError

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Labelled:
    """Rows with their labels, before any split, encoding or scaling.

    Attributes:
        rows: `[n, features]` float32 numbers, or a data frame whose columns still need an encoding.
        labels: `[n]` int64 index into `class_names`.
        feature_names: one name per column of `rows`.
        class_names: one name per class, in the order of the outputs.
    """

    rows: "NDArray[np.float32] | pd.DataFrame"
    labels: NDArray[np.int64]
    feature_names: list[str]
    class_names: list[str]

    def take(self, index: NDArray[np.int64]) -> "Labelled":
        """The rows at `index`, in that order."""
        rows = self.rows[index] if isinstance(self.rows, np.ndarray) else self.rows.iloc[index]
        return Labelled(rows, self.labels[index], self.feature_names, self.class_names)


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
