from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.model_selection import train_test_split

from backlight.data.source import Labelled
from backlight.data.splits import split
from backlight.errors import BacklightError


def source(labels: Any, class_names: list[str], **more: Any) -> Labelled:
    """As many empty rows as there are labels."""
    return Labelled(np.empty((len(labels), 0)), np.asarray(labels), [], class_names, **more)


@given(
    st.integers(60, 300), st.integers(2, 4), st.floats(0, 0.4), st.floats(0, 0.4), st.booleans(), st.integers(0, 99)
)  # fmt: skip
def test_parts_are_disjoint_and_complete(
    rows: int, classes: int, val: float, test: float, stratify: bool, seed: int
) -> None:
    labels = np.arange(rows) % classes
    try:
        parts = split(
            source(labels, list("abcd")[:classes]),
            val_fraction=val,
            test_fraction=test,
            stratify=stratify,
            seed=seed,
        )
    except BacklightError:  # a class has no row in a small part
        assert min(fraction for fraction in (val, test) if fraction) * rows < 30
        return
    assert sorted(np.concatenate(list(parts.values()))) == list(range(rows))
    assert len(parts["test"]) == int(np.ceil(test * rows - 1e-9))
    assert len(parts["val"]) == int(np.ceil(val * rows - 1e-9))


def test_stratified_parts_keep_proportions() -> None:
    labels = np.repeat([0, 1], [900, 100])
    parts = split(source(labels, ["no", "yes"]), val_fraction=0.2, test_fraction=0.2, stratify=True, seed=1)
    assert [labels[rows].mean() for rows in parts.values()] == pytest.approx([0.1, 0.1, 0.1])


def test_unstratified_split_is_that_of_scikit_learn() -> None:
    labels = np.arange(50) % 2
    parts = split(source(labels, ["a", "b"]), val_fraction=0, test_fraction=0.2, stratify=False, seed=42)
    train, test = train_test_split(np.arange(50), test_size=0.2, random_state=42)
    assert parts["train"].tolist() == train.tolist()
    assert parts["test"].tolist() == test.tolist()


@pytest.mark.parametrize(
    ("labels", "val", "test", "stratify", "message"),
    [
        ([0, 1] * 10, 0.5, 0.5, True, r"data.val_fraction=0.5 and data.test_fraction=0.5: their sum"),
        ([0] * 20 + [1], 0.0, 0.2, True, "the rarest class, 'yes', has 1 rows"),
        ([0] * 20 + [1], 0.2, 0.0, False, "no row of class 'yes'"),
        ([0, 1], 0.0, 0.5, True, "cannot hold every class"),
    ],
)
def test_refuses(labels: list[int], val: float, test: float, stratify: bool, message: str) -> None:
    with pytest.raises(BacklightError, match=message):
        split(source(labels, ["no", "yes"]), val_fraction=val, test_fraction=test, stratify=stratify, seed=0)


@given(st.integers(4, 40), st.integers(1, 6), st.floats(0.05, 0.4), st.floats(0.05, 0.4), st.integers(0, 99))
def test_groups_stay_whole(groups: int, rows: int, val: float, test: float, seed: int) -> None:
    of_row = np.repeat(np.arange(groups), rows)
    labels = np.arange(len(of_row)) % 2
    if rows == 1:
        labels = np.zeros_like(labels) + (of_row % 2)
    try:
        parts = split(
            source(labels, ["no", "yes"], groups=of_row),
            val_fraction=val,
            test_fraction=test,
            stratify=True,
            seed=seed,
        )
    except BacklightError:
        # Too few to leave both classes for training; a group of one row has only one of them.
        assert groups < 12 or rows == 1
        return
    assert sorted(np.concatenate(list(parts.values()))) == list(range(len(of_row)))
    held = [set(of_row[rows]) for rows in parts.values()]
    assert not held[0] & held[1] and not held[0] & held[2] and not held[1] & held[2]
    assert all(held)


def test_groups_with_rare_classes_train() -> None:
    of_row, labels = np.repeat(np.arange(30), 4), np.arange(120) % 2
    labels[[5, 77]] = 2
    for seed in range(20):
        parts = split(
            source(labels, ["a", "b", "rare"], groups=of_row),
            val_fraction=0.2,
            test_fraction=0.2,
            stratify=True,
            seed=seed,
        )
        assert {5, 77} <= set(parts["train"])


def test_last_rows_are_held_out_in_order() -> None:
    when = np.array([5.0, 1, 4, 2, 3, 0, 9, 8, 7, 6])
    parts = split(
        source([0, 1] * 5, ["a", "b"], ordered_by=when),
        val_fraction=0.2,
        test_fraction=0.3,
        stratify=True,
        seed=0,
    )
    assert sorted(when[parts["test"]]) == [7, 8, 9]
    assert sorted(when[parts["val"]]) == [5, 6]
    assert sorted(when[parts["train"]]) == [0, 1, 2, 3, 4]


def test_parts_of_the_source_stay() -> None:
    given_parts = np.array([0] * 20 + [2] * 4)
    parts = split(
        source([0, 1] * 12, ["a", "b"], parts=given_parts),
        val_fraction=0.25,
        test_fraction=0.5,
        stratify=True,
        seed=0,
    )
    assert sorted(parts["test"]) == [20, 21, 22, 23]
    assert len(parts["val"]) == 5
    assert sorted([*parts["train"], *parts["val"]]) == list(range(20))
