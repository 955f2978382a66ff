"""How much each neuron, and each layer, contributed to the error of a batch.

Below, `delta_b` is one neuron's error contribution for row b of n, `ã_b = (a_{l−1,b}, 1)` its input with
the constant of the bias, and `g_b = delta_b·ã_b` row b's gradient of the neuron's own weights and bias.
Leading axes (members of a population, steps of a run) stay: `[…, batch, out]` gives `[…, out]`. Every figure
costs at most what the weight gradient itself costs, batch × in × out, and is computed when
it is asked for.
"""

from collections.abc import Sequence
from functools import cached_property

import torch
from torch import Tensor

from backlight.backprop.sparse import outer, squared_norms
from backlight.backprop.trace import LayerTrace

SATURATED = 0.05  # of a slope: a fifth of the sigmoid's largest, ¼


class LayerContributions:
    """The figures of one layer: per neuron tensors `[…, out]`, per layer `[…]`.

    Args:
        layer: its record of one batch.
        above: the contributions of the layer above; None for the last layer.
        update: what a step added to the layer's weight `[…, out, in]`; None where no step is known.
    """

    def __init__(
        self, layer: LayerTrace, above: "LayerContributions | None" = None, update: Tensor | None = None
    ) -> None:
        self.layer = layer
        self.above = above
        self.update = update
        self.name = layer.name

    @cached_property
    def mean_delta(self) -> Tensor:
        """`Σ_b delta_b / n`: which way, and how strongly, the batch pushes the neuron."""
        return self.layer.delta.mean(dim=-2)

    @cached_property
    def mean_abs_delta(self) -> Tensor:
        """`Σ_b |delta_b| / n`"""
        return self.layer.delta.abs().mean(dim=-2)

    @property
    def share(self) -> Tensor:
        """`mean_abs_delta` over its sum in the layer; equal shares where that is 0."""
        mean_abs = self.mean_abs_delta
        total = mean_abs.sum(dim=-1, keepdim=True)
        return torch.where(total > 0, mean_abs / total, 1 / mean_abs.shape[-1])

    @property
    def agreement(self) -> Tensor:
        """Mean cosine of `g_b` and `g_c` over all pairs of rows b ≠ c whose gradient is not 0, in [−1, 1].

        The "stiffness" of Fort et al. 2019, arXiv:1901.09491, per neuron. 1: every row pulls the same way;
        0: they are unrelated. NaN with fewer than two such rows. With unit vectors
        `ĝ_b = sign(delta_b)·ã_b / ‖ã_b‖` it is `(‖Σ_b ĝ_b‖² − n) / (n(n − 1))`.
        """
        layer = self.layer
        sign = layer.delta.sign()
        units = sign / self._squared_inputs.sqrt()[..., None]
        weights, bias = outer(units, layer.input), units.sum(dim=-2)
        rows = sign.abs().sum(dim=-2)
        pairs = weights.square().sum(dim=-1) + bias.square() - rows
        return torch.where(rows > 1, pairs / (rows * (rows - 1)), torch.nan)

    @property
    def saturation(self) -> Tensor:
        """Share of rows with `|σ'(z)| < 0.05`."""
        return self._saturated.mean(dim=-2)

    @property
    def layer_saturation(self) -> Tensor:
        """`saturation` over all neurons of the layer."""
        return self._saturated.mean(dim=(-2, -1))

    @property
    def gsnr(self) -> Tensor:
        """Gradient signal-to-noise ratio `‖E g‖² / (E‖g‖² − ‖E g‖²)` (Liu et al., ICLR 2020, over the
        neuron's own parameters). Infinite where all rows agree exactly, 0 where there is no gradient.
        """
        layer, rows = self.layer, self.layer.delta.shape[-2]
        squares = layer.weight_gradient.square().sum(dim=-1) + layer.bias_gradient.square()
        power = (layer.delta.square().mT @ self._squared_inputs[..., None])[..., 0] / rows
        return _ratio_to_noise(squares / rows**2, power)

    @property
    def layer_gsnr(self) -> Tensor:
        """`gsnr` over all parameters of the layer together."""
        _, _, gradient, power, _ = self.sums
        return _layer_gsnr(gradient, power, self.layer.delta.shape[-2])

    @cached_property
    def rms_delta(self) -> Tensor:
        """Root mean square of delta over rows and neurons."""
        rows, neurons = self.layer.delta.shape[-2:]
        return (self._squared_deltas.sum(dim=-1) / (rows * neurons)).sqrt()

    @property
    def survival(self) -> Tensor:
        """`rms_delta` over that of the layer above: how much of the error signal one step back leaves.

        1 for the last layer; NaN where nothing has arrived above.
        """
        if self.above is None:
            return torch.ones_like(self.rms_delta)
        return _ratio_or_nan(self.rms_delta, self.above.rms_delta)

    @property
    def sums(self) -> list[Tensor]:
        """What the figures of the whole layer are made of, `[…]` each; see `layer_figures`.

        The sum of the squares of its deltas, `layer_saturation`, the squared norm of its gradient and the sum of
        those of the gradients `g_b`, and `update_to_weight`.
        """
        layer = self.layer
        squares = _norm(layer.weight_gradient).square() + layer.bias_gradient.square().sum(dim=-1)
        deltas = self._squared_deltas
        power = (deltas * self._squared_inputs).sum(dim=-1)
        return [deltas.sum(dim=-1), self.layer_saturation, squares, power, self.update_to_weight]

    @property
    def update_to_weight(self) -> Tensor:
        """`‖ΔW‖ / ‖W‖` of the update, W as it was before (about 10⁻³ in healthy training: Karpathy, CS231n).

        NaN where no update is given.
        """
        if self.update is None:
            return torch.full_like(self.layer.delta[..., 0, 0], torch.nan)
        return _norm(self.update) / _norm(self.layer.weight)

    @property
    def _saturated(self) -> Tensor:
        """1 where the slope is small, else 0."""
        size = self.layer.slope.abs()
        return torch.lt(
            size, SATURATED, out=size
        )  # as numbers at once: by way of booleans takes thrice as long

    @cached_property
    def _squared_deltas(self) -> Tensor:
        """`Σ delta_b²` over the neurons, `[…, batch]`"""
        return squared_norms(self.layer.delta)

    @cached_property
    def _squared_inputs(self) -> Tensor:
        """`‖ã_b‖² […, batch]`"""
        return 1 + squared_norms(self.layer.input)


@torch.no_grad()
def contributions(
    layers: Sequence[LayerTrace], updates: Sequence[Tensor] | None = None
) -> list[LayerContributions]:
    """The contributions of every layer, first layer first.

    Args:
        layers: of the trace of one batch.
        updates: what a step added to each layer's weight `[…, out, in]`, or None.
    """
    result: list[LayerContributions] = []
    for index in range(len(layers) - 1, -1, -1):
        above = result[-1] if result else None
        result.append(LayerContributions(layers[index], above, None if updates is None else updates[index]))
    return result[::-1]


def layer_figures(sums: Tensor, rows: Tensor, neurons: Tensor) -> Tensor:
    """`rms_delta`, `survival`, `layer_saturation`, `layer_gsnr` and `update_to_weight` of every layer and record.

    Those of many records cost hardly more than those of one. The last layer's survival, 1 by definition, is NaN.

    Args:
        sums: `[layers, 5, records]`, see `LayerContributions.sums`.
        rows: `[records]`, of each batch.
        neurons: `[layers, 1]`, of each layer.

    Returns:
        `[layers, 5, records]`
    """
    deltas, saturation, gradient, power, update = sums.unbind(dim=1)
    rms = (deltas / (rows * neurons)).sqrt()
    survival = torch.full_like(rms, torch.nan)
    survival[:-1] = _ratio_or_nan(rms[:-1], rms[1:])
    return torch.stack([rms, survival, saturation, _layer_gsnr(gradient, power, rows), update], dim=1)


def _layer_gsnr(gradient: Tensor, power: Tensor, rows: Tensor | int) -> Tensor:
    return _ratio_to_noise(gradient / rows**2, power / rows)


def _ratio_or_nan(part: Tensor, whole: Tensor) -> Tensor:
    return torch.where(whole > 0, part / whole, torch.nan)


def _norm(tensor: Tensor) -> Tensor:
    norm: Tensor = torch.linalg.vector_norm(tensor, dim=(-2, -1))
    return norm


def _ratio_to_noise(signal: Tensor, power: Tensor) -> Tensor:
    noise = (power - signal).clamp(min=0)  # rounding can leave less than nothing
    return torch.where(signal > 0, signal / noise, 0)
