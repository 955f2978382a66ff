"""Generated sources: functions of their seed, with the shape that their geometry says."""

import numpy as np
import pytest
from sklearn import datasets

from backlight.data import synthetic
from backlight.data.source import Labelled
from backlight.data.sources import SOURCES
from backlight.errors import BacklightError

GENERATED = [name for name, source in SOURCES.items() if source.__module__ == synthetic.__name__]


def numbers(source: Labelled) -> np.ndarray:
    assert isinstance(source.rows, np.ndarray)
    return source.rows


@pytest.mark.parametrize("name", GENERATED)
def test_is_a_function_of_its_seed(name: str) -> None:
    first, again, other = (SOURCES[name](seed, n_samples=60) for seed in (5, 5, 6))
    assert np.array_equal(numbers(first), numbers(again))
    assert np.array_equal(first.labels, again.labels)
    assert not np.array_equal(numbers(first), numbers(other))
    assert numbers(first).dtype == np.float32
    assert set(first.labels) == set(range(len(first.class_names)))
    assert len(first.feature_names) == numbers(first).shape[1]


def test_synthetic_passes_everything_on() -> None:
    options = {
        "n_samples": 50, "n_features": 8, "n_informative": 3, "n_redundant": 1, "n_repeated": 1, "n_classes": 3,
        "n_clusters_per_class": 1, "weights": [0.5, 0.3, 0.2], "flip_y": 0.1, "class_sep": 2.0, "hypercube": False,
        "shift": 1.0, "scale": 2.0, "shuffle": False,
    }  # fmt: skip
    x, y = datasets.make_classification(**options, random_state=9)
    source = synthetic.synthetic(9, **options)  # type: ignore[arg-type]
    assert np.array_equal(numbers(source), x.astype(np.float32))
    assert np.array_equal(source.labels, y)


def test_parity_is_the_parity_of_the_corner() -> None:
    source = synthetic.parity(1, n_bits=3, noise=0.1)
    assert np.array_equal(source.labels, (numbers(source) > 0).sum(axis=1) % 2)


def test_hastie_is_a_sphere() -> None:
    source = synthetic.hastie(1)
    assert np.array_equal(source.labels, (numbers(source).astype(float) ** 2).sum(axis=1) > 9.34)


def test_circles_and_spirals_have_their_radii() -> None:
    circles = synthetic.circles(1, noise=0.0, factor=0.4)
    radius = np.linalg.norm(numbers(circles), axis=1)
    assert radius[circles.labels == 1] == pytest.approx(np.full(500, 0.4), abs=1e-6)
    spirals = synthetic.spirals(1, noise=0.0, turns=1.0)
    radius = np.linalg.norm(numbers(spirals), axis=1)
    angle = np.arctan2(numbers(spirals)[:, 1], numbers(spirals)[:, 0])
    turned = angle - 2 * np.pi * (radius + spirals.labels / 2)
    assert np.cos(turned) == pytest.approx(np.ones(1000), abs=1e-4)


def test_label_noise_changes_its_share_of_the_labels() -> None:
    source = synthetic.blobs(1, n_samples=1000)
    noisy = synthetic.perturbed(source, 1, label_noise=0.1, imbalance=1.0)
    assert (noisy.labels != source.labels).sum() == 100
    assert np.array_equal(numbers(noisy), numbers(source))


def test_imbalance_thins_the_later_classes() -> None:
    source = synthetic.blobs(1, n_samples=900)
    rare = synthetic.perturbed(source, 1, label_noise=0.0, imbalance=0.04)
    assert np.bincount(rare.labels).tolist() == [300, 60, 12]


def test_imbalance_that_leaves_nothing_is_refused() -> None:
    with pytest.raises(BacklightError, match=r"^data.imbalance=0.0001"):
        synthetic.perturbed(synthetic.blobs(1, n_samples=90), 1, label_noise=0, imbalance=0.0001)


def test_values_that_are_not_finite_are_refused() -> None:
    from backlight.data.source import labelled

    with pytest.raises(BacklightError, match="finite"):
        labelled([[np.nan]], [0])
