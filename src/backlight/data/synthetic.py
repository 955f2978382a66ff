"""Generated data: scikit-learn's generators, parity and spirals. All are functions of a seed."""

from dataclasses import replace
from typing import Annotated

import numpy as np
from pydantic import Field
from sklearn import datasets

from backlight.data.source import Labelled, labelled
from backlight.errors import BacklightError
from backlight.ranges import Count, Fraction, Natural, NonNegative, Positive

Classes = Annotated[int, Field(ge=2)]


def synthetic(
    seed: int,
    *,
    n_samples: Count = 1000,
    n_features: Count = 10,
    n_informative: Count = 2,
    n_redundant: Natural = 2,
    n_repeated: Natural = 0,
    n_classes: Classes = 2,
    n_clusters_per_class: Count = 2,
    weights: list[Fraction] | None = None,
    flip_y: Annotated[float, Field(ge=0, le=1)] = 0.01,
    class_sep: Positive = 1.0,
    hypercube: bool = True,
    shift: float | list[float] | None = 0.0,
    scale: float | list[float] | None = 1.0,
    shuffle: bool = True,
) -> Labelled:
    """`sklearn.datasets.make_classification` (Guyon 2003), all of its parameters."""
    x, y = datasets.make_classification(
        n_samples=n_samples,
        n_features=n_features,
        n_informative=n_informative,
        n_redundant=n_redundant,
        n_repeated=n_repeated,
        n_classes=n_classes,
        n_clusters_per_class=n_clusters_per_class,
        weights=weights,
        flip_y=flip_y,
        class_sep=class_sep,
        hypercube=hypercube,
        shift=shift,
        scale=scale,
        shuffle=shuffle,
        random_state=seed,
    )
    return labelled(x, y, class_names=[str(label) for label in range(n_classes)])


def moons(seed: int, *, n_samples: Count = 1000, noise: NonNegative = 0.2) -> Labelled:
    """Two interleaving half circles, with Gaussian noise of this standard deviation."""
    return labelled(*datasets.make_moons(n_samples, noise=noise, random_state=seed))


def circles(
    seed: int,
    *,
    n_samples: Count = 1000,
    noise: NonNegative = 0.1,
    factor: Fraction = 0.5,
) -> Labelled:
    """A circle inside a circle; `factor` is the ratio of their radii."""
    return labelled(*datasets.make_circles(n_samples, noise=noise, factor=factor, random_state=seed))


def blobs(
    seed: int,
    *,
    n_samples: Count = 1000,
    n_features: Count = 2,
    n_classes: Classes = 3,
    cluster_std: Positive = 1.0,
) -> Labelled:
    """One Gaussian blob per class."""
    x, y = datasets.make_blobs(
        n_samples, n_features=n_features, centers=n_classes, cluster_std=cluster_std, random_state=seed
    )
    return labelled(x, y)


def gaussian_quantiles(
    seed: int,
    *,
    n_samples: Count = 1000,
    n_features: Count = 2,
    n_classes: Classes = 3,
    cov: Positive = 1.0,
) -> Labelled:
    """One Gaussian cut into nested shells of equal size, one per class."""
    x, y = datasets.make_gaussian_quantiles(
        n_samples=n_samples, n_features=n_features, n_classes=n_classes, cov=cov, random_state=seed
    )
    return labelled(x, y)


def hastie(seed: int, *, n_samples: Count = 2000) -> Labelled:
    """Ten Gaussian features; the class says whether Σx² > 9.34 (Hastie et al. 2009, example 10.2)."""
    x, y = datasets.make_hastie_10_2(n_samples=n_samples, random_state=seed)
    return labelled(x, y > 0)


def parity(
    seed: int, *, n_samples: Count = 1000, n_bits: Annotated[int, Field(ge=2)] = 2, noise: NonNegative = 0.1
) -> Labelled:
    """Corners of the ±1 cube plus Gaussian noise; the class is the parity of the ones. 2 bits are XOR.

    (Minsky & Papert 1969; the example that Rumelhart, Hinton & Williams solve with hidden units.)
    """
    random = np.random.default_rng(seed)
    bits = random.integers(0, 2, size=(n_samples, n_bits))
    x = 2.0 * bits - 1 + noise * random.standard_normal(bits.shape)
    return labelled(x, bits.sum(axis=1) % 2)


def spirals(
    seed: int,
    *,
    n_samples: Count = 1000,
    n_classes: Classes = 2,
    turns: Positive = 1.5,
    noise: NonNegative = 0.02,
) -> Labelled:
    """One arm per class, wound around the origin within radius 1 (after Lang & Witbrock 1988)."""
    random = np.random.default_rng(seed)
    y = np.arange(n_samples) % n_classes
    radius = np.sqrt(random.uniform(0.01, 1, n_samples))
    angle = 2 * np.pi * (turns * radius + y / n_classes)
    x = radius[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    return labelled(x + noise * random.standard_normal(x.shape), y)


def perturbed(source: Labelled, seed: int, *, label_noise: float, imbalance: float) -> Labelled:
    """The source with fewer rows of the later classes and with wrong labels.

    Args:
        source: what to change; it is left as it is.
        seed: of the rows that are dropped and the labels that are changed.
        label_noise: share of the rows whose label becomes another class, drawn uniformly
            (Angluin & Laird 1988).
        imbalance: of equal classes, size of the rarest over that of the most frequent; class k of C keeps
            the share `imbalance^(k/(C−1))` of its rows (Cui et al. 2019, the long-tailed profile).

    Raises:
        BacklightError: no row of some class would be left.
    """
    random = np.random.default_rng([seed, 1])
    num_classes = len(source.class_names)
    if imbalance < 1:
        keep = imbalance ** (np.arange(num_classes) / max(num_classes - 1, 1))
        kept = random.permuted(np.arange(len(source.labels)))
        rank = np.empty_like(kept)  # of each row among the rows of its class, in random order
        for label in range(num_classes):
            members = kept[source.labels[kept] == label]
            rank[members] = np.arange(len(members))
        sizes = np.round(np.bincount(source.labels, minlength=num_classes) * keep)
        if sizes.min() < 1:
            raise BacklightError(f"data.imbalance={imbalance}: leaves no row of some class; raise it")
        source = source.take(np.flatnonzero(rank < sizes[source.labels]))
    if label_noise > 0:
        labels = source.labels.copy()
        wrong = random.permutation(len(labels))[: round(label_noise * len(labels))]
        labels[wrong] = (labels[wrong] + random.integers(1, num_classes, len(wrong))) % num_classes
        source = replace(source, labels=labels)
    return source
