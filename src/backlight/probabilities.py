"""What logits mean."""

from collections.abc import Callable

from torch import Tensor
from torch.nn import functional

from backlight.backprop.activations import steady_sigmoid


def probabilities(logits: Tensor, sigmoid: Callable[[Tensor], Tensor] = steady_sigmoid) -> Tensor:
    """What the metrics and the user are given: `[rows]` of the positive class, or `[rows, classes]`.

    One-vs-rest sigmoids are divided by their sum, so that each row adds up to 1. What is traced wants PyTorch's
    own `sigmoid`.
    """
    if logits.shape[1] == 1:
        return sigmoid(logits.detach())[:, 0]
    # All outputs can underflow to 0 together; the softmax of log σ(z) is the same ratio without that. Written out it
    # takes a quarter of the time of PyTorch's at ten classes, which goes through each row by itself.
    logs = functional.softplus(-logits.detach()).neg_()
    shares = logs.sub_(logs.amax(dim=1, keepdim=True)).exp_()
    return shares.div_(shares.sum(dim=1, keepdim=True))


def labels_of(y: Tensor) -> Tensor:
    """`[rows]` class index of targets `[rows, outputs]`."""
    return y[:, 0].long() if y.shape[1] == 1 else y.argmax(dim=1)


def predicted(probability: Tensor) -> Tensor:
    """`[rows]` class index of what `probabilities` returned."""
    return (probability > 0.5).long() if probability.ndim == 1 else probability.argmax(dim=1)
