"""`python scripts/explain.py`, against a forward and backward pass of plain autograd."""

import re
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
import torch
from sklearn.datasets import load_wine

from backlight.checkpoint import TrainedNetwork
from tests.conftest import Call, TrainedRun

Train = Callable[..., TrainedRun]


@pytest.fixture(params=["true", "quantile"])
def wine(request: pytest.FixtureRequest, train: Train, tmp_path: Path) -> TrainedRun:
    frame = load_wine(as_frame=True).frame
    frame.to_csv(tmp_path / "wine.csv", index=False)
    table = ("data=table", "data.path=wine.csv", "data.target=target", f"data.standardize={request.param}")
    return train(*table, "model.hidden=[4,3]", "seed=3")


def cells(output: str) -> list[list[str]]:
    return [
        [cell.strip() for cell in line.strip("│").split("│")] for line in output.splitlines() if "│" in line
    ]


def test_the_walk_is_that_of_autograd(wine: TrainedRun, call: Call, tmp_path: Path) -> None:
    result = call("explain", "run=run", "input=wine.csv", "row=100", "top=20")
    assert result.code == 0, result.err
    network = TrainedNetwork.load(wine.path / "checkpoints" / "best.ckpt")
    row = pd.read_csv(tmp_path / "wine.csv").iloc[[100]]
    x = torch.from_numpy(network.encoder.transform(row)).double().requires_grad_()
    y = torch.nn.functional.one_hot(torch.tensor([row["target"].item()]), 3).double()
    model = network.model.double()
    a, passed = x, []
    for layer in model.linear_layers:
        z = layer(a)
        z.retain_grad()
        passed.append(z)
        a = torch.sigmoid(z)
    loss = torch.nn.functional.binary_cross_entropy_with_logits(z, y)
    loss.backward()

    assert f"loss {loss.item():.4f}" in result.out
    rows = cells(result.out)
    inputs = {row[0]: row for row in rows if row[0] in network.encoder.feature_names}
    for index, name in enumerate(network.encoder.feature_names):
        assert float(inputs[name][1]) == pytest.approx(row[name].item(), rel=1e-3)
        assert float(inputs[name][3]) == pytest.approx(x.grad[0, index].item(), rel=0.01)
    neurons = [row for row in rows if re.fullmatch(r"#\d+", row[0])]
    assert len(neurons) == 4 + 3 + 3
    for layer, count in zip(passed, (4, 3, 3), strict=True):
        of_layer, neurons = neurons[:count], neurons[count:]
        for cell in of_layer:
            neuron = int(cell[0][1:])
            assert float(cell[1]) == pytest.approx(layer[0, neuron].item(), abs=1e-3)
            assert float(cell[2]) == pytest.approx(torch.sigmoid(layer[0, neuron]).item(), abs=1e-3)
            assert float(cell[4]) == pytest.approx(layer.grad[0, neuron].item(), rel=0.06)
        assert sum(float(cell[5].rstrip("%")) for cell in of_layer) == pytest.approx(100, abs=2)
    with torch.no_grad():
        slope = sum(parameter.grad.square().sum().item() for parameter in model.parameters())
        for parameter in model.parameters():
            parameter -= 0.1 * parameter.grad
        after = torch.nn.functional.binary_cross_entropy_with_logits(model(x), y).item()
    (change,) = [row for row in rows if row[0] == "loss"]
    assert change[1:3] == [f"{loss.item():.4f}", f"{after:.4f}"]
    (first_order,) = [row for row in rows if row[0].startswith("loss to first order")]
    assert float(first_order[3]) == pytest.approx(-0.1 * slope, rel=0.06)


def test_a_row_of_the_run_itself(train: Train, call: Call) -> None:
    train("data=breast_cancer", "loss.label_smoothing=0.1")
    result = call("explain", "run=run", "row=3", "part=val", "checkpoint=last", "top=2")
    assert result.code == 0, result.err
    assert "row 3 of the val rows: class '" in result.out
    assert "inputs (2 of 30, largest first)" in result.out
    assert "σ(z) of 'benign'" in result.out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["row=200", "input=wine.csv"], "row=200: wine.csv has 178 rows, numbered from 0"),
        (["row=27"], "row=27: the test rows are numbered from 0 to 26"),
        (["row=1", "label=1"], "label=1: the run's own rows have their labels; allowed with input="),
        (["input=wine.csv", "label=5"], "label=5: no such class; allowed: 0, 1, 2"),
        (["input=new.csv"], "new.csv has no column 'target'; give label=…; allowed: 0, 1, 2"),
        (["input=none.csv"], "none.csv: no such file"),
    ],
)
def test_what_cannot_be_explained(
    wine: TrainedRun, call: Call, tmp_path: Path, arguments: list[str], message: str
) -> None:
    pd.read_csv(tmp_path / "wine.csv").drop(columns="target").to_csv(tmp_path / "new.csv", index=False)
    result = call("explain", "run=run", *arguments)
    assert result.code == 2
    assert message in result.err
    assert call("explain", "run=run", "input=new.csv", "label=2").code == 0
