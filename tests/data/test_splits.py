import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.model_selection import train_test_split

from backlight.data.splits import split
from backlight.errors import BacklightError


@given(
    st.integers(60, 300), st.integers(2, 4), st.floats(0, 0.4), st.floats(0, 0.4), st.booleans(), st.integers(0, 99)
)  # fmt: skip
def test_parts_are_disjoint_and_complete(
    rows: int, classes: int, val: float, test: float, stratify: bool, seed: int
) -> None:
    labels = np.arange(rows) % classes
    try:
        parts = split(
            labels, list("abcd")[:classes], val_fraction=val, test_fraction=test, stratify=stratify, seed=seed
        )
    except BacklightError:  # a class has no row in a small part
        assert min(fraction for fraction in (val, test) if fraction) * rows < 30
        return
    assert sorted(np.concatenate(list(parts.values()))) == list(range(rows))
    assert len(parts["test"]) == int(np.ceil(test * rows - 1e-9))
    assert len(parts["val"]) == int(np.ceil(val * rows - 1e-9))


def test_stratified_parts_keep_proportions() -> None:
    labels = np.repeat([0, 1], [900, 100])
    parts = split(labels, ["no", "yes"], val_fraction=0.2, test_fraction=0.2, stratify=True, seed=1)
    assert [labels[rows].mean() for rows in parts.values()] == pytest.approx([0.1, 0.1, 0.1])


def test_unstratified_split_is_that_of_scikit_learn() -> None:
    labels = np.arange(50) % 2
    parts = split(labels, ["a", "b"], val_fraction=0, test_fraction=0.2, stratify=False, seed=42)
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
        split(
            np.array(labels), ["no", "yes"], val_fraction=val, test_fraction=test, stratify=stratify, seed=0
        )
