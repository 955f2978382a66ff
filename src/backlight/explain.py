"""Entry point: one row walked forward and backward through a trained network."""

import copy
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from omegaconf import DictConfig
from rich import get_console
from rich.markup import escape
from rich.table import Table
from torch import Tensor

from backlight.assemble import rows_of_run
from backlight.backprop.sparse import Rows, SparseRows
from backlight.backprop.trace import LayerTrace, Trace, trace
from backlight.checkpoint import TrainedNetwork
from backlight.config import build, plain
from backlight.data.columns import as_text
from backlight.data.encoder import FeatureEncoder
from backlight.data.encoding import encoded, targets
from backlight.data.kinds import KINDS
from backlight.data.source import Part
from backlight.errors import BacklightError, printable
from backlight.model import SigmoidMLP
from backlight.probabilities import predicted, probabilities
from backlight.ranges import Count, Natural
from backlight.run_folder import RunFolder

ROWS_AT_ONCE = 4096  # read while looking for one


def run(config: DictConfig) -> None:
    """Print the walk that `conf/explain.yaml` asks for.

    Raises:
        BacklightError: the user can mend it.
    """
    build(explain, plain(config), "")


def explain(
    *,
    run: str,
    row: Natural = 0,
    part: Part = "test",
    input: str | None = None,
    label: str | int | float | bool | None = None,
    checkpoint: Literal["best", "last"] = "best",
    top: Count = 10,
) -> None:
    """Print inputs, z, a and delta of one row, who contributed most, and what one step would change.

    Args:
        run: the run folder of the network.
        row: which row, counted from 0.
        part: of the run's own rows.
        input: new rows of the kind that the run learned, of which one is taken instead.
        label: the true class of the row of `input`; None reads it from the column of the run's target.
        checkpoint: which of the run's checkpoints.
        top: neurons and features that are shown per layer.

    Raises:
        BacklightError: the run or the row cannot be used, or its class is not known.
    """
    folder = RunFolder(run)
    network = TrainedNetwork.load(folder.checkpoint(checkpoint))
    config = plain(folder.read_config())
    if input is not None:
        x, y = _row_of_file(network, Path(input), row, config["data"].get("target"), label)
        where = input
    elif label is not None:
        raise BacklightError(f"label={label}: the run's own rows have their labels; allowed with input=")
    else:
        _, every_x, every_y = rows_of_run(folder, checkpoint, part)
        where = f"the {part} rows"
        if row >= len(every_x):
            raise BacklightError(f"row={row}: {where} are numbered from 0 to {len(every_x) - 1}")
        x, y = every_x[row : row + 1], every_y[row : row + 1]
    if isinstance(x, SparseRows):
        x = x.to_dense()
    _show(network, x.double(), y.double(), f"row {row} of {where}", config["optimizer"]["lr"], top)


def _row_of_file(
    network: TrainedNetwork, path: Path, row: int, target: str | None, label: object
) -> tuple[Rows, Tensor]:
    import pandas as pd

    seen = 0
    for chunk in KINDS[network.kind].read(network.encoder, path, ROWS_AT_ONCE):
        if row < seen + len(chunk.rows):
            break
        seen += len(chunk.rows)
    else:
        raise BacklightError(f"row={row}: {path} has {seen} rows, numbered from 0")
    line = chunk.rows[row - seen : row - seen + 1]
    if label is None:
        if not isinstance(line, pd.DataFrame) or target not in line.columns:
            lacks = f"has no column '{target}'" if target else "does not tell it"
            raise BacklightError(
                f"label: the true class is needed, and {path} {lacks}; "
                f"give label=…; allowed: {', '.join(network.class_names)}"
            )
        label = as_text(line[target])[0]
    if str(label) not in network.class_names:
        raise BacklightError(f"label={label}: no such class; allowed: {', '.join(network.class_names)}")
    code = torch.tensor([network.class_names.index(str(label))])
    return encoded(line, network.encoder)[:1], targets(code, network.class_names)


def _show(network: TrainedNetwork, x: Tensor, y: Tensor, title: str, lr: float, top: int) -> None:
    model, loss = copy.deepcopy(network.model).double(), network.loss.double()
    record = trace(model, x, loss.targets(y), loss.class_weight)
    console = get_console()
    console.print(
        f"{title}: {printable(_verdict(network, record, y))}; loss {record.loss.item():.4f}",
        highlight=False,
        markup=False,
    )
    console.print(_inputs(network, record.layers[0], x[0], top))
    names = network.encoder.feature_names
    for index, layer in enumerate(record.layers):
        above = record.layers[index + 1] if index + 1 < len(record.layers) else None
        console.print(_layer(layer, names, above, y[0], top))
        names = [f"#{neuron}" for neuron in range(layer.delta.shape[1])]
    console.print(_one_step(network, model, record, x, y, lr))


def _verdict(network: TrainedNetwork, record: Trace, y: Tensor) -> str:
    chance = probabilities(record.layers[-1].pre_activation)
    guess = int(predicted(chance)[0])
    of_guess = float(chance[0]) if chance.ndim == 1 else float(chance[0, guess])
    if chance.ndim == 1 and guess == 0:
        of_guess = 1 - of_guess
    true = int(y[0, 0]) if y.shape[1] == 1 else int(y[0].argmax())
    verdict = "right" if guess == true else "wrong"
    return (
        f"class '{network.class_names[true]}', predicted '{network.class_names[guess]}' "
        f"with probability {of_guess:.4f}, {verdict}"
    )


def _inputs(network: TrainedNetwork, first: LayerTrace, x: Tensor, top: int) -> Table:
    gradient = (first.delta @ first.weight)[0]
    encoder = network.encoder
    names, scale = encoder.feature_names, encoder.scale
    values = x.numpy() * np.array(scale) + np.array(encoder.mean)
    values[np.abs(values) < 1e-6 * np.array(scale)] = 0.0  # what standardising in float32 left of it
    if isinstance(encoder, FeatureEncoder) and encoder.is_ranked:
        values = encoder.gathered(values[None])[0]
    shown = gradient.abs().argsort(descending=True, stable=True)[:top].tolist()
    table = _table(f"inputs{_of(len(shown), len(x))}", "feature", "value", "x", "∂L/∂x")
    for index in shown:
        table.add_row(
            escape(printable(names[index])),
            f"{values[index]:.4g}",
            f"{x[index]:+.4f}",
            f"{gradient[index]:+.2e}",
        )
    return table


def _layer(layer: LayerTrace, names: list[str], above: LayerTrace | None, y: Tensor, top: int) -> Table:
    """One layer: each neuron with the input that moves its z most and the neuron above that blames it most."""
    delta = layer.delta[0]
    share = delta.abs() / delta.abs().sum().clamp(min=torch.finfo(delta.dtype).tiny)
    shown = delta.abs().argsort(descending=True, stable=True)[:top].tolist()
    source = "y" if above is None else "delta most from"
    title = f"{layer.name}{_of(len(shown), len(delta))}"
    table = _table(title, "neuron", "z", "a", "σ'(z)", "delta", "share", "z most from", source)
    assert isinstance(layer.input, Tensor)
    fed = layer.weight * layer.input[0]  # [out, in]: what each input adds to z
    for neuron in shown:
        strongest = int(fed[neuron].abs().argmax())
        if above is None:
            blame = f"{y[neuron]:g}"
        else:
            parts = above.delta[0] * above.weight[:, neuron]  # what each neuron above sends back
            sender = int(parts.abs().argmax())
            blame = f"#{sender} ({parts[sender]:+.1e})"
        table.add_row(
            f"#{neuron}",
            f"{layer.pre_activation[0, neuron]:+.3f}",
            f"{layer.activation[0, neuron]:.3f}",
            f"{layer.slope[0, neuron]:.3f}",
            f"{delta[neuron]:+.1e}",
            f"{share[neuron]:.0%}",
            f"{escape(printable(names[strongest]))} ({fed[neuron, strongest]:+.2f})",
            blame,
        )
    return table


def _one_step(
    network: TrainedNetwork, model: SigmoidMLP, record: Trace, x: Tensor, y: Tensor, lr: float
) -> Table:
    """Plain gradient descent on this row alone."""
    table = _table(f"one step of gradient descent on this row, lr={lr:g}", "", "before", "after", "change")
    with torch.no_grad():
        for linear, layer in zip(model.linear_layers, record.layers, strict=True):
            linear.weight.sub_(lr * layer.weight_gradient)
            linear.bias.sub_(lr * layer.bias_gradient)
        logits = model(x)
    names = network.class_names[1:] if logits.shape[1] == 1 else network.class_names
    chances = [torch.sigmoid(z[0]).tolist() for z in (record.layers[-1].pre_activation, logits)]
    rows = [(f"σ(z) of '{name}'", was, now) for name, was, now in zip(names, *chances, strict=True)]
    for name, was, now in [*rows, ("loss", record.loss.item(), network.loss(logits, y).item())]:
        table.add_row(escape(printable(name)), f"{was:.4f}", f"{now:.4f}", f"{now - was:+.1e}")
    squares = [
        float(g.square().sum())
        for layer in record.layers
        for g in (layer.weight_gradient, layer.bias_gradient)
    ]
    table.add_row("loss to first order, −lr·‖∇L‖²", "", "", f"{-lr * sum(squares):+.1e}")
    for layer in record.layers:
        table.add_row(f"weights of {layer.name}, ‖ΔW‖", "", "", f"{lr * layer.weight_gradient.norm():.1e}")
    return table


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold")
    for column in columns:
        is_text = column in ("feature", "", "z most from", "delta most from")
        table.add_column(column, justify="left" if is_text else "right", no_wrap=not is_text)
    return table


def _of(shown: int, everything: int) -> str:
    return "" if shown == everything else f" ({shown} of {everything}, largest first)"
