"""Entry point: a trained network as a file that runs without Backlight."""

import logging
import warnings
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

import torch
from omegaconf import DictConfig
from rich import get_console
from torch import Tensor, nn

from backlight.checkpoint import TrainedNetwork
from backlight.config import build, plain
from backlight.data.columns import Column
from backlight.data.encoder import FeatureEncoder
from backlight.errors import BacklightError
from backlight.files import whole_file
from backlight.probabilities import probabilities
from backlight.run_folder import RunFolder

Format = Literal["onnx", "torch_export"]
SUFFIXES = {"onnx": ".onnx", "torch_export": ".pt2"}
TOLERANCE = 1e-5  # of a probability in float32, between two implementations of the same network


class Deployed(nn.Module):
    """Encoded but unscaled features `[rows, features]` float32, not yet spread by rank → probabilities, one per class.

    `[rows, 2]` for two classes as well, in the order of `class_names`.
    """

    def __init__(self, network: TrainedNetwork) -> None:
        super().__init__()
        self.model = network.model
        self.mean: Tensor
        self.scale: Tensor
        # float64, as in training: a large mean minus a large value would lose digits.
        self.register_buffer("mean", torch.tensor(network.encoder.mean, dtype=torch.float64))
        self.register_buffer("scale", torch.tensor(network.encoder.scale, dtype=torch.float64))
        encoder = network.encoder
        self.ranks: nn.Module = nn.Identity()
        if isinstance(encoder, FeatureEncoder) and encoder.is_ranked:
            self.ranks = Ranks(encoder.columns)

    def forward(self, features: Tensor) -> Tensor:
        x = (self.ranks(features.to(torch.float64)) - self.mean) / self.scale
        probability = probabilities(self.model(x.to(torch.float32)), torch.sigmoid)
        return torch.stack([1 - probability, probability], dim=1) if probability.ndim == 1 else probability


class Ranks(nn.Module):
    """Spreads features `[rows, features]` float64 by rank, where their columns say so: see `Column.spread`."""

    def __init__(self, columns: list[Column]) -> None:
        super().__init__()
        of_features = [feature for column in columns for feature in _landmarks(column)]
        most = max(len(landmarks) for landmarks, _ in of_features)
        self.landmarks: Tensor
        self.normals: Tensor
        self.last: Tensor
        # Beyond the last landmark there are none.
        for place, name in enumerate(("landmarks", "normals")):
            padded = [each[place] + [float("inf")] * (most - len(each[place])) for each in of_features]
            self.register_buffer(name, torch.tensor(padded, dtype=torch.float64))
        self.register_buffer("last", torch.tensor([len(landmarks) - 1 for landmarks, _ in of_features]))

    def forward(self, features: Tensor) -> Tensor:
        reached = (features[:, :, None] >= self.landmarks).sum(dim=2)
        above, below = torch.minimum(reached, self.last), (reached - 1).clamp(min=0)
        (low, high), (start, end) = (
            [table.gather(1, place.T).T for place in (below, above)]
            for table in (self.landmarks, self.normals)
        )
        way = torch.where(high > low, (features - low) / (high - low), 0.0).clamp(0, 1)
        is_spread = (self.last > 0) & ~features.isnan()
        return torch.where(is_spread, start + way * (end - start), features)


def _landmarks(column: Column) -> list[tuple[list[float], list[float]]]:
    """Of each feature of a column; a single one where it is not spread."""
    none = [([0.0], [0.0])] * len(column.feature_names)
    return [(column.landmarks, column.normals), *none[1:]] if column.landmarks else none


def run(config: DictConfig) -> Path:
    """Write the file that `conf/export.yaml` asks for; returns its path.

    Raises:
        BacklightError: the user can mend it.
    """
    warnings.filterwarnings("ignore", category=FutureWarning, message=".*LeafSpec.*")  # torch's own
    return build(export, plain(config), "")


def export(
    *,
    run: str,
    format: Format,
    output: str | None = None,
    checkpoint: Literal["best", "last"] = "best",
) -> Path:
    """Export a network and check that the file gives the network's own probabilities.

    Args:
        run: the run folder of the network.
        format: `onnx`, or `torch_export` (a `torch.export` program).
        output: the file to write; by default `model.onnx` or `model.pt2` in the run folder.
        checkpoint: which of the run's checkpoints.

    Raises:
        BacklightError: the run cannot be used, or the file does not agree with the network.
    """
    folder = RunFolder(run)
    network = TrainedNetwork.load(folder.checkpoint(checkpoint))
    target = Path(output) if output else folder.path / f"model{SUFFIXES[format]}"
    deployed = Deployed(network).eval().requires_grad_(False)
    rows = _rows_like_training(network)
    write, read = (_write_onnx, _run_onnx) if format == "onnx" else (_write_program, _run_program)
    with whole_file(target) as temporary:
        write(deployed, rows, temporary)
        difference = float((read(temporary, rows) - deployed(rows)).abs().max())
        if difference > TOLERANCE:
            raise BacklightError(
                f"format={format}: the file's probabilities differ by {difference:.1e} from the network's; "
                f"allowed: {TOLERANCE:.0e}"
            )
    message = f"{target}: {len(rows)} rows agree with the network to {difference:.1e}"
    get_console().print(message, soft_wrap=True, highlight=False)
    return target


def _rows_like_training(network: TrainedNetwork) -> Tensor:
    """`[256, features]` with the means and deviations of the training rows."""
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(256, len(network.encoder.mean), generator=generator)
    rows = noise * torch.tensor(network.encoder.scale) + torch.tensor(network.encoder.mean)
    if isinstance(network.encoder, FeatureEncoder):
        rows = torch.from_numpy(network.encoder.gathered(rows.numpy()))
    return rows


def _write_onnx(deployed: Deployed, rows: Tensor, path: Path) -> None:
    if not all(find_spec(name) for name in ("onnx", "onnxruntime", "onnxscript")):
        raise BacklightError("format=onnx: needs packages that are absent; pip install 'backlight[export]'")
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # it misses torchvision, which is not needed
    torch.onnx.export(
        deployed,
        (rows,),
        path,
        input_names=["features"],
        output_names=["probabilities"],
        dynamic_shapes=({0: torch.export.Dim("rows")},),
        external_data=False,
        dynamo=True,
        verbose=False,
    )


def _run_onnx(path: Path, rows: Tensor) -> Tensor:
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (probabilities,) = session.run(None, {"features": rows.numpy()})
    return torch.from_numpy(probabilities)


def _write_program(deployed: Deployed, rows: Tensor, path: Path) -> None:
    program = torch.export.export(deployed, (rows,), dynamic_shapes=({0: torch.export.Dim("rows")},))
    torch.export.save(program, path)


def _run_program(path: Path, rows: Tensor) -> Tensor:
    probability: Tensor = torch.export.load(path).module()(rows)
    return probability
