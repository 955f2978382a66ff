"""How much each neuron, and each layer, contributed to the error of a batch.

Below, `delta_b` is one neuron's error contribution for row b of n, `ã_b = (a_{l−1,b}, 1)` its input with
the constant of the bias, and `g_b = delta_b·ã_b` row b's gradient of the neuron's own weights and bias.
Every figure costs at most what the weight gradient itself costs, batch × in × out.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from backlight.backprop.trace import LayerTrace, Trace

SATURATED = 0.05  # of a slope: a fifth of the sigmoid's largest, ¼


@dataclass(frozen=True)
class LayerContributions:
    """Per neuron, tensors `[out]`; per layer, floats.

    Attributes:
        name: of the layer.
        mean_delta: `Σ_b delta_b / n`: which way, and how strongly, the batch pushes the neuron.
        mean_abs_delta: `Σ_b |delta_b| / n`.
        share: `mean_abs_delta` over its sum in the layer; equal shares where that is 0.
        agreement: mean cosine of `g_b` and `g_c` over all pairs of rows b ≠ c whose gradient is not 0,
            in [−1, 1] (the "stiffness" of Fort et al. 2019, arXiv:1901.09491, per neuron). 1: every row
            pulls the same way; 0: they are unrelated. NaN with fewer than two such rows.
        saturation: share of rows with `|σ'(z)| < 0.05`.
        gsnr: gradient signal-to-noise ratio `‖E g‖² / (E‖g‖² − ‖E g‖²)` (Liu et al., ICLR 2020, over the
            neuron's own parameters). Infinite where all rows agree exactly, 0 where there is no gradient.
        rms_delta: root mean square of delta over rows and neurons.
        survival: `rms_delta` over that of the layer above: how much of the error signal is left after
            one step back. 1 for the last layer.
        update_to_weight: `‖ΔW‖ / ‖W‖` of an update (about 10⁻³ in healthy training: Karpathy, CS231n);
            NaN where no update is given.
    """

    name: str
    mean_delta: Tensor
    mean_abs_delta: Tensor
    share: Tensor
    agreement: Tensor
    saturation: Tensor
    gsnr: Tensor
    rms_delta: float
    survival: float
    update_to_weight: float


@torch.no_grad()
def contributions(record: Trace, updates: Sequence[Tensor] | None = None) -> list[LayerContributions]:
    """The contributions of every layer, first layer first.

    Args:
        record: of one batch.
        updates: what a step added to each layer's weight `[out, in]`, or None.
    """
    rms = [layer.delta.square().mean().sqrt().item() for layer in record.layers]
    result = []
    for index, layer in enumerate(record.layers):
        mean_abs = layer.delta.abs().mean(dim=0)
        total = mean_abs.sum()
        result.append(
            LayerContributions(
                layer.name,
                layer.delta.mean(dim=0),
                mean_abs,
                mean_abs / total if total > 0 else torch.full_like(mean_abs, 1 / len(mean_abs)),
                _agreement(layer),
                (layer.slope.abs() < SATURATED).to(layer.delta.dtype).mean(dim=0),
                _gsnr(layer),
                rms[index],
                1.0 if index + 1 == len(rms) else _ratio(rms[index], rms[index + 1]),
                float("nan") if updates is None else (updates[index].norm() / layer.weight.norm()).item(),
            )
        )
    return result


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole > 0 else float("nan")


def _agreement(layer: LayerTrace) -> Tensor:
    """`(‖Σ_b ĝ_b‖² − n) / (n(n − 1))` with unit vectors `ĝ_b = sign(delta_b)·ã_b / ‖ã_b‖`."""
    sign = layer.delta.sign()
    length = (1 + layer.input.square().sum(dim=1, keepdim=True)).sqrt()
    summed = (sign.mT @ (layer.input / length)).square().sum(dim=1) + (sign.mT @ (1 / length))[:, 0].square()
    rows = sign.abs().sum(dim=0)
    return torch.where(rows > 1, (summed - rows) / (rows * (rows - 1)), torch.nan)


def _gsnr(layer: LayerTrace) -> Tensor:
    rows = len(layer.delta)
    signal = (layer.weight_gradient.square().sum(dim=1) + layer.bias_gradient.square()) / rows**2
    power = layer.delta.square().mT @ (1 + layer.input.square().sum(dim=1)) / rows
    noise = (power - signal).clamp(min=0)  # rounding can leave less than nothing
    return torch.where(signal > 0, signal / noise, 0)
