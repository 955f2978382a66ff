"""Matrix products, each by the library that is fastest at its size.

On a CPU PyTorch multiplies float32 matrices by MKL. On AMD's processors MKL leaves the widest vectors unused. Those of
Zen 5 compute twice as much with them, and oneDNN, which comes with PyTorch too, takes 0.45 of MKL's time; but each call
of it costs 15 µs, and copies what does not lie as it wants it. Zen 4 computes such a vector in two halves, and oneDNN
takes less time, 0.7 of MKL's, for the largest products only. On Intel's processors it takes 1.2 times as long as MKL.
"""

import platform
import re
from collections.abc import Sequence
from itertools import islice
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

LARGEST_SHARED = 5 * 2**19
"""Multiply-adds, from which a product may be oneDNN's, or one of several threads, and have other bits."""
WORTH_SUMMING = 2**14
"""Multiply-adds of all products, from which a sum of many takes a third of the time of PyTorch's own loop."""
WORTH_A_THREAD = 64
"""Rows of a product that a thread makes of its own: with 32 each it takes as long as all together."""
PLAIN_LOOP = 400
"""Multiply-adds of one product, below which PyTorch does not ask MKL."""
THIN = 2
"""Columns or inner, below which MKL multiplies a matrix in another way than a larger one."""
SUM_VECTOR = 32
"""Columns that PyTorch sums at a time, in the order of the loop; what is left in the end goes another way."""


def _processor() -> str:
    """As the system describes it."""
    described = Path("/proc/cpuinfo")
    if not described.exists():
        return platform.processor()
    with described.open() as lines:  # not to its end: it says the same of each of hundreds of cores
        return "".join(islice(lines, 3))


def family_of_amd(processor: str) -> int | None:
    """The family of a processor of AMD's, by its description: 25 for Zen 3 and 4, 26 for Zen 5; None for others'."""
    family = re.search(r"family\s*:?\s*(\d+)", processor, re.IGNORECASE)
    return int(family[1]) if family and "AuthenticAMD" in processor else None


FAMILY_OF_AMD = family_of_amd(_processor())
IS_OF_AMD = FAMILY_OF_AMD is not None
ONEDNN_IS_FASTER = (
    torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise") and IS_OF_AMD
)
ZEN_5 = 26
WORTH_ONEDNN = 2**25 if FAMILY_OF_AMD is not None and FAMILY_OF_AMD < ZEN_5 else 5 * 2**19
"""Multiply-adds of one product, from which the call costs less than it saves: on two cores of Zen 5 both take 28 µs."""
FEW = 4 if IS_OF_AMD else 16
"""Rows, below which MKL multiplies a matrix in another way than a larger one."""


def product(left: Tensor, right: Tensor, added: Tensor | None = None, spare: Tensor | None = None) -> Tensor:
    """`left right`, plus `added`, of many: `[n, rows, inner]`, `[n, inner, columns]` and `[n, rows, 1]`.

    Of the right there may be fewer, see `can_share`: each then serves equally many of the left in a row.
    It may be given memory to write to, which a large product without `added` does not use.
    """
    groups, count, rows, inner = right.shape[0], *left.shape
    if groups < count:
        added, spare = (None if t is None else t.view(groups, -1, t.shape[-1]) for t in (added, spare))
        return product(left.reshape(groups, -1, inner), right, added, spare).view(count, rows, -1)
    size = left.numel() * right.shape[-1]
    # The first questions are cheap, and answer for small networks and for Intel's processors.
    if size < WORTH_ONEDNN or not ONEDNN_IS_FASTER or not _is_for_onednn(left, right.mT):
        # What MKL takes for a column has other bits among many.
        if right.shape[-1] == 1 and rows > 1 and rows * inner >= PLAIN_LOOP:
            below, room = (None if t is None else t.mT for t in (added, spare))
            turned = product(right.mT, left.mT, below, room).mT
            return turned if spare is None else spare
        if added is None:
            if rows == 1 and inner * right.shape[-1] >= PLAIN_LOOP:
                left = left.flatten(1).unsqueeze(1)
            parts = torch.get_num_threads()
            if _is_split_badly(left, right, parts):
                # The bits are the same.
                room = None if spare is None else spare.view(parts, -1, right.shape[-1])
                in_parts = torch.bmm(left.view(parts, -1, inner), right.expand(parts, -1, -1), out=room)
                return in_parts.view(1, rows, -1) if spare is None else spare
            return torch.bmm(left, right, out=spare)
        if rows == 1 and size >= WORTH_SUMMING and _is_sum(right):
            return torch.sum(left.mT * right, dim=-2, keepdim=True, out=spare).add_(added)
        return torch.baddbmm(added, left, right, out=spare)
    result = _stacked(list(map(_by_onednn, _each(left), _each(right.mT))))
    return result if added is None else torch.add(result, added, out=result if spare is None else spare)


def can_share(left: Tensor, right: Tensor) -> bool:
    """Whether one product of many of the left, one below the other, with a right has the bits of a product of each.

    Args:
        left: `[n, rows, inner]`
        right: `[groups, columns, inner]`, each for equally many of the left in a row.
    """
    rows, columns, inner = left.shape[1], right.shape[1], left.shape[2]
    of_each = rows * columns * inner
    return (
        rows >= FEW
        and min(columns, inner) >= THIN
        and of_each >= PLAIN_LOOP
        and of_each * left.shape[0] // right.shape[0] < LARGEST_SHARED
    )


def for_each(shared: Tensor, count: int) -> Tensor:
    """`[count, …]` of `[groups, …]`, each for equally many in a row; copied only where there are several."""
    groups = shared.shape[0]
    if groups == count:
        return shared
    return shared[:, None].expand(-1, count // groups, -1, -1).flatten(0, 1)


def _is_split_badly(left: Tensor, right: Tensor, threads: int) -> bool:
    """Whether MKL gives each thread some columns, at whose edges they wait for each other, and not some rows.

    A product of 256 × 128 with 128 × 784 takes 1.1 to 1.7 times as long on two cores of an AMD EPYC.
    """
    count, rows, _ = left.shape
    return (
        right.shape[-1] > 2 * rows
        and count == 1
        and rows // threads >= WORTH_A_THREAD
        and rows % threads == 0
        and IS_OF_AMD
        and left.is_cpu
    )


def _is_sum(right: Tensor) -> bool:
    """Whether PyTorch multiplies a row with each of these in a loop of its own, whose bits a sum has too."""
    inner, columns = right.shape[-2:]
    return (
        right.is_cpu and right.is_contiguous() and inner * columns < PLAIN_LOOP and columns % SUM_VECTOR == 0
    )


def linear(a: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """`a Wᵀ + b` of `a [batch, in]`, `W [out, in]`, `b [out]`; or of many, `[n, …]` each and `b [n, 1, out]`."""
    if a.ndim == 2:
        return (
            _by_onednn(a, weight, bias) if _is_for_onednn(a, weight) else functional.linear(a, weight, bias)
        )
    if not _is_for_onednn(a, weight):
        return torch.baddbmm(bias, a, weight.mT)
    return _stacked(list(map(_by_onednn, _each(a), _each(weight), _each(bias[:, 0]))))


def is_of_wide_layer(a: Tensor, weight: Tensor, above: int | None = None) -> bool:
    """Whether `a Wᵀ` should lie row by row, for which oneDNN turns the deltas, and not neuron by neuron.

    For that it turns the weights of the layer `above`, which has so many neurons.
    """
    return 2 * a.shape[-2] <= (weight.shape[-2] if above is None else above) and _is_for_onednn(a, weight)


def _is_for_onednn(a: Tensor, weight: Tensor) -> bool:
    """Whether `a Wᵀ` is large enough for it, and nothing that oneDNN cannot do is asked for."""
    return (
        # A graph, exported or traced, keeps operations that everybody has.
        not torch.compiler.is_compiling()
        and not torch.jit.is_tracing()  # type: ignore[attr-defined,no-untyped-call]  # PyTorch documents it
        and a.shape[-2] * a.shape[-1] * weight.shape[-2] >= WORTH_ONEDNN
        and ONEDNN_IS_FASTER
        and a.is_cpu
        and a.dtype == torch.float32
        and not (torch.is_grad_enabled() and (a.requires_grad or weight.requires_grad))
    )


def _by_onednn(a: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    result: Tensor = torch.ops.mkldnn._linear_pointwise(a, weight, bias, "none", [], "")
    return result


def _each(stacked: Tensor) -> Sequence[Tensor]:
    """Each of many; the only one in a third of the time."""
    return [stacked.squeeze(0)] if stacked.shape[0] == 1 else stacked.unbind()


def _stacked(results: list[Tensor]) -> Tensor:
    return results[0][None] if len(results) == 1 else torch.stack(results)
