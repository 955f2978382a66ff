import io

import numpy as np
import pytest
import torch
from matplotlib import colormaps
from numpy.typing import NDArray
from PIL import Image

from backlight.callbacks.backprop_plots import Moment, heat_map, network


def pixels(png: bytes | None) -> NDArray[np.int64]:
    assert png is not None
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB")).astype(int)


def has(picture: NDArray[np.int64], colour: tuple[float, ...]) -> NDArray[np.bool_]:
    """Which pixels look like a colour, whose parts are from 0 to 1."""
    return (np.abs(picture - 255 * np.array(colour[:3])) <= 6).all(axis=-1)


def test_heat_map_shows_sizes_by_colour_the_output_on_top() -> None:
    large = np.full((2, 4), 1.0, np.float32)
    small = np.full((3, 4), 1e-3, np.float32)
    small[0, 3] = np.nan
    map_ = pixels(heat_map([0, 1, 10, 100], [("first", small), ("output", large)]))[:, 112:688]
    bright, dark = has(map_, colormaps["magma"](1.0)), has(map_, colormaps["magma"](0.0))
    # Two bands of 90 by 576 pixels; letters are dark, too.
    assert bright.sum() == 90 * 576
    assert 90 * 576 <= dark.sum() < 100 * 576
    assert np.nonzero(bright.any(axis=1))[0].max() < np.nonzero(dark[:, 20:25].all(axis=1))[0].min()


def test_heat_map_has_one_scale_of_at_most_eight_decades() -> None:
    values = np.array([[1.0, 1e-4, 1e-8, 1e-12]], np.float32)
    map_ = pixels(heat_map([0, 1, 2, 3], [("layer", values)]))[:, 112:688]
    for step, part in enumerate((1.0, 0.5, 0.0, 0.0)):
        column = map_[:, 144 * step + 10 : 144 * step + 134]
        assert has(column, colormaps["magma"](part)).sum() >= 90 * 124


def test_network_colours_edges_by_sign_and_neurons_by_error() -> None:
    def colours(weight: float, deltas: list[float]) -> dict[str, int]:
        moment = Moment(
            0, [torch.tensor([[weight, 0.0]]), torch.ones(1, 1)], [torch.tensor([d]) for d in deltas]
        )
        picture = pixels(network([moment], ["features", "hidden", "output"], [2, 1, 1]))[:, :-100]
        return {
            "red": int(has(picture, (0.82, 0.19, 0.19)).sum()),
            "blue": int(has(picture, (0.19, 0.28, 0.82)).sum()),
            "largest": int(has(picture, colormaps["viridis"](1.0)).sum()),
            "smallest": int(has(picture, colormaps["viridis"](0.0)).sum()),
        }

    both = colours(1.0, [1e-3, 1.0])
    assert both["red"] > 200  # two edges
    assert both["blue"] == 0
    assert both["largest"] > 80
    assert both["smallest"] > 80
    assert colours(-1.0, [1e-3, 1.0])["blue"] > 100
    assert 100 < colours(0.0, [1e-3, 1.0])["red"] < both["red"]
    assert colours(1.0, [1.0, 1.0])["smallest"] == 0


@pytest.mark.parametrize("nothing", [0.0, float("nan"), float("inf")])
def test_no_picture_without_any_error(nothing: float) -> None:
    assert heat_map([0], [("layer", np.full((2, 1), nothing, np.float32))]) is None
    moment = Moment(0, [torch.ones(2, 2)], [torch.full((2,), nothing)])
    assert network([moment], ["features", "output"], [2, 2]) is None


def test_network_with_weights_that_are_no_numbers() -> None:
    weights = [torch.zeros(3, 2), torch.tensor([[float("nan"), float("inf"), 1.0]])]
    moment = Moment(5, weights, [torch.ones(3), torch.ones(1)])
    assert pixels(network([moment], ["features", "hidden", "output"], [2, 3, 1])).size
