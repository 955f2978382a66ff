"""Every data source by its name in the config."""

from backlight.data import bundled, synthetic
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
