"""Where in the plane the network draws the line between the classes, as training goes on."""

from typing import TYPE_CHECKING

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from backlight.callbacks.reach import data_of, writer_of
from backlight.data.encoder import FeatureEncoder
from backlight.data.module import ClassificationData
from backlight.probabilities import labels_of, predicted, probabilities
from backlight.ranges import Count

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MAX_POINTS = 1000
GRID = 100


class DecisionBoundary(Callback):
    """Draws data with two features, the predicted class around them and how sure the network is.

    Args:
        max_pictures: pictures per run, at epochs spaced evenly on a log scale, where most happens early.
    """

    def __init__(self, *, max_pictures: Count = 10) -> None:
        self.max_pictures = max_pictures
        self._epochs: set[int] = set()

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        assert trainer.max_epochs is not None
        if data_of(trainer).num_features == 2 and data_of(trainer).is_dense:
            spaced = np.geomspace(1, trainer.max_epochs, self.max_pictures)
            self._epochs = {int(epoch) for epoch in np.round(spaced)}

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        writer = writer_of(trainer)
        if writer is not None and trainer.current_epoch + 1 in self._epochs:
            figure = draw(data_of(trainer), pl_module, f"after epoch {trainer.current_epoch + 1}")
            writer.add_figure("decision_boundary", figure, trainer.global_step)


@torch.no_grad()
def draw(data: ClassificationData, network: LightningModule, title: str) -> "Figure":
    """Training points over the predicted class; the paler the colour, the less sure the network."""
    from matplotlib import colormaps
    from matplotlib.figure import Figure

    x, y = data.part("train")
    assert isinstance(x, Tensor)
    corner_low, corner_high = x.amin(dim=0), x.amax(dim=0)
    margin = (0.1 * (corner_high - corner_low)).clamp(min=0.1)  # a constant feature has no range
    ticks = [
        torch.linspace(low, high, GRID)
        for low, high in zip((corner_low - margin).tolist(), (corner_high + margin).tolist(), strict=True)
    ]
    grid = torch.cartesian_prod(*ticks)
    probability = probabilities(network(grid.to(network.device)).cpu())
    chance = probability if probability.ndim == 2 else torch.stack([1 - probability, probability], dim=1)
    palette = colormaps["tab10"](np.arange(len(data.class_names)) % 10)[:, :3]
    colour = palette[predicted(probability).numpy()]
    # White where all classes are equally likely, the class's own colour where one is certain.
    base = 1 / len(data.class_names)
    certainty = ((chance.amax(dim=1) - base) / (1 - base)).numpy()[:, None]
    picture = (1 - 0.6 * certainty + 0.6 * certainty * colour).reshape(GRID, GRID, 3).swapaxes(0, 1)

    mean, scale = np.array(data.encoder.mean), np.array(data.encoder.scale)
    (left, right), (bottom, top) = (
        (tick[[0, -1]].numpy() * scale[axis] + mean[axis]).tolist() for axis, tick in enumerate(ticks)
    )
    figure = Figure(figsize=(6, 5), dpi=100)
    axes = figure.add_axes((0.19, 0.1, 0.78, 0.83))  # a layout that is measured takes as long as to draw
    axes.imshow(np.clip(picture, 0, 1), origin="lower", extent=(left, right, bottom, top), aspect="auto")
    points = x[:MAX_POINTS].numpy() * scale + mean
    labels = labels_of(y[:MAX_POINTS]).numpy()
    for label, name in enumerate(data.class_names):
        chosen = points[labels == label]
        axes.scatter(
            chosen[:, 0],
            chosen[:, 1],
            s=10,
            color=palette[label],
            edgecolors="white",
            linewidths=0.3,
            label=name,
        )
    is_ranked = isinstance(data.encoder, FeatureEncoder) and data.encoder.is_ranked
    across, up = (f"{name} (normal score)" if is_ranked else name for name in data.feature_names)
    axes.set(title=title, xlabel=across, ylabel=up)
    axes.legend(loc="upper right", fontsize="small")
    return figure
