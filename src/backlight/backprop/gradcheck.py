"""Three ways to the same gradient: the equations, autograd and central differences."""

import copy
import sys
from dataclasses import dataclass

import torch
from torch import Tensor

from backlight.backprop.equations import binary_cross_entropy
from backlight.backprop.sparse import Rows
from backlight.backprop.trace import trace
from backlight.model import SigmoidMLP

AUTOGRAD_TOLERANCE = 1e-10
DIFFERENCES_TOLERANCE = 1e-6
STEP = 1e-5  # h: the rounding error is ε/h in float64; a larger one would meet more kinks of relu


@dataclass(frozen=True)
class Agreement:
    """How well the gradients of one parameter agree.

    Attributes:
        parameter: its name.
        checked: entries that were compared with central differences.
        autograd: largest difference of the equations from autograd.
        differences: largest difference of the equations from central differences.

    Both are relative to the largest entry of the gradient, so that entries near 0 do not turn rounding
    into error; `differences` at least to the smallest gradient that differences in float64 resolve to
    their tolerance (where gradients vanish, smaller ones drown in the rounding of the loss).
    """

    parameter: str
    checked: int
    autograd: float
    differences: float

    @property
    def holds(self) -> bool:
        """Whether both are within tolerance."""
        return self.autograd <= AUTOGRAD_TOLERANCE and self.differences <= DIFFERENCES_TOLERANCE


def gradcheck(
    model: SigmoidMLP,
    x: Rows,
    y: Tensor,
    class_weight: Tensor | None = None,
    *,
    max_entries: int = 200,
    seed: int = 0,
) -> list[Agreement]:
    """Compare the three gradients of every parameter in float64; the model itself is not changed.

    Args:
        model: the network.
        x: `[batch, features]`, sparse or not.
        y: `[batch, outputs]`, in [0, 1].
        class_weight: `[classes]`, see `equations.binary_cross_entropy`.
        max_entries: per parameter; of larger ones so many are drawn at random for the differences, which
            cost four forward passes each.
        seed: of that draw.
    """
    model = copy.deepcopy(model).double()
    x, y = x.double(), y.double()
    class_weight = None if class_weight is None else class_weight.double()
    records = [trace(model, x, y, class_weight, backward=by) for by in ("equations", "autograd")]
    generator = torch.Generator().manual_seed(seed)
    # BCE from logits subtracts numbers as large as they are.
    magnitude = float(records[0].loss + records[0].layers[-1].pre_activation.abs().mean())
    rounding = 4 * sys.float_info.epsilon * magnitude / STEP
    result = []
    for index, layer in enumerate(model.linear_layers):
        for name, parameter in layer.named_parameters():
            ours, autograd = (getattr(record.layers[index], f"{name}_gradient") for record in records)
            entries = torch.randperm(parameter.numel(), generator=generator)[:max_entries]
            differences = _central_differences(model, x, y, class_weight, parameter, entries)
            scale = max(float(autograd.abs().max()), sys.float_info.min)
            result.append(
                Agreement(
                    f"{records[0].layers[index].name}.{name}",
                    len(entries),
                    float((ours - autograd).abs().max()) / scale,
                    float((ours.flatten()[entries] - differences).abs().max())
                    / max(scale, rounding / DIFFERENCES_TOLERANCE),
                )
            )
    return result


@torch.no_grad()
def _central_differences(
    model: SigmoidMLP,
    x: Rows,
    y: Tensor,
    class_weight: Tensor | None,
    parameter: Tensor,
    entries: Tensor,
) -> Tensor:
    """For each entry of the parameter `4/3·D(h) − 1/3·D(2h)` with `D(h) = (L(θ + h) − L(θ − h)) / 2h`.

    Richardson's extrapolation: what is left of the truncation error is of the order h⁴. That of D(h) alone
    shows in networks of many square layers.
    """
    found = torch.empty(len(entries), dtype=torch.float64)
    for position, entry in enumerate(entries):
        place = torch.unravel_index(entry, parameter.shape)
        value = parameter[place].item()
        losses = []
        for steps in (1, -1, 2, -2):
            parameter[place] = value + steps * STEP
            losses.append(binary_cross_entropy(model(x), y, class_weight).item())
        parameter[place] = value
        found[position] = (8 * (losses[0] - losses[1]) - (losses[2] - losses[3])) / (12 * STEP)
    return found
