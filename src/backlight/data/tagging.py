"""Tagged tokens: files with one token per line, and a blank line between sentences."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from backlight.backprop.sparse import SparseRows
from backlight.data.source import Chunk, Labelled, NotStandardized, Standardize, numbered, sparse_rows
from backlight.data.text_files import reading_text
from backlight.errors import BacklightError
from backlight.ranges import Count

if TYPE_CHECKING:
    import pandas as pd

NEIGHBOURS = (-2, -1, 0, 1, 2)
CONLLU_COLUMNS = (2, 4)  # FORM and UPOS


def tagging(
    seed: int,
    *,
    path: str,
    token_column: Count | None = None,
    tag_column: Count | None = None,
    min_tokens: Count = 2,
) -> Labelled:
    """Tokens with their tags; sentences are held out whole.

    Args:
        seed: not used; the file is what it is.
        path: a file with one token per line, columns separated by tabs or blanks, sentences by blank lines;
            comments (`# key = value`) and `-DOCSTART-` are left out, and in `.conllu` files ranges and empty nodes.
        token_column, tag_column: counted from 1; by default 2 and 4 of `.conllu` files, the first
            and the last of others.
        min_tokens: a feature that fewer training tokens have is left out.

    Raises:
        BacklightError: the file cannot be read, or a line has no tag.
    """
    file = Path(path)
    columns = _columns(file, token_column, tag_column)
    sentences = list(read_sentences(file, columns[0], columns[1]))
    rows = windows([[token for token, _ in sentence] for sentence in sentences])
    tags = [tag for sentence in sentences for _, tag in sentence]
    class_names = sorted(set(tags))
    if len(class_names) < 2:
        raise BacklightError(
            f"data.path={path}: every token has the tag '{class_names[0] if tags else ''}'; two or more are needed"
        )
    return Labelled(
        rows,
        numbered(tags, class_names),
        [],
        class_names,
        "tokens",
        {"min_tokens": min_tokens, "token_column": columns[0]},
        groups=np.repeat(np.arange(len(sentences)), [len(sentence) for sentence in sentences]),
        judged_by="sentence",
    )


@dataclass(frozen=True)
class TokenEncoder(NotStandardized):
    """A token among its neighbours → 0/1 features `[n, features]`, sparse.

    Of the token: its form, the form in lower case, first and last one to four letters, and its shape (`Xxx-dd`);
    of the two tokens on either side: form, last three letters and shape (Ratnaparkhi 1996, table 1, and
    the word shapes of Collins 2002).

    Attributes:
        token_column: of the files, counted from 1.
        features: those that were frequent enough in training, one per column.
    """

    token_column: int
    features: list[str]

    @classmethod
    def fit(
        cls, rows: "pd.DataFrame", *, standardize: Standardize, min_tokens: int, token_column: int
    ) -> "TokenEncoder":
        """Learn the features of training tokens; there is nothing to standardise."""
        counts: dict[str, int] = {}
        for found in _features(rows):
            for feature in found:
                counts[feature] = counts.get(feature, 0) + 1
        return cls(token_column, sorted(name for name, count in counts.items() if count >= min_tokens))

    @property
    def feature_names(self) -> list[str]:
        return self.features

    def transform(self, rows: "pd.DataFrame") -> SparseRows:
        """Of tokens with their neighbours."""
        from scipy.sparse import csr_matrix

        place = {name: number for number, name in enumerate(self.features)}
        ends, columns = [0], []
        for found in _features(rows):
            columns += [place[feature] for feature in found if feature in place]
            ends.append(len(columns))
        ones = np.ones(len(columns), dtype=np.float32)
        return sparse_rows(csr_matrix((ones, columns, ends), shape=(len(rows), len(self.features))))

    def is_close(self, other: "TokenEncoder") -> bool:
        """Whether both encode alike."""
        return self == other

    def state_dict(self) -> dict[str, Any]:
        """Plain data for a checkpoint."""
        return asdict(self)

    @classmethod
    def from_state_dict(cls, state: dict[str, Any]) -> "TokenEncoder":
        return cls(**state)


def read_sentences(path: Path, token_column: int, tag_column: int | None) -> Iterator[list[tuple[str, str]]]:
    """The tokens of each sentence with their tags, which are empty if no column of them is asked for.

    Args:
        path: the file.
        token_column, tag_column: counted from 1; −1 is the last.

    Raises:
        BacklightError: the file cannot be read, or a line has no such column.
    """
    if not path.is_file():
        raise BacklightError(f"{path}: no such file; give one with a token and its tag on each line")
    sentence: list[tuple[str, str]] = []
    with reading_text(path), path.open(encoding="utf-8-sig") as file:
        for number, line in enumerate(file, start=1):
            if line.strip():
                sentence += _tokens(line.rstrip("\r\n"), token_column, tag_column, path, number)
            elif sentence:
                yield sentence
                sentence = []
    if sentence:
        yield sentence


def _tokens(
    line: str, token_column: int, tag_column: int | None, path: Path, number: int
) -> list[tuple[str, str]]:
    """The token of a line and its tag; none of a comment."""
    is_conllu = path.suffix.lower() == ".conllu"
    fields = line.split("\t") if "\t" in line else line.split()
    # Elsewhere a '#' may be a token.
    is_comment = line.startswith("#") if is_conllu else line.startswith("# ") and " = " in line
    if is_comment or fields[0] == "-DOCSTART-" or (is_conllu and not fields[0].isdigit()):
        return []
    if len(fields) < (2 if tag_column == -1 else max(token_column, tag_column or 1)):
        raise BacklightError(
            f"{path}: line {number} has too few columns ({len(fields)}); a token in column {token_column} and, to "
            "learn from, a tag are needed (data.token_column, data.tag_column)"
        )
    tag = "" if tag_column is None else fields[tag_column - 1 if tag_column > 0 else -1].strip()
    if tag_column is not None and (not tag or (is_conllu and tag == "_")):
        raise BacklightError(f"{path}: line {number} has no tag in column {tag_column}")
    return [(fields[token_column - 1], tag)]


def read_tokens(encoder: TokenEncoder, path: Path, rows_per_chunk: int) -> Iterator[Chunk]:
    """New sentences; a tag is not needed. Keys are the number of the sentence, from 1, and the token."""
    waiting: list[list[str]] = []
    first = 1
    for sentence in read_sentences(path, encoder.token_column, None):
        waiting.append([token for token, _ in sentence])
        if sum(map(len, waiting)) >= rows_per_chunk:
            yield _chunk(waiting, first)
            first += len(waiting)
            waiting = []
    if waiting:
        yield _chunk(waiting, first)


def windows(sentences: list[list[str]]) -> "pd.DataFrame":
    """One row per token: itself and its neighbours, None beyond the ends of its sentence."""
    import pandas as pd

    columns: dict[str, list[str | None]] = {f"{offset:+d}": [] for offset in NEIGHBOURS}
    for tokens in sentences:
        for offset in NEIGHBOURS:
            columns[f"{offset:+d}"] += [
                tokens[place + offset] if 0 <= place + offset < len(tokens) else None
                for place in range(len(tokens))
            ]
    return pd.DataFrame(columns, dtype=object)


def shape_of(token: str) -> str:
    """`Istanbul'da` → `Xx'x`: runs of capitals, small letters and digits are one sign each."""
    signs: list[str] = []
    for letter in token:
        sign = "X" if letter.isupper() else "x" if letter.isalpha() else "d" if letter.isdigit() else letter
        if not signs or signs[-1] != sign:
            signs.append(sign)
    return "".join(signs)


def _columns(file: Path, token_column: int | None, tag_column: int | None) -> tuple[int, int]:
    defaults = CONLLU_COLUMNS if file.suffix.lower() == ".conllu" else (1, -1)
    return token_column or defaults[0], tag_column or defaults[1]


def _chunk(sentences: list[list[str]], first: int) -> Chunk:
    import pandas as pd

    rows = windows(sentences)
    numbers = np.repeat(np.arange(first, first + len(sentences)), [len(tokens) for tokens in sentences])
    return Chunk(pd.DataFrame({"sentence": numbers, "token": rows["+0"]}), rows)


def _features(rows: "pd.DataFrame") -> Iterator[list[str]]:
    for before2, before, token, after, after2 in rows.itertuples(index=False):
        small = token.lower()
        found = [f"form {token}", f"lower {small}", f"shape {shape_of(token)}"]
        found += [f"starts {small[:length]}" for length in range(1, min(4, len(small)) + 1)]
        found += [f"ends {small[-length:]}" for length in range(1, min(4, len(small)) + 1)]
        for place, neighbour in (("-2", before2), ("-1", before), ("+1", after), ("+2", after2)):
            if neighbour is None:
                found.append(f"{place} none")
            else:
                near = neighbour.lower()
                found += [
                    f"{place} {near}",
                    f"{place} ends {near[-3:]}",
                    f"{place} shape {shape_of(neighbour)}",
                ]
        yield found
