"""From raw columns to float32 features, with everything that was fitted kept as plain data."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from backlight.errors import BacklightError

if TYPE_CHECKING:
    import pandas as pd

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]


@dataclass(frozen=True)
class Column:
    """One raw column and how it becomes features.

    A numeric column is one feature, its missing values replaced by `fill` (None refuses them), plus an
    indicator feature where training rows had missing values (`has_missing`). A categorical column is one 0/1 feature per
    category; a value that is missing or was not seen in training is all zeros.
    """

    name: str
    kind: Literal["numeric", "categorical"]
    fill: float | None = None
    has_missing: bool = False
    categories: list[str] = field(default_factory=list)

    @property
    def feature_names(self) -> list[str]:
        if self.kind == "categorical":
            return [f"{self.name}={category}" for category in self.categories]
        return [self.name, f"{self.name} is missing"] if self.has_missing else [self.name]


@dataclass(frozen=True)
class FeatureEncoder:
    """Raw columns → `[n, features]` float32: encode each column, then `(value − mean) / scale`.

    `mean` and `scale` have one number per feature and were fitted on training rows only; they are 0
    and 1 for features that are 0/1 indicators, and everywhere when standardising is off.
    """

    columns: list[Column]
    mean: list[float]
    scale: list[float]

    @classmethod
    def fit(
        cls,
        rows: "Floats | pd.DataFrame",
        feature_names: Sequence[str],
        *,
        standardize: bool,
        max_categories: int = 100,
    ) -> "FeatureEncoder":
        """Learn columns, fill values, categories, means and scales from training rows.

        Raises:
            BacklightError: a column cannot be a feature.
        """
        if isinstance(rows, np.ndarray):
            columns = [Column(name, "numeric") for name in feature_names]
        else:
            columns = [_fit_column(rows[name], max_categories) for name in feature_names]
        encoded = rows if isinstance(rows, np.ndarray) else _encode(rows, columns)
        mean, scale = np.zeros(encoded.shape[1]), np.ones(encoded.shape[1])
        if standardize:
            numeric = _is_number(columns)
            mean[numeric], scale[numeric] = mean_and_scale(encoded[:, numeric])
        return cls(columns, mean.tolist(), scale.tolist())

    @property
    def feature_names(self) -> list[str]:
        return [name for column in self.columns for name in column.feature_names]

    def transform(self, rows: "Floats | pd.DataFrame") -> Floats:
        """`[n, features]` float32, standardised.

        Raises:
            BacklightError: a column is absent or holds what it did not hold in training.
        """
        if isinstance(rows, np.ndarray) and rows.shape[1] != len(self.columns):
            raise BacklightError(
                f"the data has {rows.shape[1]} features; the model was trained on {len(self.columns)}"
            )
        encoded = rows if isinstance(rows, np.ndarray) else _encode(rows, self.columns)
        standardised: Floats = ((encoded - np.array(self.mean)) / np.array(self.scale)).astype(np.float32)
        return standardised

    def is_close(self, other: "FeatureEncoder") -> bool:
        """Whether both encode alike, but for the rounding in which one machine differs from another."""
        return self.columns == other.columns and bool(
            np.allclose(self.mean, other.mean, rtol=1e-9, atol=1e-12)
            and np.allclose(self.scale, other.scale, rtol=1e-9)
        )

    def state_dict(self) -> dict[str, Any]:
        """Plain data for a checkpoint."""
        return asdict(self)

    @classmethod
    def from_state_dict(cls, state: dict[str, Any]) -> "FeatureEncoder":
        return cls([Column(**column) for column in state["columns"]], state["mean"], state["scale"])


def mean_and_scale(values: NDArray[Any]) -> tuple[Doubles, Doubles]:
    """`[features]` each, of `[n, features]`: the mean and the standard deviation to divide by."""
    wide = values.astype(np.float64)
    mean, deviation = wide.mean(axis=0), wide.std(axis=0)
    # A feature that is constant in training must not be divided by rounding noise.
    return mean, np.where(deviation <= 1e-7 * np.abs(mean), 1.0, deviation)


def as_numbers(series: "pd.Series[Any]") -> tuple[Doubles, NDArray[np.bool_]]:
    """The column as float64, NaN where it is missing or not a number; and where it is not a number."""
    import pandas as pd

    numbers = pd.to_numeric(series.astype(object), errors="coerce").to_numpy(np.float64, na_value=np.nan)
    return numbers, np.isnan(numbers) & series.notna().to_numpy()


def as_text(series: "pd.Series[Any]") -> NDArray[np.object_]:
    """The column as str, None or NaN where missing; whole numbers are written without a decimal point."""
    if series.dtype.kind == "f" and (series.dropna() % 1 == 0).all():
        series = series.astype("Int64")  # a missing value turns integers into floats
    return series.astype(object).map(str, na_action="ignore").to_numpy(np.object_)


def _fit_column(series: "pd.Series[Any]", max_categories: int) -> Column:
    import pandas as pd

    name = str(series.name)
    advice = f"leave it out with data.drop=['{name}']"
    if series.dtype.kind in "mM":
        raise BacklightError(f"data: column '{name}' holds dates, which cannot be a feature; {advice}")
    if series.isna().all():
        raise BacklightError(f"data: column '{name}' is empty in the training part; {advice}")
    if series.map(lambda value: isinstance(value, list | dict | bytes | np.ndarray)).any():
        raise BacklightError(
            f"data: column '{name}' holds lists or bytes, which cannot be a feature; {advice}"
        )
    is_truth_value = pd.api.types.infer_dtype(series, skipna=True) == "boolean"
    if not isinstance(series.dtype, pd.CategoricalDtype) and not is_truth_value:
        numbers, is_wrong = as_numbers(series)
        if 0 < is_wrong.sum() < np.isfinite(numbers).sum():
            row = int(is_wrong.argmax())
            raise BacklightError(
                f"data: column '{name}' holds '{series.iloc[row]}' among numbers (row {series.index[row] + 1}); "
                f"correct it, or take all its values as names with data.categorical=['{name}']"
            )
        if not is_wrong.any():
            missing = np.isnan(numbers)
            return Column(name, "numeric", float(np.median(numbers[~missing])), bool(missing.any()))
    categories = sorted(set(as_text(series.dropna()).tolist()))
    if len(categories) > max_categories:
        raise BacklightError(
            f"data: column '{name}' has {len(categories)} different texts (such as '{categories[0][:40]}'), too many "
            f"to be a feature; {advice} or allow more with data.max_categories (now {max_categories})"
        )
    return Column(name, "categorical", categories=categories)


def _is_number(columns: Sequence[Column]) -> NDArray[np.bool_]:
    """Which features are numbers, as opposed to 0/1 indicators."""
    return np.array(
        [
            column.kind == "numeric" and position == 0
            for column in columns
            for position, _ in enumerate(column.feature_names)
        ],
        dtype=bool,
    )


def _encode(frame: "pd.DataFrame", columns: Sequence[Column]) -> Doubles:
    absent = [column.name for column in columns if column.name not in frame.columns]
    if absent:
        raise BacklightError(
            f"column '{absent[0]}' is absent; the model needs {', '.join(column.name for column in columns)}"
        )
    features: list[Doubles] = []
    for column in columns:
        series = frame[column.name]
        if column.kind == "categorical":
            texts = as_text(series)
            features += [(texts == category).astype(np.float64) for category in column.categories]
            continue
        features.append(_numbers(series, column))
        if column.has_missing:
            features.append(series.isna().to_numpy().astype(np.float64))
    return np.stack(features, axis=1)


def _numbers(series: "pd.Series[Any]", column: Column) -> Doubles:
    numbers, is_wrong = as_numbers(series)
    if is_wrong.any():
        row = int(is_wrong.argmax())
        raise BacklightError(
            f"column '{column.name}' was numeric in training but holds '{series.iloc[row]}' (row {series.index[row] + 1}); "
            "allowed: numbers"
        )
    is_too_large = np.abs(numbers) > np.finfo(np.float32).max
    if is_too_large.any():
        row = int(is_too_large.argmax())
        raise BacklightError(
            f"column '{column.name}' holds {numbers[row]} (row {series.index[row] + 1}); "
            "allowed: finite numbers of float32 and missing values"
        )
    is_missing = np.isnan(numbers)
    if column.fill is None and is_missing.any():
        row = int(is_missing.argmax())
        raise BacklightError(
            f"column '{column.name}' has no value (row {series.index[row] + 1}); allowed: numbers, since it had "
            "no missing values in training"
        )
    return np.where(is_missing, 0.0 if column.fill is None else column.fill, numbers)
