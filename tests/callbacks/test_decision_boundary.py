"""The picture of a plane shows what the network says there."""

from functools import partial
from io import BytesIO

import numpy as np
import pytest
import torch
from lightning.pytorch import LightningModule
from PIL import Image
from torch import Tensor

from backlight.callbacks.decision_boundary import Plane
from backlight.data.module import ClassificationData
from backlight.data.synthetic import moons

BLUE, ORANGE = (0x1F, 0x77, 0xB4), (0xFF, 0x7F, 0x0E)  # of tab10


class Along(LightningModule):
    """Predicts the second class where a feature is above its mean."""

    def __init__(self, axis: int, slope: float) -> None:
        super().__init__()
        self.axis, self.slope = axis, slope

    def forward(self, x: Tensor) -> Tensor:
        return self.slope * x[:, self.axis : self.axis + 1]


@pytest.fixture(scope="module")
def plane() -> Plane:
    data = ClassificationData(partial(moons, 0, n_samples=200), run_seed=0)
    data.setup()
    return Plane(data)


@pytest.mark.parametrize(
    ("axis", "low", "high"),
    [(0, (130, 430), (570, 430)), (1, (570, 440), (130, 60))],  # pixels from the left and from above
)
def test_each_class_has_its_colour_where_it_is_predicted(
    plane: Plane, axis: int, low: tuple[int, int], high: tuple[int, int]
) -> None:
    picture = Image.open(BytesIO(plane.draw(Along(axis, 50.0), "")))
    for place, colour in ((low, BLUE), (high, ORANGE)):
        assert picture.getpixel(place) == pytest.approx([0.4 * 255 + 0.6 * each for each in colour], abs=2)


def test_points_lie_where_their_features_say(plane: Plane) -> None:
    """The arc of the first class lies above that of the second, and left of it."""
    drawn = np.asarray(Image.open(BytesIO(plane.draw(Along(0, 0.0), "")))).astype(int)[60:440, 120:530]
    upper, lower = (
        np.argwhere(np.abs(drawn - colour).max(axis=2) < 10).mean(axis=0) for colour in (BLUE, ORANGE)
    )
    assert upper[0] < lower[0] - 50
    assert upper[1] < lower[1] - 50


@pytest.mark.parametrize("logit", [0.0, torch.nan])
def test_it_is_white_where_nothing_is_known(plane: Plane, logit: float) -> None:
    drawn = np.asarray(Image.open(BytesIO(plane.draw(Along(0, logit), ""))))
    assert (drawn[440, 120:575] > 250).all()
