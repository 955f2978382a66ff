"""What TensorBoard is told once per run: the config, the graph, and hyper-parameters with final metrics."""

import warnings
from collections.abc import Mapping
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from torch.utils.tensorboard import SummaryWriter
from torch.utils.tensorboard.summary import hparams

from backlight.callbacks.reach import data_of, writer_of


class RunDescription(Callback):
    """Writes the config as text and the graph of the network when training starts.

    Args:
        config: as YAML.
    """

    def __init__(self, config: str) -> None:
        self.config = config

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        writer = writer_of(trainer)
        if writer is None:
            return
        writer.add_text("config", f"```yaml\n{self.config}\n```", trainer.global_step)
        rows = data_of(trainer).part("train")[0][:1].to(pl_module.device)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the tracer's own deprecation
            writer.add_graph(pl_module.model, rows)


def write_hparams(writer: SummaryWriter, config: Mapping[str, Any], metrics: Mapping[str, float]) -> None:
    """Show this run in TensorBoard's HParams page.

    Args:
        writer: of the run whose scalars carry the names in `metrics`.
        config: nested; its leaves are the hyper-parameters, named by their full keys. What only shows and
            records (`callbacks`) is none.
        metrics: final value of each metric.
    """
    file_writer = writer._get_file_writer()
    parameters = _leaves({key: value for key, value in config.items() if key != "callbacks"})
    for summary in hparams(parameters, dict(metrics)):
        file_writer.add_summary(summary)


def _leaves(node: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    leaves: dict[str, Any] = {}
    for key, value in node.items():
        if isinstance(value, Mapping):
            leaves |= _leaves(value, f"{prefix}{key}.")
        elif value is not None:
            leaves[prefix + key] = value if isinstance(value, bool | int | float | str) else str(value)
    return leaves
