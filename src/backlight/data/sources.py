"""Every data source by its name in the config."""

from collections.abc import Mapping
from functools import partial
from inspect import signature
from typing import Any

from backlight.config import build, choose
from backlight.data import bundled, synthetic
from backlight.data.module import ClassificationData
from backlight.data.source import Source
from backlight.data.table import table

SOURCES: dict[str, Source] = {
    "synthetic": synthetic.synthetic,
    "moons": synthetic.moons,
    "circles": synthetic.circles,
    "blobs": synthetic.blobs,
    "gaussian_quantiles": synthetic.gaussian_quantiles,
    "hastie": synthetic.hastie,
    "parity": synthetic.parity,
    "spirals": synthetic.spirals,
    "breast_cancer": bundled.breast_cancer,
    "digits": bundled.digits,
    "iris": bundled.iris,
    "wine": bundled.wine,
    "table": table,
}


def build_data(node: Mapping[str, Any], run_seed: int) -> ClassificationData:
    """The data module that the `data` node of a config describes.

    The keys that `ClassificationData` reads are its own; all others are the source's.

    Raises:
        BacklightError: a key nobody reads, or a value that does not fit.
    """
    source = choose(SOURCES, node.get("source"), "data.source")
    shared = set(signature(ClassificationData).parameters)
    options = {key: value for key, value in node.items() if key in shared}
    own = {key: value for key, value in node.items() if key not in shared | {"source"}}
    load = partial(build, source, own, "data", seed=node.get("seed", 0))
    return build(ClassificationData, options, "data", load=load, run_seed=run_seed)
