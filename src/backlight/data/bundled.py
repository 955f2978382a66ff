"""The real data sets that scikit-learn ships."""

from typing import Any

from sklearn import datasets

from backlight.data.source import Labelled, labelled


def breast_cancer(seed: int) -> Labelled:
    """569 tumours, 30 measurements of cell nuclei, malignant or benign (Wolberg et al. 1995)."""
    return _bunch(datasets.load_breast_cancer())


def digits(seed: int) -> Labelled:
    """1,797 handwritten digits of 8×8 grey values 0 to 16 (Alpaydin & Kaynak 1998)."""
    return _bunch(datasets.load_digits())


def iris(seed: int) -> Labelled:
    """150 flowers, 4 lengths, 3 species (Fisher 1936)."""
    return _bunch(datasets.load_iris())


def wine(seed: int) -> Labelled:
    """178 wines, 13 chemical measurements, 3 cultivars (Forina et al. 1988)."""
    return _bunch(datasets.load_wine())


def _bunch(bunch: Any) -> Labelled:
    # NumPy's own strings would end up in checkpoints, which hold plain data only.
    names = ([str(name) for name in names] for names in (bunch.feature_names, bunch.target_names))
    return labelled(bunch.data, bunch.target, *names)
