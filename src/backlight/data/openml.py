"""Tables of OpenML (Vanschoren et al. 2013), by scikit-learn's fetcher."""

import warnings

from backlight.data.columns import ManyCategories
from backlight.data.source import Labelled
from backlight.data.table import labelled_frame
from backlight.errors import BacklightError
from backlight.ranges import Count


def openml(
    seed: int,
    *,
    name: str,
    version: Count | None = None,
    target: str | None = None,
    cache: str | None = None,
    drop: list[str] | None = None,
    categorical: list[str] | None = None,
    max_categories: Count = 100,
    many_categories: ManyCategories = "refuse",
    buckets: Count = 1024,
    group: str | None = None,
    time: str | None = None,
) -> Labelled:
    """A data set of OpenML: downloaded when it is named for the first time, then read from scikit-learn's cache.

    Args:
        seed: not used; the set is what it is.
        name: of the data set.
        version: of it; None is the active one.
        target: the column that holds the classes; None is the one that the data set names.
        cache: folder; None is scikit-learn's own.
        drop, categorical, max_categories, many_categories, buckets, group, time: as for `table`.

    Raises:
        BacklightError: the data set cannot be had, or cannot be learned.
    """
    from sklearn.datasets import fetch_openml

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of each attempt
            found = fetch_openml(
                name=name, version=version or "active", data_home=cache, as_frame=True, parser="pandas"
            )
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise BacklightError(f"data.name={name}: cannot be had from OpenML: {reason}") from error
    if target is None and len(found.target_names) != 1:
        raise BacklightError(
            f"data.target: the data set {name} names {len(found.target_names)} columns of classes; give one of "
            f"{', '.join(map(str, found.frame.columns))}"
        )
    return labelled_frame(
        found.frame,
        f"OpenML's {name}",
        target=target or found.target_names[0],
        drop=drop,
        categorical=categorical,
        group=group,
        time=time,
        many={"max_categories": max_categories, "many_categories": many_categories, "buckets": buckets},
    )
