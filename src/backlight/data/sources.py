"""Every data source by its name in the config."""

from backlight.data import bundled, synthetic
from backlight.data.arrays import arrays
from backlight.data.audio import audio
from backlight.data.images import images
from backlight.data.openml import openml
from backlight.data.ratings import ratings
from backlight.data.source import Source
from backlight.data.table import table
from backlight.data.tagging import tagging
from backlight.data.text import text

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
    "arrays": arrays,
    "openml": openml,
    "images": images,
    "text": text,
    "tagging": tagging,
    "audio": audio,
    "ratings": ratings,
}
