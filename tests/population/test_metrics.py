"""Metrics of all members are those of torchmetrics for each."""

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from backlight import metrics as alone
from backlight.population.metrics import cheap_metrics, every_metric


@pytest.mark.filterwarnings("ignore::UserWarning")
@settings(deadline=None)
@given(
    classes=st.sampled_from([2, 2, 3, 6]),
    rows=st.integers(1, 30),
    steps=st.sampled_from([2, 5, 1000]),
    only=st.one_of(st.none(), st.integers(0, 1)),
    seed=st.integers(0, 10_000),
)
def test_every_member_has_its_own_metrics(
    classes: int, rows: int, steps: int, only: int | None, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    shape = (3, rows) if classes == 2 else (3, rows, classes)
    # Few steps make ties between rows, and probabilities of 0 and 1.
    probabilities = torch.randint(0, steps + 1, shape, generator=generator) / steps
    if classes > 2:
        probabilities = torch.softmax(4 * probabilities, dim=2)
    labels = torch.randint(0, classes, (3, rows), generator=generator)
    if only is not None:
        labels[0] = only
    # torchmetrics takes rows that are all of class 0 for rows without any positive one, whatever the class.
    assume(classes == 2 or not (labels == 0).all(dim=1).any())
    found, of_training = every_metric(probabilities, labels), cheap_metrics(probabilities, labels)
    for member in range(3):
        expected = alone.every_metric(probabilities[member], labels[member])
        assert expected.keys() == found.keys()
        for name, value in expected.items():
            torch.testing.assert_close(
                found[name][member], value.float(), atol=1e-5, rtol=1e-5, equal_nan=True, msg=name
            )
        torch.testing.assert_close(of_training["accuracy"][member], expected["accuracy"])
