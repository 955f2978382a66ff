"""Entry point: check back-propagation on any network and data against autograd and differences."""

from typing import Literal

from omegaconf import DictConfig
from rich import get_console
from rich.table import Table

from backlight.assemble import Node, build_data, build_network
from backlight.backprop.gradcheck import AUTOGRAD_TOLERANCE, DIFFERENCES_TOLERANCE, gradcheck
from backlight.checkpoint import TrainedNetwork
from backlight.config import build, plain
from backlight.loss import BinaryCrossEntropy
from backlight.ranges import Count, Natural
from backlight.run_folder import RunFolder


def run(config: DictConfig) -> None:
    """Print the agreement that `conf/gradcheck.yaml` asks for.

    Raises:
        BacklightError: the user can mend it.
        SystemExit: the gradients do not agree.
    """
    build(check_gradients, plain(config), "")


def check_gradients(
    *,
    data: Node,
    model: Node,
    seed: Natural = 0,
    run: str | None = None,
    checkpoint: Literal["best", "last"] = "best",
    rows: Count = 64,
    max_entries: Count = 200,
) -> None:
    """Compare the gradients of a fresh network, or of a trained one, on the first training rows.

    Args:
        data: a `data` node; with `run`, that of the run is taken.
        model: a `model` node; with `run`, its trained network is taken.
        seed: for data and weights.
        run: a run folder, or None.
        checkpoint: which of the run's checkpoints.
        rows: how many training rows.
        max_entries: of each parameter that are compared with central differences.

    Raises:
        BacklightError: the run or the data cannot be used.
        SystemExit: with code 1, the gradients do not agree.
    """
    loss = BinaryCrossEntropy()
    if run is not None:
        folder = RunFolder(run)
        trained = TrainedNetwork.load(folder.checkpoint(checkpoint))
        stored = plain(folder.read_config())
        data, seed, loss = stored["data"], stored["seed"], trained.loss
    module = build_data(data, run_seed=seed)
    module.setup()
    network = trained.model if run is not None else build_network(model, module)
    x, y = module.part("train")
    agreements = gradcheck(
        network, x[:rows], loss.targets(y[:rows]), loss.class_weight, max_entries=max_entries
    )
    table = Table("parameter", "entries", "equations – autograd", "equations – differences", "")
    for row in agreements:
        table.add_row(
            row.parameter,
            str(row.checked),
            f"{row.autograd:.1e}",
            f"{row.differences:.1e}",
            "agrees" if row.holds else "differs",
        )
    console = get_console()
    console.print(table)
    console.print(
        f"allowed: {AUTOGRAD_TOLERANCE:.0e} from autograd, {DIFFERENCES_TOLERANCE:.0e} from differences"
    )
    if not all(row.holds for row in agreements):
        raise SystemExit(1)
