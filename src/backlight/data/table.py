"""The user's own table: a CSV, Parquet or JSON-lines file."""

import csv
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from backlight.data.arrays import read_npy
from backlight.data.columns import ManyCategories, as_numbers, as_text
from backlight.data.source import Ints, Labelled
from backlight.data.stored import ARROW_SUFFIXES, BUFFER_BYTES, PARQUET_SUFFIXES, StoredTable, stored_table
from backlight.data.text_files import reading_text
from backlight.errors import BacklightError
from backlight.ranges import Count

if TYPE_CHECKING:
    import pandas as pd

MAX_NUMERIC_CLASSES = 20  # more different non-integer targets than this are a regression problem
JSON_SUFFIXES = (".jsonl", ".ndjson")


def table(
    seed: int,
    *,
    path: str,
    target: str,
    drop: list[str] | None = None,
    categorical: list[str] | None = None,
    max_categories: Count = 100,
    many_categories: ManyCategories = "refuse",
    buckets: Count = 1024,
    group: str | None = None,
    time: str | None = None,
) -> Labelled:
    """Rows of a file, one column of which holds the classes.

    Args:
        seed: not used; the file is what it is.
        path: the file; Parquet if its name ends in .parquet or .pq, Arrow if in .arrow or .feather, JSON lines if in .jsonl
            or .ndjson, else CSV with a header line.
        target: the column that holds the classes.
        drop: columns that are not features.
        categorical: numeric columns whose numbers are names, such as postal codes.
        max_categories: a text column with more different values has many.
        many_categories: what becomes of one: it is refused, or gets a learned vector per value, or per bucket that
            values are hashed to.
        buckets: how many.
        group: the column that names what rows belong to; rows of one stay in one part. It is no feature.
        time: the column of numbers or dates in whose order the last rows are held out. It is no feature.

    Raises:
        BacklightError: the file cannot be read, is empty, or `target` cannot be learned.
    """
    return labelled_frame(
        stored_table(Path(path)) or whole_table(path),
        path,
        target=target,
        drop=drop,
        categorical=categorical,
        group=group,
        time=time,
        many={"max_categories": max_categories, "many_categories": many_categories, "buckets": buckets},
    )


def labelled_frame(
    frame: "pd.DataFrame | StoredTable",
    path: str,
    *,
    target: str,
    drop: list[str] | None,
    categorical: list[str] | None,
    group: str | None,
    time: str | None,
    many: Mapping[str, Any],
) -> Labelled:
    """The rows of a data frame, or of a file too large for one, with the options of `table`; `many` are those of many
    categories.

    Raises:
        BacklightError: `frame`, called `path` in messages, cannot be learned.
    """
    of_rows = {"group": [group] if group else [], "time": [time] if time else []}
    require_columns(frame, path, target=[target], drop=drop, categorical=categorical, **of_rows)
    labels, class_names = class_labels(frame[target], target)
    rows = frame.drop(columns=[target, *(drop or []), *of_rows["group"], *of_rows["time"]])
    if rows.shape[1] == 0:
        raise BacklightError(f"data.path={path}: no column is left as a feature besides '{target}'")
    return Labelled(
        rows.astype(dict.fromkeys(categorical or [], "category")),
        labels,
        [str(name) for name in rows.columns],
        class_names,
        options=many,
        groups=None if group is None else groups_of(frame[group], group),
        ordered_by=None if time is None else times_of(frame[time], time),
    )


def groups_of(column: "pd.Series[Any]", name: str) -> Ints:
    """`[n]`, one number per value.

    Raises:
        BacklightError: a row names none.
    """
    import pandas as pd

    codes = pd.factorize(as_text(column))[0]
    if (codes < 0).any():
        raise BacklightError(f"data.group={name}: row {int((codes < 0).argmax()) + 1} names none; fill it in")
    return codes.astype(np.int64)


def times_of(column: "pd.Series[Any]", name: str) -> NDArray[np.float64]:
    """`[n]`, larger is later.

    Raises:
        BacklightError: a value is neither a number nor a date.
    """
    import pandas as pd

    numbers, is_text = as_numbers(column) if column.dtype.kind != "M" else (np.empty(0), np.array([True]))
    if is_text.any():
        dates = pd.to_datetime(column, errors="coerce", format="mixed", utc=True)
        numbers = dates.astype("int64").to_numpy().astype(np.float64)
        numbers[dates.isna().to_numpy()] = np.nan
    if np.isnan(numbers).any():
        row = int(np.isnan(numbers).argmax())
        raise BacklightError(
            f"data.time={name}: row {row + 1} holds '{column.iloc[row]}'; allowed: numbers and dates"
        )
    return numbers


def whole_table(path: str) -> "pd.DataFrame":
    """Every row of the file.

    Raises:
        BacklightError: as `read_table`, or it has no rows.
    """
    import pandas as pd

    frame = pd.concat(read_table(path), ignore_index=True)
    if frame.empty:
        raise BacklightError(f"data.path={path}: the file has a header but no rows")
    return frame


def require_columns(frame: "pd.DataFrame | StoredTable", path: str, **options: Sequence[str] | None) -> None:
    """Raises a BacklightError where an option of the data names a column that is not there."""
    for option, names in options.items():
        for name in names or []:
            if name not in frame.columns:
                raise BacklightError(
                    f"data.{option}={name}: no such column in {path}; it has {', '.join(map(str, frame.columns))}"
                )


def class_labels(column: "pd.Series[Any]", target: str) -> tuple[Ints, list[str]]:
    """`[n]` the class of every row, and the sorted classes (as numbers where they are numbers).

    Raises:
        BacklightError: values are missing, all the same, or look like a quantity rather than a class.
    """
    if column.isna().any():
        first = int(column.isna().to_numpy().argmax()) + 1
        raise BacklightError(
            f"data.target={target}: {int(column.isna().sum())} of {len(column)} rows have no label "
            f"(the first is data row {first}); fill them in or remove these rows"
        )
    numbers, is_text = as_numbers(column)
    if is_text.any() or column.dtype == bool:
        distinct, codes = np.unique(column.map(str).to_numpy(str), return_inverse=True)
        classes = [str(name) for name in distinct]
    else:
        integral = bool((numbers == np.round(numbers)).all())
        distinct, codes = np.unique(numbers, return_inverse=True)
        if not integral and len(distinct) > MAX_NUMERIC_CLASSES:
            raise BacklightError(
                f"data.target={target}: {len(distinct)} different numbers look like a quantity; allowed: classes"
            )
        classes = [str(int(number)) if integral else str(number) for number in distinct]
    if len(classes) < 2:
        raise BacklightError(
            f"data.target={target}: every row is '{classes[0]}'; a column with two or more classes is needed"
        )
    return codes.astype(np.int64), classes


def read_table(path: str | Path, rows_per_chunk: int = 100_000) -> Iterator["pd.DataFrame"]:
    """The file in pieces, so that inputs larger than memory can be streamed.

    CSV values stay text here: whether a column is numeric is decided from all training rows, never
    from the chunk at hand.

    Raises:
        BacklightError: the file is absent, empty, or not what its name says.
    """
    path = Path(path)
    if not path.is_file():
        raise BacklightError(
            f"{path}: no such file; give the path of a CSV, Parquet, Arrow or JSON-lines file"
        )
    suffix, read = path.suffix.lower(), _read_csv
    for suffixes, reader in (
        (PARQUET_SUFFIXES, _read_parquet),
        (ARROW_SUFFIXES, _read_arrow),
        (JSON_SUFFIXES, _read_json_lines),
        ((".npy",), _read_npy),
    ):
        if suffix in suffixes:
            read = reader
    try:
        with reading_text(path):
            for chunk in read(path, rows_per_chunk):
                chunk.columns = chunk.columns.map(str)
                yield chunk
    except ValueError as error:  # pandas' and Arrow's parse errors
        reason = " ".join(str(error).split())
        raise BacklightError(f"{path}: not a readable table: {reason}") from error


def _read_parquet(path: Path, rows_per_chunk: int) -> Iterator["pd.DataFrame"]:
    import pyarrow.parquet

    # Buffered as it goes; by default all that was read stays in memory until the end.
    with pyarrow.parquet.ParquetFile(path, pre_buffer=False, buffer_size=BUFFER_BYTES) as file:
        if file.metadata.num_rows == 0:
            yield file.schema_arrow.empty_table().to_pandas()
        yield from _numbered(file.iter_batches(rows_per_chunk))


def _read_arrow(path: Path, rows_per_chunk: int) -> Iterator["pd.DataFrame"]:
    import pyarrow.dataset

    yield from _numbered(pyarrow.dataset.dataset(path, format="ipc").to_batches(batch_size=rows_per_chunk))


def _numbered(batches: Iterable[Any]) -> Iterator["pd.DataFrame"]:
    """Of Arrow's batches, the rows of the later ones numbered on."""
    start = 0
    for batch in batches:
        frame = batch.to_pandas()
        frame.index += start
        start += len(frame)
        yield frame


def _read_npy(path: Path, rows_per_chunk: int) -> Iterator["pd.DataFrame"]:
    import pandas as pd

    shape = read_npy(path).shape
    if len(shape) != 2:
        raise BacklightError(f"{path}: is {list(shape)}; allowed: [n, features]")
    columns = [f"x{column}" for column in range(shape[1])]
    for start in range(0, shape[0], rows_per_chunk):
        # Mapped anew: what was read stays in memory as long as its mapping.
        rows = np.array(read_npy(path)[start : start + rows_per_chunk])
        yield pd.DataFrame(rows, np.arange(start, start + len(rows)), columns)


def _read_json_lines(path: Path, rows_per_chunk: int) -> Iterator["pd.DataFrame"]:
    import pandas as pd

    with path.open(encoding="utf-8-sig") as file:
        yield from pd.read_json(
            file, orient="records", lines=True, chunksize=rows_per_chunk, dtype=False, convert_dates=False
        )  # type: ignore[call-overload]  # its stubs know True only


def _read_csv(path: Path, rows_per_chunk: int) -> Iterator["pd.DataFrame"]:
    import pandas as pd

    with path.open(encoding="utf-8-sig", newline="") as file:
        header = file.readline()
        if not header.strip():
            raise BacklightError(f"{path}: the file is empty; a header line and rows are needed")
        separator = max(",;\t|", key=header.count)
        names = next(csv.reader([header], delimiter=separator, skipinitialspace=True))
        twice = [name for name in names if names.count(name) > 1]
        if twice:  # pandas would call the second one 'name.1'
            raise BacklightError(
                f"{path}: two columns are called '{twice[0]}'; every column needs its own name"
            )
        file.seek(0)
        yield from pd.read_csv(
            file, sep=separator, dtype=str, chunksize=rows_per_chunk, skipinitialspace=True
        )
