"""From raw rows to tensors."""

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from backlight.backprop.sparse import SparseRows
from backlight.data.kinds import KINDS
from backlight.data.source import Encoder, Labelled, RawRows
from backlight.data.stored import Features, StoredRows, StoredTable, stored_features


def outputs_for(class_names: list[str]) -> int:
    """One output for two classes, else one per class."""
    return 1 if len(class_names) == 2 else len(class_names)


def encoder_of(state_dict: dict[str, Any]) -> Encoder:
    """The encoder in the state of a `ClassificationData`.

    Raises:
        KeyError, TypeError: it is not such a state.
    """
    return KINDS[state_dict["kind"]].restore(state_dict["encoder"])


def encoded(rows: RawRows, encoder: Encoder) -> Features:
    """`x [rows, features]` float32 of raw rows."""
    if isinstance(rows, StoredRows):
        return replace(rows, transform=encoder.transform)
    if isinstance(rows, StoredTable):
        return stored_features(rows, encoder)
    x = encoder.transform(rows)
    return x if isinstance(x, SparseRows) else torch.from_numpy(np.ascontiguousarray(x))


def tensors(source: Labelled, encoder: Encoder) -> tuple[Features, Tensor]:
    """`x [rows, features]` and `y [rows, outputs]` of labelled rows, both float32."""
    return encoded(source.rows, encoder), targets(torch.from_numpy(source.labels), source.class_names)


def targets(labels: Tensor, class_names: list[str]) -> Tensor:
    """`y [rows, outputs]` float32 of class indices `[rows]`."""
    num_outputs = outputs_for(class_names)
    y = labels[:, None] if num_outputs == 1 else functional.one_hot(labels, num_outputs)
    return y.to(torch.float32)
