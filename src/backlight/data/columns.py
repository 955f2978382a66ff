"""One column of a table: what it holds, and the features that it becomes."""

import zlib
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from backlight.errors import BacklightError

if TYPE_CHECKING:
    import pandas as pd

Doubles = NDArray[np.float64]
ManyCategories = Literal["refuse", "embed", "hash"]

ISO_DATE = r"\d{4}-\d{2}-\d{2}([T ]\d{2}:\d{2}.*)?"
NANOSECONDS_PER_DAY = 86_400 * 10**9
CYCLES = {"month": 12, "weekday": 7, "hour": 24}
LANDMARKS = 100  # of a column that is spread by rank: one for each percent of the rows


@dataclass(frozen=True)
class Column:
    """One raw column and how it becomes features.

    A `numeric` column is one feature, its missing values replaced by `fill` (None refuses them), plus an
    indicator feature where training rows had missing values (`has_missing`). A `date` is one such number, its days since
    1970, then sine and cosine of month and weekday, and of the hour where training rows had any. A `categorical`
    column is one 0/1 feature per category; a value that is missing or was not seen in training is all zeros.
    An `embedded` one is the same kept sparse, and a `hashed` one, sparse too, has one feature per bucket instead
    (Weinberger et al., ICML 2009): its values need not be known. Numbers that are spread by rank become `normals` where they
    are `landmarks`, and lie on straight lines between these.
    """

    name: str
    kind: Literal["numeric", "date", "categorical", "embedded", "hashed"]
    fill: float | None = None
    has_missing: bool = False
    categories: list[str] = field(default_factory=list)
    cycles: list[str] = field(default_factory=list)
    buckets: int = 0
    landmarks: list[float] = field(default_factory=list)
    normals: list[float] = field(default_factory=list)

    @property
    def is_sparse(self) -> bool:
        return self.kind in ("embedded", "hashed")

    @property
    def feature_names(self) -> list[str]:
        if self.kind in ("categorical", "embedded"):
            return [f"{self.name}={category}" for category in self.categories]
        if self.kind == "hashed":
            return [f"{self.name} #{bucket}" for bucket in range(self.buckets)]
        cycles = [f"{self.name} {cycle} {wave}" for cycle in self.cycles for wave in ("sine", "cosine")]
        return [self.name, *cycles, *([f"{self.name} is missing"] if self.has_missing else [])]

    @classmethod
    def fit(
        cls,
        series: "pd.Series[Any]",
        max_categories: int = 100,
        many_categories: ManyCategories = "refuse",
        buckets: int = 1024,
    ) -> "Column":
        """What the training rows of a column show it to be.

        Args:
            series: its values.
            max_categories: with more different texts it is embedded, hashed or refused.
            many_categories: which of these.
            buckets: of a hashed column.

        Raises:
            BacklightError: it cannot be a feature.
        """
        import pandas as pd

        name = str(series.name)
        advice = f"leave it out with data.drop=['{name}']"
        if series.isna().all():
            raise BacklightError(f"data: column '{name}' is empty in the training part; {advice}")
        if series.dtype.kind == "m":
            raise BacklightError(
                f"data: column '{name}' holds durations, which cannot be a feature; {advice}"
            )
        if (
            not is_numeric(series)
            and series.map(lambda value: isinstance(value, list | dict | bytes | np.ndarray)).any()
        ):
            raise BacklightError(
                f"data: column '{name}' holds lists or bytes, which cannot be a feature; {advice}"
            )
        is_truth_value = pd.api.types.infer_dtype(series, skipna=True) == "boolean"
        is_named = isinstance(series.dtype, pd.CategoricalDtype) or is_truth_value
        if not is_named and _are_dates(series):
            return cls._of_dates(series)
        if not is_named:
            numbers, is_wrong = as_numbers(series)
            if 0 < is_wrong.sum() < np.isfinite(numbers).sum():
                row = int(is_wrong.argmax())
                raise BacklightError(
                    f"data: column '{name}' holds '{series.iloc[row]}' among numbers (row {series.index[row] + 1}); "
                    f"correct it, or take all its values as names with data.categorical=['{name}']"
                )
            if not is_wrong.any():
                missing = np.isnan(numbers)
                return cls(name, "numeric", float(np.median(numbers[~missing])), bool(missing.any()))
        categories = sorted(set(as_text(pd.Series(series.dropna().unique())).tolist()))
        if len(categories) <= max_categories:
            return cls(name, "categorical", categories=categories)
        if many_categories == "embed":
            return cls(name, "embedded", categories=categories)
        if many_categories == "hash":
            return cls(name, "hashed", buckets=buckets)
        raise BacklightError(
            f"data: column '{name}' has {len(categories)} different texts (such as '{categories[0][:40]}'), too many "
            f"to be a feature; {advice}, allow more with data.max_categories (now {max_categories}), or give each a "
            "learned vector with data.many_categories=embed"
        )

    def ranked(self, numbers: Doubles) -> "Column":
        """The same that spreads numbers by their rank among these, `[n]`, as a normal distribution is spread (Blom 1958)."""
        from scipy.special import ndtri

        places = (np.arange(LANDMARKS) + 0.5) / LANDMARKS
        landmarks, which = np.unique(
            np.quantile(numbers.astype(np.float64), places, method="inverted_cdf"), return_inverse=True
        )
        if len(landmarks) == 1:
            return self  # a constant has no ranks
        # Of numbers that many rows share the rank is the mean of theirs.
        mean_places = np.bincount(which, places) / np.bincount(which)
        return replace(self, landmarks=landmarks.tolist(), normals=ndtri(mean_places).tolist())

    def spread(self, numbers: Doubles) -> Doubles:
        """Numbers `[n]` by their rank, or as they are."""
        return np.interp(numbers, self.landmarks, self.normals) if self.landmarks else numbers

    def gathered(self, numbers: Doubles) -> Doubles:
        """Numbers `[n]` that `spread` would make so; of those beyond all landmarks the nearest of these."""
        return np.interp(numbers, self.normals, self.landmarks) if self.landmarks else numbers

    def encode(self, series: "pd.Series[Any]") -> Any:
        """`[n, features]` float64, or a SciPy matrix of sparse rows.

        Raises:
            BacklightError: the column holds what it did not hold in training.
        """
        if self.is_sparse:
            return self._encode_sparse(series)
        if self.kind == "categorical":
            texts = as_text(series)
            return np.stack([texts == category for category in self.categories], axis=1).astype(np.float64)
        if self.kind == "date":
            return self._encode_dates(series)
        numbers = self.spread(_numbers(series, self))
        if not self.has_missing:
            return numbers[:, None]
        return np.stack([numbers, series.isna().to_numpy().astype(np.float64)], axis=1)

    @classmethod
    def _of_dates(cls, series: "pd.Series[Any]") -> "Column":
        days = _days(series)
        known = days[~np.isnan(days)]
        cycles = ["month", "weekday", *(["hour"] if (known % 1 != 0).any() else [])]
        missing = bool(np.isnan(days).any())
        return cls(str(series.name), "date", float(np.median(known)), missing, cycles=cycles)

    def _encode_dates(self, series: "pd.Series[Any]") -> Doubles:
        days = _days(series)
        is_wrong = np.isnan(days) & series.notna().to_numpy()
        if is_wrong.any():
            row = int(is_wrong.argmax())
            raise BacklightError(
                f"column '{self.name}' held dates in training but holds '{series.iloc[row]}' (row "
                f"{series.index[row] + 1}); allowed: dates such as 2024-12-31"
            )
        missing = np.isnan(days)
        filled = np.where(missing, 0.0 if self.fill is None else self.fill, days)
        of_cycle = {
            "month": np.where(missing, 0, _months(filled)),
            "weekday": (np.floor(filled) + 3) % 7,  # the first of January 1970 was a Thursday
            "hour": filled % 1 * 24,
        }
        features = [filled]
        for cycle in self.cycles:
            angle = 2 * np.pi * of_cycle[cycle] / CYCLES[cycle]
            features += [np.where(missing, 0.0, np.sin(angle)), np.where(missing, 0.0, np.cos(angle))]
        if self.has_missing:
            features.append(missing.astype(np.float64))
        return np.stack(features, axis=1)

    def _encode_sparse(self, series: "pd.Series[Any]") -> Any:
        import pandas as pd
        from scipy.sparse import csr_matrix

        codes, values = pd.factorize(as_text(series))
        if self.kind == "embedded":
            place = {category: number for number, category in enumerate(self.categories)}
            of_value = np.array([place.get(value, -1) for value in values], dtype=np.int64)
        else:
            of_value = np.array(
                [zlib.crc32(value.encode()) % self.buckets for value in values], dtype=np.int64
            )
        columns = np.where(codes < 0, -1, np.append(of_value, -1)[codes])
        known = columns >= 0
        starts = np.append(0, np.cumsum(known))
        shape = (len(series), len(self.categories) or self.buckets)
        return csr_matrix((np.ones(int(known.sum())), columns[known], starts), shape=shape)


def as_numbers(series: "pd.Series[Any]") -> tuple[Doubles, NDArray[np.bool_]]:
    """The column as float64, NaN where it is missing or not a number; and where it is not a number."""
    import pandas as pd

    if is_numeric(series):
        return series.to_numpy(np.float64, na_value=np.nan), np.zeros(len(series), dtype=bool)
    numbers = pd.to_numeric(series.astype(object), errors="coerce").to_numpy(np.float64, na_value=np.nan)
    return numbers, np.isnan(numbers) & series.notna().to_numpy()


def is_numeric(series: "pd.Series[Any]") -> bool:
    """Whether the column is one of numbers already, and none of texts that may be numbers."""
    return series.dtype.kind in "iuf"


def as_text(series: "pd.Series[Any]") -> NDArray[np.object_]:
    """The column as str, None or NaN where missing; whole numbers are written without a decimal point."""
    if series.dtype.kind == "f" and (series.dropna() % 1 == 0).all():
        series = series.astype("Int64")  # a missing value turns integers into floats
    return series.astype(object).map(str, na_action="ignore").to_numpy(np.object_)


def _are_dates(series: "pd.Series[Any]") -> bool:
    """Whether a column holds dates, or texts that all are such as 2024-12-31 or 2024-12-31 23:59."""
    import pandas as pd

    if series.dtype.kind == "M":
        return True
    known = series.dropna()
    inferred = pd.api.types.infer_dtype(known)
    if inferred != "string":
        return inferred in ("datetime", "date", "datetime64")
    return bool(known.str.fullmatch(ISO_DATE).all()) and not np.isnan(_days(known)).any()


def _days(series: "pd.Series[Any]") -> Doubles:
    """Since 1970, NaN where missing or no date."""
    import pandas as pd

    dates = pd.to_datetime(series, errors="coerce", format="ISO8601", utc=True).astype("datetime64[ns, UTC]")
    days = dates.astype("int64").to_numpy() / NANOSECONDS_PER_DAY
    days[dates.isna().to_numpy()] = np.nan
    return days


def _months(days: Doubles) -> Doubles:
    """0 to 11, with the part of the month that has gone by left out."""
    months: Doubles = np.floor(days).astype("datetime64[D]").astype("datetime64[M]").astype(np.float64) % 12
    return months


def _numbers(series: "pd.Series[Any]", column: Column) -> Doubles:
    numbers, is_wrong = as_numbers(series)
    if is_wrong.any():
        row = int(is_wrong.argmax())
        raise BacklightError(
            f"column '{column.name}' was numeric in training but holds '{series.iloc[row]}' (row {series.index[row] + 1}); "
            "allowed: numbers"
        )
    largest = np.finfo(np.float32).max
    if len(numbers) and -largest <= numbers.min() and numbers.max() <= largest:  # and so none is missing
        return numbers
    is_too_large = np.abs(numbers) > largest
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
