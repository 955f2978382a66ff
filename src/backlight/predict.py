"""Entry point: label and probability for every new row, of a table or of whatever kind the run learned."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from omegaconf import DictConfig
from rich import get_console

from backlight.accelerator import Accelerator, device_of
from backlight.checkpoint import TrainedNetwork
from backlight.config import build, plain
from backlight.data.encoding import encoded
from backlight.data.kinds import KINDS
from backlight.data.ratings import PairEncoder, read_users
from backlight.data.source import Chunk
from backlight.data.stored import PARQUET_SUFFIXES
from backlight.errors import BacklightError
from backlight.files import whole_file
from backlight.probabilities import predicted, probabilities
from backlight.ranges import Count
from backlight.run_folder import RunFolder

if TYPE_CHECKING:
    import pandas as pd


def run(config: DictConfig) -> int:
    """Write the predictions that `conf/predict.yaml` asks for; returns the number of rows.

    Raises:
        BacklightError: the user can mend it.
    """
    return build(predict, plain(config), "")


def predict(
    *,
    run: str,
    input: str,
    output: str,
    checkpoint: Literal["best", "last"] = "best",
    rows_per_chunk: Count = 100_000,
    top: Count | None = None,
    accelerator: Accelerator = "auto",
) -> int:
    """Predict a table in chunks, so that it may be larger than memory; returns the number of rows.

    Args:
        run: the run folder of the network.
        input: new rows of the kind that the run learned. Of a table: a file with the columns of training; others are
            ignored.
        output: the file to write, Parquet if its name ends so, else CSV. Its columns are `label`,
            `probability` (of that label) and `p_<class>` for every class, after those that tell the row: the file, the
            token, the user and the item. An old file stays until the new one is complete.
        checkpoint: which of the run's checkpoints.
        rows_per_chunk: rows in memory at a time.
        top: how many items to name, the most probably liked ones, for each user of a file that has no items; what a user
            has touched in training is left out.
        accelerator: where to compute.

    Raises:
        BacklightError: the run or the table cannot be used.
    """
    source, target = Path(input), Path(output)
    network = TrainedNetwork.load(RunFolder(run).checkpoint(checkpoint))
    network.model.to(device_of(accelerator, "accelerator"))
    if target.resolve() == source.resolve():
        raise BacklightError(f"output={output}: is the input itself; give another file")
    rows = 0
    with _writing(target) as write:
        for chunk in _chunks(network, source, rows_per_chunk, top):
            if len(chunk.rows):
                predictions = _predict_rows(network, chunk)
                if top is not None:
                    predictions = predictions.nlargest(top, f"p_{network.class_names[-1]}")
                write(predictions)
                rows += len(predictions)
        if rows == 0:
            raise BacklightError(f"input={input}: holds no rows")
    get_console().print(
        f"{rows:,} {'row' if rows == 1 else 'rows'} predicted: {output}", soft_wrap=True, highlight=False
    )
    return rows


def _chunks(network: TrainedNetwork, source: Path, rows_per_chunk: int, top: int | None) -> "Iterator[Chunk]":
    if top is None:
        return KINDS[network.kind].read(network.encoder, source, rows_per_chunk)
    if not isinstance(network.encoder, PairEncoder):
        raise BacklightError(f"top={top}: this run has no users and items; allowed: null")
    return read_users(network.encoder, source)


def _predict_rows(network: TrainedNetwork, chunk: Chunk) -> "pd.DataFrame":
    import pandas as pd

    logits = network.logits(encoded(chunk.rows, network.encoder))
    probability = probabilities(logits)
    chosen = predicted(probability)
    if probability.ndim == 1:
        probability = torch.stack([1 - probability, probability], dim=1)
    columns = {
        "label": np.array(network.class_names, dtype=object)[chosen.numpy()],
        "probability": probability.gather(1, chosen[:, None])[:, 0].numpy(),
    }
    columns |= {f"p_{name}": probability[:, index].numpy() for index, name in enumerate(network.class_names)}
    return pd.concat([chunk.keys.reset_index(drop=True), pd.DataFrame(columns)], axis=1)


@contextmanager
def _writing(target: Path) -> "Iterator[Callable[[pd.DataFrame], None]]":
    """Gives a function that appends a frame; the target appears, whole, when the block ends well."""
    import pyarrow
    import pyarrow.parquet

    is_parquet = target.suffix.lower() in PARQUET_SUFFIXES
    with whole_file(target) as temporary, ExitStack() as files:
        file = files.enter_context(temporary.open("wb"))
        parquet: list[Any] = []  # its writer, once the first frame has shown the columns

        def append(frame: "pd.DataFrame") -> None:
            if not is_parquet:
                frame.to_csv(file, index=False, header=file.tell() == 0)
                return
            table = pyarrow.Table.from_pandas(frame, preserve_index=False)
            if not parquet:
                # A dictionary of probabilities, hardly two of which are alike, takes time and makes the file larger.
                repeated = [field.name for field in table.schema if not pyarrow.types.is_floating(field.type)]
                writer = pyarrow.parquet.ParquetWriter(file, table.schema, use_dictionary=repeated)
                parquet.append(files.enter_context(writer))
            parquet[0].write_table(table)

        yield append
