"""Metrics against scikit-learn."""

import numpy as np
import pytest
import torch
from sklearn import metrics as reference
from torch import Tensor

from backlight.loss import BinaryCrossEntropy
from backlight.metrics import METRICS, EpochMeans, EpochMetrics, number
from backlight.probabilities import labels_of, predicted, probabilities


def rows(classes: int, count: int = 400) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(classes)
    labels = torch.randint(0, classes, (count,), generator=generator)
    y = labels[:, None].float() if classes == 2 else torch.nn.functional.one_hot(labels, classes).float()
    return 2 * y - 1 + torch.randn(y.shape, generator=generator), y


@pytest.mark.parametrize("classes", [2, 4])
def test_equal_scikit_learn(classes: int) -> None:
    logits, y = rows(classes)
    seen, means = EpochMetrics(BinaryCrossEntropy()), EpochMeans(BinaryCrossEntropy())
    for part_logits, part_y in zip(logits.split(70), y.split(70), strict=True):
        seen.update(part_logits, part_y)
        means.update(part_logits, part_y)
    values = {name: value.item() for name, value in seen.compute().items()}

    probability, truth = probabilities(logits).numpy(), labels_of(y).numpy()
    guess = predicted(probabilities(logits)).numpy()
    average = "binary" if classes == 2 else "macro"
    expected = {
        "accuracy": reference.accuracy_score(truth, guess),
        "balanced_accuracy": reference.balanced_accuracy_score(truth, guess),
        "f1": reference.f1_score(truth, guess, average=average),
        "auroc": reference.roc_auc_score(truth, probability, multi_class="ovr"),
        "average_precision": reference.average_precision_score(truth, probability),
        "loss": reference.log_loss(y.numpy().ravel(), torch.sigmoid(logits).numpy().ravel()),
    }
    assert list(values) == ["loss", *METRICS]
    assert {name: values[name] for name in expected} == pytest.approx(expected, abs=1e-5)
    for name, value in means.compute().items():
        assert value.item() == pytest.approx(expected[name], abs=1e-5)

    # Expected calibration error (Guo et al. 2017, eq. 3), with 15 bins of equal width.
    confidence = probability if classes == 2 else probability.max(axis=1)
    right = truth if classes == 2 else guess == truth
    bins = np.minimum((confidence * 15).astype(int), 14)
    gaps = [abs((right - confidence)[bins == index].sum()) for index in range(15)]
    assert values["calibration_error"] == pytest.approx(sum(gaps) / len(truth), abs=1e-5)


@pytest.mark.parametrize("kind", [EpochMetrics, EpochMeans])
def test_forgets_after_compute(kind: type[EpochMetrics | EpochMeans]) -> None:
    seen = kind(BinaryCrossEntropy())
    seen.update(torch.full((4, 1), -9.0), torch.ones(4, 1))
    assert seen.compute()["accuracy"] == 0
    seen.update(torch.full((4, 1), 9.0), torch.ones(4, 1))
    assert seen.compute()["accuracy"] == 1


def test_many_rows_are_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    logits, y = rows(2)
    whole, parts = EpochMeans(BinaryCrossEntropy()), EpochMeans(BinaryCrossEntropy())
    whole.update(logits, y)
    monkeypatch.setattr(EpochMeans, "ENTRIES_AT_ONCE", 100)
    for part_logits, part_y in zip(logits.split(30), y.split(30), strict=True):
        parts.update(part_logits, part_y)
    torch.testing.assert_close(parts.compute(), whole.compute())


def test_probabilities_add_up_even_where_all_outputs_underflow() -> None:
    probability = probabilities(torch.tensor([[-200.0, -201.0, -300.0], [5.0, 5.0, -5.0]]))
    torch.testing.assert_close(probability.sum(dim=1), torch.ones(2))
    sigmoid = torch.sigmoid(torch.tensor([5.0, 5.0, -5.0]))
    torch.testing.assert_close(probability[1], sigmoid / sigmoid.sum())


def test_loss_that_is_not_finite_has_no_metrics() -> None:
    seen = EpochMetrics(BinaryCrossEntropy())
    seen.update(torch.tensor([[float("nan")]]), torch.ones(1, 1))
    assert list(seen.compute()) == ["loss"]


def test_number_is_the_short_form_of_float32() -> None:
    assert number(torch.tensor(0.1)) == 0.1
    assert number(torch.tensor(2.0)) == 2
