"""Optimizers and learning-rate schedules by their name in the config."""

from collections.abc import Callable
from typing import Annotated

from pydantic import Field
from torch import nn, optim
from torch.optim import lr_scheduler

from backlight.ranges import Count, Fraction, Natural, NonNegative, Positive

Parameters = list[nn.Parameter]
Schedule = lr_scheduler.LRScheduler | None

WORTH_FUSING = 2**14
"""Numbers from which to read each once in a step saves more than the fused step's own look at its arguments."""


def _fused(parameters: Parameters) -> bool | None:
    return True if sum(parameter.numel() for parameter in parameters) >= WORTH_FUSING else None


def sgd(
    parameters: Parameters,
    *,
    lr: Positive,
    momentum: Fraction = 0.0,
    nesterov: bool = False,
    weight_decay: NonNegative = 0.0,
) -> optim.Optimizer:
    """Stochastic gradient descent with momentum (Polyak 1964) or Nesterov's variant (Sutskever 2013)."""
    if nesterov and momentum == 0:
        raise ValueError("nesterov=true: needs optimizer.momentum above 0")
    return optim.SGD(parameters, lr, momentum, nesterov=nesterov, weight_decay=weight_decay)


def adam(
    parameters: Parameters,
    *,
    lr: Positive,
    beta1: Fraction = 0.9,
    beta2: Fraction = 0.999,
    eps: Positive = 1e-8,
    weight_decay: NonNegative = 0.0,
) -> optim.Optimizer:
    """Adam (Kingma & Ba 2015); `weight_decay` is an L2 penalty."""
    return optim.Adam(
        parameters, lr, (float(beta1), float(beta2)), eps, weight_decay, fused=_fused(parameters)
    )


def adamw(
    parameters: Parameters,
    *,
    lr: Positive,
    beta1: Fraction = 0.9,
    beta2: Fraction = 0.999,
    eps: Positive = 1e-8,
    weight_decay: NonNegative = 0.01,
) -> optim.Optimizer:
    """Adam with decoupled weight decay (Loshchilov & Hutter 2019)."""
    return optim.AdamW(
        parameters, lr, (float(beta1), float(beta2)), eps, weight_decay, fused=_fused(parameters)
    )


def rmsprop(
    parameters: Parameters,
    *,
    lr: Positive,
    alpha: Fraction = 0.99,
    eps: Positive = 1e-8,
    momentum: Fraction = 0.0,
    weight_decay: NonNegative = 0.0,
) -> optim.Optimizer:
    """RMSprop (Tieleman & Hinton 2012)."""
    return optim.RMSprop(parameters, lr, alpha, eps, weight_decay, momentum)


def lbfgs(
    parameters: Parameters,
    *,
    lr: Positive = 1.0,
    max_iter: Count = 20,
    history_size: Count = 100,
    line_search: bool = True,
) -> optim.Optimizer:
    """L-BFGS (Liu & Nocedal 1989), with a strong-Wolfe line search unless switched off."""
    return optim.LBFGS(
        parameters,
        lr,
        max_iter,
        history_size=history_size,
        line_search_fn="strong_wolfe" if line_search else None,
    )


OPTIMIZERS: dict[str, Callable[..., optim.Optimizer]] = {
    "sgd": sgd,
    "adam": adam,
    "adamw": adamw,
    "rmsprop": rmsprop,
    "lbfgs": lbfgs,
}


def constant(optimizer: optim.Optimizer, epochs: int) -> Schedule:
    """The learning rate stays what it is."""
    return None


def step(
    optimizer: optim.Optimizer, epochs: int, *, every_n_epochs: Count, factor: Positive = 0.1
) -> Schedule:
    """Multiply by `factor` every so many epochs."""
    return lr_scheduler.StepLR(optimizer, every_n_epochs, factor)


def exponential(optimizer: optim.Optimizer, epochs: int, *, factor: Positive = 0.99) -> Schedule:
    """Multiply by `factor` every epoch."""
    return lr_scheduler.ExponentialLR(optimizer, factor)


def cosine(
    optimizer: optim.Optimizer,
    epochs: int,
    *,
    warmup_epochs: Natural = 0,
    final_fraction: Annotated[float, Field(ge=0, le=1)] = 0.0,
) -> Schedule:
    """Linear warm-up, then half a cosine down to `final_fraction` of the rate (Loshchilov & Hutter 2017)."""
    if warmup_epochs >= epochs:
        raise ValueError(f"warmup_epochs={warmup_epochs}: must be below trainer.max_epochs={epochs}")
    floor = final_fraction * float(optimizer.param_groups[0]["lr"])
    decay = lr_scheduler.CosineAnnealingLR(optimizer, epochs - warmup_epochs, floor)
    if warmup_epochs == 0:
        return decay
    warmup = lr_scheduler.LinearLR(optimizer, 1 / (warmup_epochs + 1), 1.0, warmup_epochs)
    return lr_scheduler.SequentialLR(optimizer, [warmup, decay], [warmup_epochs])


def plateau(
    optimizer: optim.Optimizer,
    epochs: int,
    *,
    factor: Annotated[float, Field(gt=0, lt=1)] = 0.1,
    patience: Natural = 10,
) -> Schedule:
    """Multiply by `factor` when the loss (validation's, if there is one) has not improved for a while."""
    return lr_scheduler.ReduceLROnPlateau(optimizer, factor=factor, patience=patience)


SCHEDULES: dict[str, Callable[..., Schedule]] = {
    "constant": constant,
    "step": step,
    "exponential": exponential,
    "cosine": cosine,
    "plateau": plateau,
}
