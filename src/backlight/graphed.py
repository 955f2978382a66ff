"""Optimizer steps as CUDA graphs."""

from collections.abc import Callable

import torch
from torch import Tensor


class GraphedStep:
    """A step that is recorded once and then repeated on other rows: one launch in place of some thirty.

    "Accelerating PyTorch with CUDA Graphs" (Nguyen et al., PyTorch blog, 2021). What the step launches must be the
    same each time, on memory that stays where it is, and nothing in it may wait for the GPU.

    Args:
        step: makes it on x and y, and returns the logits; it is recorded and not made.
        x: `[batch, features]`, such rows.
        y: `[batch, outputs]`
    """

    def __init__(self, step: Callable[[Tensor, Tensor], Tensor], x: Tensor, y: Tensor) -> None:
        self._rows = [x.clone(), y.clone()]
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph):
            self._logits = step(*self._rows)

    def __call__(self, x: Tensor, y: Tensor) -> Tensor:
        """Make the step; returns the logits before it."""
        torch._foreach_copy_(self._rows, [x, y])
        self._graph.replay()
        return self._logits.clone()
