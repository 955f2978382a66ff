"""Rows that are mostly zeros, and what a layer does with them.

A layer whose input is mostly zeros gathers the columns of `W` where x is not 0 and sums them, weighted:
the same function as the dense layer, at a cost that is linear in what is there. Where each row has a
single 1 per group of features (a user, an item) those columns are what is elsewhere called an embedding.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional

from backlight.backprop.products import is_of_wide_layer, linear, product


@dataclass(frozen=True)
class SparseRows:
    """A matrix in compressed sparse rows; it takes the place of the tensor x `[rows, features]`.

    Attributes:
        starts: `[rows + 1]` int64: row r holds the entries from `starts[r]` up to `starts[r + 1]`.
        columns: `[entries]` int64
        values: `[entries]` float
        num_features: columns of the matrix.
        passes: None for one matrix; for many of equally many rows, one below the other, how many: it is
            then `[passes, rows, features]`.
    """

    starts: Tensor
    columns: Tensor
    values: Tensor
    num_features: int
    passes: int | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        rows = len(self.starts) - 1
        if self.passes is None:
            return rows, self.num_features
        return self.passes, rows // self.passes, self.num_features

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index: "Tensor | slice | int | None") -> "SparseRows":
        """Rows of a matrix, by a slice or `[rows]` int64; a matrix of many by its number; None makes one of many."""
        if index is None:
            return replace(self, passes=1)
        if isinstance(index, int):
            rows = self.shape[-2]
            return replace(self, passes=None)[index * rows : (index + 1) * rows]
        if isinstance(index, slice):
            start, stop, step = index.indices(len(self))
            if step == 1:
                starts = self.starts[start : max(start, stop) + 1]
                entries = slice(int(starts[0]), int(starts[-1]))
                return self._with(starts - starts[0], entries)
            index = torch.arange(start, max(start, stop), step, device=self.starts.device)
        lengths = self.starts.diff()[index]
        starts = functional.pad(lengths.cumsum(0), (1, 0))
        shift = (self.starts[index] - starts[:-1]).repeat_interleave(lengths)
        return self._with(starts, torch.arange(len(shift), device=shift.device) + shift)

    def split(self, rows: int | Sequence[int]) -> "list[SparseRows]":
        """As `Tensor.split`, along the rows of a matrix."""
        if isinstance(rows, int):
            rows = [min(rows, len(self) - at) for at in range(0, max(1, len(self)), rows)]
        parts, end = [], 0
        for size in rows:
            parts.append(self[end : end + size])
            end += size
        return parts

    def to(self, target: torch.device | torch.dtype) -> "SparseRows":
        """On this device, or with values of this type."""
        if isinstance(target, torch.dtype):
            return replace(self, values=self.values.to(target))
        return replace(
            self,
            starts=self.starts.to(target),
            columns=self.columns.to(target),
            values=self.values.to(target),
        )

    def double(self) -> "SparseRows":
        return self.to(torch.float64)

    def detach(self) -> "SparseRows":
        """Itself: nothing is differentiated with respect to the rows of the data."""
        return self

    def to_dense(self) -> Tensor:
        """The same numbers as a tensor."""
        flat = torch.zeros(len(self.starts) - 1, self.num_features).to(self.values)
        return flat.index_put_((self.row_of_entry, self.columns), self.values).view(self.shape)

    @property
    def row_of_entry(self) -> Tensor:
        """`[entries]` int64"""
        lengths = self.starts.diff()
        return torch.arange(len(lengths), device=lengths.device).repeat_interleave(lengths)

    def _with(self, starts: Tensor, entries: Tensor | slice) -> "SparseRows":
        return replace(self, starts=starts, columns=self.columns[entries], values=self.values[entries])


Rows = Tensor | SparseRows


def concatenate(parts: Sequence[Rows]) -> Rows:
    """As `torch.cat` along the first axis."""
    tensors = [part for part in parts if isinstance(part, Tensor)]
    if tensors:
        return torch.cat(tensors)
    sparse = [part for part in parts if isinstance(part, SparseRows)]
    starts, entries = [sparse[0].starts[:1]], 0
    for part in sparse:
        starts.append(part.starts[1:] + entries)
        entries += len(part.values)
    return replace(
        sparse[0],
        starts=torch.cat(starts),
        columns=torch.cat([part.columns for part in sparse]),
        values=torch.cat([part.values for part in sparse]),
        passes=None if sparse[0].passes is None else sum(len(part) for part in sparse),
    )


def affine(
    a: Rows, weight: Tensor, bias: Tensor, spare: Tensor | None = None, above: int | None = None
) -> Tensor:
    """`a Wᵀ + b` of `a [batch, in]`, `W [out, in]`, `b [out]`; or of many, `[n, …]` each and `b [n, 1, out]`.

    Of many it may be given memory to write to, which sparse rows and wide layers do not use, and how many neurons the
    next layer has.
    """
    if isinstance(a, Tensor):
        if a.ndim == 2 or is_of_wide_layer(a, weight, above):
            return linear(a, weight, bias)
        # Each neuron's rows together in memory: of few neurons and many rows it takes a third of the time.
        if spare is None:
            return product(weight, a.mT, bias.mT).mT
        product(weight, a.mT, bias.mT, spare.mT)
        return spare
    if a.passes is not None:
        return torch.stack(
            [affine(a[number], each, b[0]) for number, (each, b) in enumerate(zip(weight, bias, strict=True))]
        )
    gathered = functional.embedding_bag(
        a.columns,
        weight.mT.contiguous(),  # no copy where the layer is laid out for it: `SigmoidMLP.gather_inputs`
        a.starts,
        mode="sum",
        per_sample_weights=a.values,
        include_last_offset=True,
    )
    return gathered + bias


def outer(delta: Tensor, a: Rows, spare: Tensor | None = None) -> Tensor:
    """`deltaᵀ a [out, in]` of `delta [batch, out]` and `a [batch, in]`; or of many, `[n, …]` each.

    Of many it may be given memory to write to, which sparse rows and large products do not use.
    """
    if isinstance(a, Tensor):
        return product(delta.mT, a, spare=spare) if a.ndim == 3 else delta.mT @ a
    if a.passes is not None:
        return torch.stack([outer(own, a[number]).mT for number, own in enumerate(delta)]).mT
    # Each feature that is there gathers the deltas of its rows: adding up entry by entry takes ten times as long.
    order = a.columns.argsort(stable=True)
    present, counts = a.columns[order].unique_consecutive(return_counts=True)
    sums = functional.embedding_bag(
        a.row_of_entry[order],
        delta,
        functional.pad(counts.cumsum(0), (1, 0)),
        mode="sum",
        per_sample_weights=a.values[order],
        include_last_offset=True,
    )
    return delta.new_zeros(a.num_features, delta.shape[1]).index_copy_(0, present, sums).mT


def squared_norms(a: Rows) -> Tensor:
    """`‖a_b‖² […, batch]`"""
    if isinstance(a, Tensor):
        if a.stride(-1) == 1:  # no squares in memory
            norm: Tensor = torch.linalg.vector_norm(a, dim=-1)
            return norm.square()
        # Of rows that lie scattered a norm takes up to 70 times as long.
        product: Tensor = torch.linalg.vecdot(a, a)
        return product
    sums = a.values.new_zeros(len(a.starts) - 1).index_add_(0, a.row_of_entry, a.values.square())
    return sums.view(a.shape[:-1])
