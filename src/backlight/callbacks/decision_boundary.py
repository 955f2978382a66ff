"""Where in the plane the network draws the line between the classes, as training goes on."""

from io import BytesIO

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from PIL import Image, ImageDraw
from torch import Tensor

from backlight.callbacks.lettering import font, names_as_they_are
from backlight.callbacks.reach import data_of, writer_of
from backlight.callbacks.tensorboard import write_picture
from backlight.data.encoder import FeatureEncoder
from backlight.data.module import ClassificationData
from backlight.probabilities import labels_of, predicted, probabilities
from backlight.ranges import Count

MAX_POINTS = 1000
GRID = 64
WIDTH, HEIGHT = 600, 500


class DecisionBoundary(Callback):
    """Draws data with two features, the predicted class around them and how sure the network is.

    Args:
        max_pictures: pictures per run, at epochs spaced evenly on a log scale, where most happens early.
    """

    def __init__(self, *, max_pictures: Count = 10) -> None:
        self.max_pictures = max_pictures
        self._epochs: set[int] = set()
        self._plane: Plane

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        assert trainer.max_epochs is not None
        data = data_of(trainer)
        if writer_of(trainer) is not None and data.num_features == 2 and data.is_dense:
            spaced = np.geomspace(1, trainer.max_epochs, self.max_pictures)
            self._epochs = {int(epoch) for epoch in np.round(spaced)}
            with names_as_they_are():
                self._plane = Plane(data)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        writer, epochs = writer_of(trainer), trainer.current_epoch + 1
        if writer is not None and epochs in self._epochs:
            picture = self._plane.draw(pl_module, f"after epoch {epochs}")
            write_picture(writer, "decision_boundary", picture, trainer.global_step)


class Plane:
    """The plane of two features with the training points: all that stays as a network learns, drawn once.

    Args:
        data: of two features.
    """

    def __init__(self, data: ClassificationData) -> None:
        from matplotlib import colormaps
        from matplotlib.figure import Figure

        x, y = data.part("train")
        assert isinstance(x, Tensor)
        corner_low, corner_high = x.amin(dim=0), x.amax(dim=0)
        margin = (0.1 * (corner_high - corner_low)).clamp(min=0.1)  # a constant feature has no range
        across, up = (
            torch.linspace(low, high, GRID)
            for low, high in zip((corner_low - margin).tolist(), (corner_high + margin).tolist(), strict=True)
        )
        self._grid = torch.cartesian_prod(up.flip(0), across).flip(1)  # the rows of a picture, from above
        self._palette = colormaps["tab10"](np.arange(len(data.class_names)) % 10)[:, :3]

        mean, scale = np.array(data.encoder.mean), np.array(data.encoder.scale)
        low, high = (self._grid[corner].numpy() * scale + mean for corner in (-GRID, GRID - 1))
        figure = Figure(figsize=(WIDTH / 100, HEIGHT / 100), dpi=100, facecolor="none")
        axes = figure.add_axes((0.19, 0.1, 0.78, 0.83), facecolor="none")
        points = x[:MAX_POINTS].numpy() * scale + mean
        labels = labels_of(y[:MAX_POINTS]).numpy()
        for label, name in enumerate(data.class_names):
            chosen = points[labels == label]
            axes.scatter(
                chosen[:, 0],
                chosen[:, 1],
                s=10,
                color=self._palette[label],
                edgecolors="white",
                linewidths=0.3,
                label=name,
            )
        is_ranked = isinstance(data.encoder, FeatureEncoder) and data.encoder.is_ranked
        xlabel, ylabel = (f"{name} (normal score)" if is_ranked else name for name in data.feature_names)
        axes.set(xlim=(low[0], high[0]), ylim=(low[1], high[1]), xlabel=xlabel, ylabel=ylabel)
        axes.legend(loc="upper right", fontsize="small")
        file = BytesIO()
        figure.savefig(file, format="rgba")
        self._frame = Image.frombytes("RGBA", (WIDTH, HEIGHT), file.getvalue())
        left, bottom, right, top = map(round, axes.bbox.extents)
        self._box = (left, HEIGHT - top, right, HEIGHT - bottom)

    @torch.no_grad()
    def draw(self, network: LightningModule, title: str) -> bytes:
        """A PNG of the points over the predicted class; the paler the colour, the less sure the network."""
        probability = probabilities(network(self._grid.to(network.device)).cpu())
        chance = probability if probability.ndim == 2 else torch.stack([1 - probability, probability], dim=1)
        colour = self._palette[predicted(probability).numpy()]
        # White where all classes are equally likely, the class's own colour where one is certain.
        base = 1 / chance.shape[1]
        certainty = ((chance.amax(dim=1) - base) / (1 - base)).nan_to_num().clamp(0, 1).numpy()[:, None]
        colours = (255 * (1 - 0.6 * certainty + 0.6 * certainty * colour)).astype(np.uint8)
        left, upper, right, lower = self._box
        around = Image.fromarray(colours.reshape(GRID, GRID, 3)).resize((right - left, lower - upper))
        picture = Image.new("RGBA", (WIDTH, HEIGHT), "white")
        picture.paste(around, (left, upper))
        middle = (left + right) / 2, upper - 8
        ImageDraw.Draw(picture).text(middle, title, "black", font(14), "ms")
        file = BytesIO()
        Image.alpha_composite(picture, self._frame).convert("RGB").save(file, "PNG", compress_level=1)
        return file.getvalue()
