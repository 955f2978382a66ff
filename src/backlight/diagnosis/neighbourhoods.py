"""What other rows say of a row's label: what can be known of it, whatever the network."""

import math

import torch
from torch import Tensor, nn

from backlight.backprop.products import linear
from backlight.backprop.sparse import squared_norms
from backlight.diagnosis.observations import Neighbourhoods

MOST_NEIGHBOURHOOD_ROWS = 2000
NEIGHBOURS = 20
DOUBTFUL = 0.15
"""Share of labels that neighbours contradict where they are surest, up to which nobody asks a polynomial."""
LOST = 0.3
"""Share of labels that most neighbours do not have, from which on one is asked as well. Of 150 sets polynomials knew 0.05
more of 66, of which 65 are asked of by one mark or the other. Of 900 random runs 26 that are healthy beside their
neighbours are sick beside a polynomial: the first remedy lowers the validation loss of all of them, and of 22 by 0.05 of the
base-rate loss and more."""
MOST_POLYNOMIAL_ROWS, RIDGE = 700, 0.05
"""The time is cubic in the rows, a hundredth of a second with 700. And λ over the mean of the kernel's diagonal,
the one value that was tried."""


def neighbourhoods(x: Tensor, y: Tensor) -> Neighbourhoods | None:
    """What the neighbours of rows say of their labels.

    The label of a row is compared with those of its ten nearest others (Cover & Hart 1967), features brought to
    one scale. For the noise, the third of the rows whose nearest ten agree best is taken, and how many
    of the *next* ten have another label is counted: these were not chosen for agreeing. Classes
    that overlap disagree near their border only; labels that are wrong disagree everywhere. Among many features
    or classes neighbours are lost, so that polynomials of degree 2 and 3 are asked as well, what they know too.

    Args:
        x: `[rows, features]`, of which at most 2,000 are looked at.
        y: `[rows]` int64, the class of each.
    """
    if len(x) < 3 * (NEIGHBOURS + 1):
        return None
    chosen = torch.linspace(0, len(x) - 1, min(len(x), MOST_NEIGHBOURHOOD_ROWS)).long()
    x, y = x[chosen].double(), y[chosen]
    spread = (x - x.mean(dim=0)).square_().mean(dim=0).sqrt()  # a quarter of the time of `std`
    x = (x / torch.where(spread > 0, spread, 1)).float()
    # Less half the squared distance, but for what all of a row have in common: its own norm.
    nearness = linear(x, x, -squared_norms(x) / 2).fill_diagonal_(-math.inf)
    labels = y[nearness.topk(NEIGHBOURS).indices]
    classes = int(y.max()) + 1
    of_class = y.bincount(minlength=classes).clamp(min=1)
    half = NEIGHBOURS // 2
    votes = nn.functional.one_hot(labels[:, :half], classes).sum(dim=1)
    agreed, winner = votes.max(dim=1)
    attainable = float((winner == y).double().mean())
    purest = agreed.topk(max(1, len(y) // 3)).indices
    noise = float((labels[purest, half:] != winner[purest, None]).double().mean())
    if noise >= DOUBTFUL or 1 - attainable >= LOST:
        some = torch.linspace(0, len(x) - 1, min(len(x), MOST_POLYNOMIAL_ROWS)).long()
        # Neighbours that are right where they are sure, but seldom sure: classes around each other, as squares tell.
        degrees = (2, 3) if noise >= DOUBTFUL else (2,)
        known, doubted = zip(
            *(known_by_polynomial(x[some], y[some], degree) for degree in degrees), strict=True
        )
        most = float(of_class.max() / len(y))
        # The neighbours of parity tell the contrary, which polynomials that tell nothing shall not hide.
        attainable = max(known) if max(known) - most > abs(attainable - most) else attainable
        noise = min(noise, sum(doubted) / len(degrees))  # of one, chance among so few would decide
    is_found = (votes / of_class).argmax(dim=1) == y
    balanced = (is_found / of_class[y]).sum() / len(y.unique())
    # Neighbours that are right know of no more wrong labels; beyond the nearest ten another corner of parity may begin.
    return Neighbourhoods(attainable, min(noise, 1 - attainable), float(balanced))


def known_by_polynomial(x: Tensor, y: Tensor, degree: int) -> tuple[float, float]:
    """The share of labels that a polynomial fitted to all other rows knows, and that it contradicts where it is surest.

    The latter is of the third of the rows that it is surest of.

    Kernel ridge regression of the classes, each row left out in turn: `t − α / diag(A)` with `A = (K + λI)⁻¹` and
    `α = A t` (Rifkin & Lippert 2007, Notes on Regularized Least Squares, section 4).

    Args:
        x: `[rows, features]`, each with deviation 1.
        y: `[rows]` int64.
    """
    x, classes = x - x.mean(dim=0), max(2, int(y.max()) + 1)
    targets = nn.functional.one_hot(y, classes).float()
    targets = targets - targets.mean(dim=0)
    kernel = (1 + x @ x.T / x.shape[1]) ** degree
    kernel.diagonal().add_(RIDGE * kernel.diagonal().mean())
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(kernel))
    left_out = targets - inverse @ targets / inverse.diagonal()[:, None]
    (sureness, second), named = (best.T for best in left_out.topk(2, dim=1))
    surest = (sureness - second).topk(max(1, len(y) // 3)).indices
    is_right = (named[0] == y).double()
    return float(is_right.mean()), float(1 - is_right[surest].mean())
