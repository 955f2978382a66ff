"""How many threads the matrix products of a step get."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

WORTH_SHARING = 2**18
"""Multiply-adds of one product: below, to wake a second thread and to wait for it takes longer than it saves,
and where another process keeps the cores busy it takes a hundred times as long."""


@contextmanager
def threads_for(multiply_adds: int) -> Iterator[None]:
    """One thread while products are small."""
    threads = torch.get_num_threads()
    if multiply_adds < WORTH_SHARING:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
