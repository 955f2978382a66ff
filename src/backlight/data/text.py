"""Texts: a table with a text column, or a folder of text files per class."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from pydantic import Field

from backlight.backprop.sparse import SparseRows
from backlight.data.folders import files_in, read_folder
from backlight.data.source import Chunk, Labelled, NotStandardized, Standardize, numbered, sparse_rows
from backlight.data.table import class_labels, read_table, require_columns, whole_table
from backlight.data.text_files import reading_text
from backlight.errors import BacklightError
from backlight.ranges import Count

if TYPE_CHECKING:
    import pandas as pd
    from sklearn.feature_extraction.text import TfidfVectorizer

Lengths = Annotated[list[Count], Field(min_length=2, max_length=2)]
SUFFIXES = (".md", ".text", ".txt")
FILE_COLUMN = "text"


def text(
    seed: int,
    *,
    path: str,
    column: str = "text",
    target: str = "label",
    words: Lengths | None = (1, 2),  # type: ignore[assignment]  # read only
    characters: Lengths | None = None,
    min_documents: Count = 2,
    max_features: Count = 200_000,
) -> Labelled:
    """Texts with their classes, to become TF-IDF of n-grams.

    Args:
        seed: not used; the file is what it is.
        path: a CSV, Parquet or JSON-lines file, or a folder with one sub-folder of text files per class.
        column: that holds the text; a missing one is an empty text.
        target: the column that holds the classes.
        words: fewest and most words of an n-gram; None takes none.
        characters: fewest and most characters of an n-gram, within words; None takes none.
        min_documents: an n-gram that fewer training texts have is left out.
        max_features: the most frequent n-grams are kept, of words and of characters each.

    Raises:
        BacklightError: the file cannot be read, or has no such columns, or cannot be learned.
    """
    import pandas as pd

    if words is None and characters is None:
        raise BacklightError("data.words=null and data.characters=null: leave nothing to learn from; set one")
    options = {
        "column": column,
        "words": words,
        "characters": characters,
        "min_documents": min_documents,
        "max_features": max_features,
    }
    if Path(path).is_dir():
        folder = read_folder(path, SUFFIXES, "text files")
        options["column"] = FILE_COLUMN
        rows = pd.DataFrame({FILE_COLUMN: [_content(file) for file in folder.files]})
        labels = numbered(folder.classes, folder.class_names)
        return Labelled(rows, labels, [], folder.class_names, "text", options, parts=folder.parts)
    frame = whole_table(path)
    require_columns(frame, path, column=[column], target=[target])
    labels, class_names = class_labels(frame[target], target)
    return Labelled(frame[[column]], labels, [], class_names, "text", options)


@dataclass(frozen=True)
class Vocabulary:
    """The n-grams of one kind, and how rare each was in training.

    Attributes:
        analyzer: `word`, or `char_wb`: characters within words.
        lengths: fewest and most words or characters of an n-gram.
        terms: the n-grams, one per feature.
        idf: of each, `ln((1 + n) / (1 + texts that have it)) + 1` over n training texts.
    """

    analyzer: str
    lengths: list[int]
    terms: list[str]
    idf: list[float]

    def vectorizer(self) -> "TfidfVectorizer":
        """What turns texts into rows of length 1."""
        vectorizer = _vectorizer(self.analyzer, self.lengths, vocabulary=self.terms)
        vectorizer.idf_ = np.array(self.idf)
        return vectorizer


@dataclass(frozen=True)
class TextEncoder(NotStandardized):
    """Texts → TF-IDF `[n, features]`, sparse: `(1 + ln count) · idf`, each kind of n-gram of length 1.

    (Salton & Buckley 1988; scikit-learn's `TfidfVectorizer` with `sublinear_tf`.)
    """

    column: str
    vocabularies: list[Vocabulary]

    @classmethod
    def fit(
        cls,
        rows: "pd.DataFrame",
        *,
        standardize: Standardize,
        column: str,
        words: list[int] | None,
        characters: list[int] | None,
        min_documents: int,
        max_features: int,
    ) -> "TextEncoder":
        """Learn the n-grams of training texts; there is nothing to standardise.

        Raises:
            BacklightError: no n-gram is left.
        """
        texts, vocabularies = _texts(rows[column]), []
        for analyzer, lengths in (("word", words), ("char_wb", characters)):
            if lengths is None:
                continue
            vectorizer = _vectorizer(analyzer, lengths, min_df=min_documents, max_features=max_features)
            try:
                vectorizer.fit(texts)
            except ValueError as error:
                raise BacklightError(
                    f"data.column={column}: no n-gram is in {min_documents} training texts (data.min_documents); "
                    "are the texts empty?"
                ) from error
            terms = [str(term) for term in vectorizer.get_feature_names_out()]
            vocabularies.append(Vocabulary(analyzer, list(lengths), terms, vectorizer.idf_.tolist()))
        return cls(column, vocabularies)

    @property
    def feature_names(self) -> list[str]:
        return [
            term if vocabulary.analyzer == "word" else f"characters '{term}'"
            for vocabulary in self.vocabularies
            for term in vocabulary.terms
        ]

    def transform(self, rows: "pd.DataFrame") -> SparseRows:
        """Of the text column.

        Raises:
            BacklightError: there is no such column.
        """
        from scipy.sparse import hstack

        if self.column not in rows.columns:
            raise BacklightError(f"column '{self.column}' is absent; the model needs it")
        texts = _texts(rows[self.column])
        parts = [vocabulary.vectorizer().transform(texts) for vocabulary in self.vocabularies]
        return sparse_rows(hstack(parts, format="csr") if len(parts) > 1 else parts[0])

    def is_close(self, other: "TextEncoder") -> bool:
        """Whether both encode alike, but for rounding."""
        pairs = list(zip(self.vocabularies, other.vocabularies, strict=False))
        return (
            self.column == other.column
            and len(self.vocabularies) == len(other.vocabularies)
            and all(a.terms == b.terms and np.allclose(a.idf, b.idf) for a, b in pairs)
        )

    def state_dict(self) -> dict[str, Any]:
        """Plain data for a checkpoint."""
        return asdict(self)

    @classmethod
    def from_state_dict(cls, state: dict[str, Any]) -> "TextEncoder":
        return cls(state["column"], [Vocabulary(**vocabulary) for vocabulary in state["vocabularies"]])


def read_texts(encoder: TextEncoder, path: Path, rows_per_chunk: int) -> Iterator[Chunk]:
    """New texts: a table, a text file, or a folder of text files."""
    import pandas as pd

    if path.is_dir() or path.suffix.lower() in SUFFIXES:
        files = files_in(path, SUFFIXES) if path.is_dir() else [path]
        for start in range(0, len(files), rows_per_chunk):
            some = files[start : start + rows_per_chunk]
            rows = pd.DataFrame({encoder.column: [_content(file) for file in some]})
            yield Chunk(pd.DataFrame({"file": map(str, some)}), rows)
        return
    for frame in read_table(path, rows_per_chunk):
        yield Chunk(pd.DataFrame(index=frame.index), frame)


def _vectorizer(analyzer: str, lengths: list[int], **options: Any) -> "TfidfVectorizer":
    from sklearn.feature_extraction.text import TfidfVectorizer

    # Single letters are words too: in Chinese, and in 'I'.
    pattern = r"(?u)\b\w+\b"
    return TfidfVectorizer(
        analyzer=analyzer,
        ngram_range=tuple(lengths),
        token_pattern=pattern if analyzer == "word" else None,
        sublinear_tf=True,
        dtype=np.float32,
        **options,
    )


def _texts(column: "pd.Series[Any]") -> list[str]:
    return ["" if missing else str(value) for value, missing in zip(column, column.isna(), strict=True)]


def _content(file: Path) -> str:
    with reading_text(file):
        content = file.read_text(encoding="utf-8-sig")
    return content
