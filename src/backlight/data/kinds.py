"""Every kind of rows by its name: how its encoder is fitted and restored, and how new files of it are read."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from backlight.data.audio import AudioEncoder, read_audio
from backlight.data.encoder import FeatureEncoder
from backlight.data.images import ImageEncoder, read_images
from backlight.data.ratings import PairEncoder, read_pairs
from backlight.data.source import Chunk, Encoder
from backlight.data.table import read_table
from backlight.data.tagging import TokenEncoder, read_tokens
from backlight.data.text import TextEncoder, read_texts

if TYPE_CHECKING:
    pass


def read_columns(encoder: Encoder, path: Path, rows_per_chunk: int) -> Iterator[Chunk]:
    """The rows of a table: they need no keys, being as many and in the same order."""
    import pandas as pd

    for frame in read_table(path, rows_per_chunk):
        yield Chunk(pd.DataFrame(index=frame.index), frame)


@dataclass(frozen=True)
class Kind:
    """Of rows: `fit(rows, standardize=…, **options)`, `restore(state)` and `read(encoder, path, rows_per_chunk)`."""

    fit: Callable[..., Encoder]
    restore: Callable[[dict[str, Any]], Encoder]
    read: Callable[[Any, Path, int], Iterator[Chunk]]


KINDS: dict[str, Kind] = {
    "columns": Kind(FeatureEncoder.fit, FeatureEncoder.from_state_dict, read_columns),
    "images": Kind(ImageEncoder.fit, ImageEncoder.from_state_dict, read_images),
    "text": Kind(TextEncoder.fit, TextEncoder.from_state_dict, read_texts),
    "tokens": Kind(TokenEncoder.fit, TokenEncoder.from_state_dict, read_tokens),
    "audio": Kind(AudioEncoder.fit, AudioEncoder.from_state_dict, read_audio),
    "pairs": Kind(PairEncoder.fit, PairEncoder.from_state_dict, read_pairs),
}
