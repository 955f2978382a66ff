"""What a run measured, as plain arrays: all that a symptom may look at."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class LayerState:
    """One layer at one moment, measured on training rows.

    Attributes:
        name: of the layer.
        rms_delta: root mean square of its deltas.
        saturation: `[out]` share of rows with `|σ'(z)| < 0.05`.
        silent: `[out]` whether the neuron's slope is 0 on every row: nothing reaches its weights.
        weight: `[out, in]`, as it is trained.
        bias: `[out]`
    """

    name: str
    rms_delta: float
    saturation: Floats
    silent: NDArray[np.bool_]
    weight: NDArray[np.float32]
    bias: NDArray[np.float32]


@dataclass(frozen=True)
class Neighbourhoods:
    """What the nearest neighbours of training rows say of their labels.

    Attributes:
        attainable: share of rows whose label is that of most of their neighbours: an accuracy that can be had. Where
            neighbours are lost among features it is what a polynomial knows, if that is more.
        noise: share of labels that differ from the others where these agree best, or from what polynomials say where
            these are surest, whichever is less: those that no network can know.
        balanced: the balanced accuracy that can be had, where a neighbour counts for more the rarer its class is.
    """

    attainable: float
    noise: float
    balanced: float


@dataclass(frozen=True)
class DataState:
    """The training rows and their neighbours in the other parts.

    Attributes:
        class_shares: `[classes]` of the training rows.
        feature_names: of the columns of x.
        feature_means: `[features]` over the training rows, as the network sees them; 0 of sparse rows.
        feature_deviations: `[features]`; of a feature with one value in most rows the root mean square distance of the
            others from it.
        feature_middles: `[features]` of a table, how wide the middle half of the rows lies, as the deviation of a normal
            distribution whose middle half does, or 0 where most are one value; empty of other rows, and of sparse ones.
        repeated: share of the training rows that occur more than once among them, labels and all, by chance:
            0 where a feature is continuous.
        repeated_in: per part held out, how many of its rows are also training rows, and their share.
        neighbourhoods: None of too few rows, and of sparse ones.
        rows: of each part, how many.
    """

    class_shares: Floats
    feature_names: list[str]
    feature_means: Floats
    feature_deviations: Floats
    feature_middles: Floats = field(default_factory=lambda: np.empty(0))
    repeated: float = 0.0
    repeated_in: dict[str, tuple[int, float]] = field(default_factory=dict)
    neighbourhoods: Neighbourhoods | None = None
    rows: dict[str, int] = field(default_factory=dict)


USUAL_RATE = {"sgd": 0.1, "adam": 0.01, "adamw": 0.01, "rmsprop": 0.01, "lbfgs": 1.0}
"""Of each optimizer in `conf/optimizer`."""
USUAL_MOMENTUM = 0.9  # of SGD
STRONG_L2, STRONG_DECAY = 0.01, 0.3
"""Weight decay from which on weights may rest where it and the gradient balance, whatever the loss says: as a part of the
gradient, and AdamW's, which is none. With less, fewer runs are better without it than by another remedy (of 260 at usual
rates)."""


@dataclass(frozen=True)
class Settings:
    """What the config says, as far as remedies change it.

    `switchable`: whether `optimizer=…` can be added to the command line as it was. Options of the old
    optimizer that were set by hand would not fit the new one. `overrides`: the values that remedies may
    set, as overrides that would change nothing. `momentum`, `weight_decay`: 0 of optimizers that have none.
    `weighs_classes`: whether the loss weighs the classes. `stopped_hastily`: whether early stopping ended the run with
    little patience, after few steps, or while the loss still fell. `kept_by_clipping`: the share of the last gradient.
    `constant_rate`: overrides that keep the rate what it is, and can be added to the command line as it was.
    """

    optimizer: str
    switchable: bool
    overrides: set[str]
    lr: float
    activation: str
    hidden: list[int]
    max_epochs: int
    batch_size: int
    standardizes: bool
    momentum: float = 0.0
    weight_decay: float = 0.0
    weighs_classes: bool = False
    stopped_hastily: bool = False
    kept_by_clipping: float = 1.0
    constant_rate: str = "scheduler=constant"

    @property
    def usual_rate(self) -> float:
        """Of the optimizer; less if the gradients of more steps add up than usual."""
        more = (1 - USUAL_MOMENTUM) / (1 - max(self.momentum, USUAL_MOMENTUM))
        return USUAL_RATE[self.optimizer] / more

    @property
    def rate_over_usual(self) -> float:
        """What clipping leaves of it counts."""
        return self.kept_by_clipping * self.lr / self.usual_rate

    @property
    def decays_strongly(self) -> bool:
        """Whether decay, rather than the loss, may decide how large weights are."""
        return self.weight_decay >= (STRONG_DECAY if self.optimizer == "adamw" else STRONG_L2)


class Start(NamedTuple):
    """A network before its first step: its loss, and every layer, first layer first."""

    loss: float
    layers: list[LayerState]


@dataclass(frozen=True)
class Observations:
    """One run.

    Attributes:
        settings: of the config.
        series: of every epoch metric, `[epochs]`; NaN where a value is missing.
        steps_per_epoch: optimizer steps.
        base_loss: of the best constant prediction: what a network that looks at no feature reaches.
        floor_loss: of perfect predictions: 0 unless labels are smoothed.
        start_loss: before the first step.
        start: every layer before the first step, first layer first.
        end: every layer after the last epoch that left a checkpoint.
        measure_longer_step: of how many learning rates a good step along the last gradient is, 0 if none helps, and by
            how much it would lower the loss. It takes as long as all else; of a healthy run nobody asks.
        measure_contradicted: see `backlight.diagnosis.measure.contradicted`, of held-out rows where there are any; asked
            for of rows whose neighbours disagree only.
        batch_signal: of the last gradient, its squared norm over the variance that a batch's estimate of it has.
        output_signal: the same of the output weights and all rows, once the mean error is taken out of the errors.
        data: the rows.
        error: how the run failed, or None.
        first_non_finite: of a run that failed, the layer and the tensor that another step makes infinite or NaN.
        measure_balanced: the balanced accuracy of training rows; asked where no rows are held out.
    """

    settings: Settings
    series: dict[str, Floats]
    steps_per_epoch: int
    base_loss: float
    floor_loss: float
    start_loss: float
    start: list[LayerState]
    end: list[LayerState]
    measure_longer_step: Callable[[], tuple[float, float]]
    measure_contradicted: Callable[[], float]
    batch_signal: float
    output_signal: float
    data: DataState
    error: str | None = None
    first_non_finite: tuple[str, str] | None = None
    measure_balanced: Callable[[], float] = lambda: float("nan")

    @property
    def longer_step(self) -> float:
        """See `measure_longer_step`."""
        return self.measure_longer_step()[0]

    @property
    def longer_step_gain(self) -> float:
        """See `measure_longer_step`."""
        return self.measure_longer_step()[1]

    def loss(self, part: Literal["train", "val"]) -> Floats:
        """`[epochs]`; empty where the part has no rows."""
        values = self.series.get(f"{part}/loss", np.empty(0))
        return values[np.isfinite(values)]

    def last(self, metric: str) -> float:
        """The last value of an epoch metric; NaN where there is none."""
        values = self.series.get(metric, np.empty(0))
        return float(values[-1]) if len(values) else float("nan")

    @property
    def rates(self) -> Floats:
        """The learning rate of each epoch."""
        return self.series.get("lr", np.empty(0))

    @property
    def telling_rows(self) -> float:
        """Validation rows of equal weight whose mean loss has the standard error of this one's.

        Kish 1965, Survey Sampling: `(Σw)² / Σw²`, where each class weighs as much.
        """
        rows, shares = self.data.rows.get("val", 0), self.data.class_shares
        if not self.settings.weighs_classes:
            return rows
        nonzero = shares.clip(min=1e-12)  # a class may have no training rows
        return max(1.0, float(len(shares) ** 2 / (1 / nonzero).sum()) * rows)

    def progress(self, part: Literal["train", "val"] = "train") -> float:
        """How far the loss came from the best constant prediction (0) to perfect ones (1); below 0 if it went up.

        NaN where nothing was measured.
        """
        loss = self.loss(part)
        return self.progress_of(loss[-1]) if len(loss) else float("nan")

    def progress_of(self, loss: float) -> float:
        """The same of one loss."""
        return float((self.base_loss - loss) / (self.base_loss - self.floor_loss))
