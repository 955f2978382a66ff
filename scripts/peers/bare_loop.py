"""The training loop that people write by hand, with autograd; for `benchmark.py run`."""

import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

LOG_EVERY = 10  # steps between two losses that are read, as Backlight's default is


def network(features: int, hidden: list[int], outputs: int) -> nn.Sequential:
    """Linear layers with sigmoids between them; it returns logits."""
    layers: list[nn.Module] = []
    for inputs, neurons in zip([features, *hidden], hidden, strict=False):
        layers += [nn.Linear(inputs, neurons), nn.Sigmoid()]
    return nn.Sequential(*layers, nn.Linear([features, *hidden][-1], outputs))


def fit(x: Tensor, y: Tensor, hidden: list[int], batch_size: int, epochs: int) -> float:
    """Seconds of stochastic gradient descent on rows in memory, a GPU's too, shuffled in each epoch."""

    def batches() -> Iterator[tuple[Tensor, Tensor]]:
        for index in torch.randperm(len(x), device=x.device).split(batch_size):
            yield x[index], y[index]

    model = network(x.shape[1], hidden, y.shape[1]).to(x.device)
    started = time.perf_counter()
    for _ in range(epochs):
        train(model, batches())
    if x.is_cuda:
        torch.cuda.synchronize()
    return time.perf_counter() - started


def fit_file(x_path: Path, y_path: Path, rows: np.ndarray, hidden: list[int], batch_size: int) -> float:
    """Seconds of one epoch on these rows of `.npy` files that are memory-mapped."""
    x, y = np.load(x_path, mmap_mode="r"), np.load(y_path, mmap_mode="r")
    model = network(x.shape[1], hidden, 1)
    started = time.perf_counter()

    def batches() -> Iterator[tuple[Tensor, Tensor]]:
        order = np.random.permutation(rows)
        for start in range(0, len(order), batch_size):
            index = order[start : start + batch_size]
            yield torch.from_numpy(x[index]), torch.from_numpy(y[index].astype(np.float32))[:, None]

    train(model, batches())
    return time.perf_counter() - started


def train(model: nn.Module, batches: Iterator[tuple[Tensor, Tensor]]) -> list[float]:
    """One epoch; returns the losses that were read."""
    loss_function = nn.BCEWithLogitsLoss()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    losses = []
    for step, (x, y) in enumerate(batches):
        optimizer.zero_grad()
        loss = loss_function(model(x), y)
        loss.backward()
        optimizer.step()
        if step % LOG_EVERY == 0:
            losses.append(loss.item())
    return losses
