"""From raw columns to float32 features, with everything that was fitted kept as plain data."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from backlight.backprop.sparse import SparseRows
from backlight.data.columns import Column, Doubles, as_numbers
from backlight.data.source import Floats, Standardize, sparse_rows
from backlight.data.stored import ROWS_AT_ONCE, SAMPLE_ROWS, StoredRows, StoredTable
from backlight.errors import BacklightError

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class FeatureEncoder:
    """Raw columns → `[n, features]` float32: encode each column, by rank if asked to, then `(value − mean) / scale`.

    `mean` and `scale` have one number per feature and were fitted on training rows only; they are 0
    and 1 for features that are 0/1 indicators, and everywhere when standardising is off.
    """

    columns: list[Column]
    mean: list[float]
    scale: list[float]

    @classmethod
    def fit(
        cls,
        rows: "Floats | StoredRows | pd.DataFrame | StoredTable",
        feature_names: Sequence[str],
        *,
        standardize: Standardize,
        **options: Any,
    ) -> "FeatureEncoder":
        """Learn columns, fill values, categories, means and scales from training rows.

        Args:
            rows: `[n, features]`, or columns by their names.
            feature_names: of its columns.
            standardize: whether to fit mean and scale; `quantile` spreads numbers by their rank before, of rows on disk
                by that in a sample.
            options: of `Column.fit`.

        Raises:
            BacklightError: a column cannot be a feature.
        """
        if isinstance(rows, np.ndarray | StoredRows):
            columns = [Column(name, "numeric") for name in feature_names]
            if standardize == "quantile":
                rows = rows if isinstance(rows, np.ndarray) else rows[:SAMPLE_ROWS].double().numpy()
                columns = [column.ranked(numbers) for column, numbers in zip(columns, rows.T, strict=True)]
                rows = _spread(columns, rows)
            mean, scale = np.zeros(len(columns)), np.ones(len(columns))
            if standardize:
                mean, scale = mean_and_scale(rows) if isinstance(rows, np.ndarray) else _streamed(rows)
            return cls(columns, mean.tolist(), scale.tolist())
        # One column at a time, which is all of a file that needs to be in memory.
        fitted = [_fit_column(rows[name], standardize, options) for name in feature_names]
        fitted.sort(key=lambda each: each[0].is_sparse)  # the others stay in their order
        means, scales = (np.concatenate(each).tolist() for each in list(zip(*fitted, strict=True))[1:])
        return cls([column for column, _, _ in fitted], means, scales)

    @property
    def feature_names(self) -> list[str]:
        return [name for column in self.columns for name in column.feature_names]

    @property
    def is_ranked(self) -> bool:
        """Whether any column is spread by rank."""
        return any(column.landmarks for column in self.columns)

    def transform(self, rows: "Floats | pd.DataFrame") -> Floats | SparseRows:
        """`[n, features]` float32, standardised; sparse where a column is.

        Raises:
            BacklightError: a column is absent or holds what it did not hold in training.
        """
        if isinstance(rows, np.ndarray) and rows.shape[1] != len(self.columns):
            raise BacklightError(
                f"the data has {rows.shape[1]} features; the model was trained on {len(self.columns)}"
            )
        mean, scale = np.array(self.mean), np.array(self.scale)
        if isinstance(rows, np.ndarray):
            standardised: NDArray[Any] = _spread(self.columns, rows) - mean
            standardised /= scale
            return standardised.astype(np.float32)
        sparse = [column for column in self.columns if column.is_sparse]
        dense = self._dense(rows, mean, scale)
        if not sparse:
            return dense
        from scipy.sparse import csr_matrix, hstack

        others = [column.encode(rows[column.name]) for column in sparse]
        return sparse_rows(hstack([csr_matrix(dense), *others], format="csr"))

    def _dense(self, rows: "pd.DataFrame", mean: Doubles, scale: Doubles) -> Floats:
        """Of all columns that are not sparse; the others must be there."""
        absent = [column.name for column in self.columns if column.name not in rows.columns]
        if absent:
            raise BacklightError(
                f"column '{absent[0]}' is absent; the model needs {', '.join(column.name for column in self.columns)}"
            )
        columns = [column for column in self.columns if not column.is_sparse]
        found = np.empty((len(rows), sum(len(column.feature_names) for column in columns)), dtype=np.float32)
        start = 0
        for column in columns:
            values = column.encode(rows[column.name])
            of_column = slice(start, start + values.shape[1])
            found[:, of_column] = (values - mean[of_column]) / scale[of_column]
            start = of_column.stop
        return found

    def gathered(self, values: NDArray[Any]) -> NDArray[Any]:
        """`[n, features]`, no longer standardised, as it was before it was spread by rank."""
        gathered, place = values.copy(), 0
        for column in self.columns:
            gathered[:, place] = column.gathered(values[:, place])
            place += len(column.feature_names)
        return gathered

    def is_close(self, other: "FeatureEncoder") -> bool:
        """Whether both encode alike, but for the rounding in which one machine differs from another."""
        return self.columns == other.columns and bool(
            np.allclose(self.mean, other.mean, rtol=1e-9, atol=1e-12)
            and np.allclose(self.scale, other.scale, rtol=1e-9)
        )

    def state_dict(self) -> dict[str, Any]:
        """Plain data for a checkpoint."""
        usual = vars(Column("", "numeric"))
        columns = [
            column.name  # of plain numbers there may be thousands
            if column == Column(column.name, "numeric")
            else {
                key: value
                for key, value in vars(column).items()
                if key in ("name", "kind") or value != usual[key]
            }
            for column in self.columns
        ]
        return {"columns": columns, "mean": self.mean, "scale": self.scale}

    @classmethod
    def from_state_dict(cls, state: dict[str, Any]) -> "FeatureEncoder":
        columns = [Column(c, "numeric") if isinstance(c, str) else Column(**c) for c in state["columns"]]
        return cls(columns, state["mean"], state["scale"])


def _spread(columns: list[Column], rows: NDArray[Any]) -> NDArray[Any]:
    """Numbers `[n, features]` by their rank, where the columns say so."""
    if not any(column.landmarks for column in columns):
        return rows
    return np.stack([column.spread(numbers) for column, numbers in zip(columns, rows.T, strict=True)], axis=1)


def mean_and_scale(values: NDArray[Any]) -> tuple[Doubles, Doubles]:
    """`[features]` each, of `[n, features]`: the mean and the standard deviation to divide by."""
    # One column after the other in memory: NumPy then sums in pairs, which rounds less.
    wide = np.asfortranarray(values, dtype=np.float64)
    mean, deviation = wide.mean(axis=0), wide.std(axis=0)
    return mean, _divisor(mean, deviation)


def _streamed(rows: StoredRows) -> tuple[Doubles, Doubles]:
    """The same of rows that are read some at a time."""
    from sklearn.preprocessing import StandardScaler

    scaler = StandardScaler()
    for some in rows.split(ROWS_AT_ONCE):
        scaler.partial_fit(some.double().numpy())
    return scaler.mean_, _divisor(scaler.mean_, np.sqrt(scaler.var_))


def _divisor(mean: Doubles, deviation: Doubles) -> Doubles:
    """A feature that is constant in training must not be divided by rounding noise."""
    return np.where(deviation <= 1e-7 * np.abs(mean), 1.0, deviation)


def _fit_column(
    series: "pd.Series[Any]", standardize: Standardize, options: Mapping[str, Any]
) -> tuple[Column, Doubles, Doubles]:
    """The column, and mean and scale of its features: of its number, but not of its indicators and cycles."""
    column = Column.fit(series, **options)
    if standardize == "quantile" and column.kind == "numeric":
        column = column.ranked(as_numbers(series.dropna())[0])
    mean, scale = np.zeros(len(column.feature_names)), np.ones(len(column.feature_names))
    if standardize and column.kind in ("numeric", "date"):
        mean[:1], scale[:1] = mean_and_scale(column.encode(series)[:, :1])
    return column, mean, scale
