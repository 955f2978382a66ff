"""Who liked what: ratings or interactions of users with items."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from backlight.backprop.sparse import SparseRows
from backlight.data.columns import as_numbers, as_text
from backlight.data.encoder import FeatureEncoder
from backlight.data.source import Chunk, Ints, Labelled, NotStandardized, Standardize, sparse_rows
from backlight.data.table import read_table, require_columns, times_of, whole_table
from backlight.errors import BacklightError
from backlight.ranges import Count

if TYPE_CHECKING:
    import pandas as pd

LEAVE_ONE_OUT = (
    3  # interactions that a user must have to be judged: one each to train, to choose and to judge
)


def ratings(
    seed: int,
    *,
    path: str,
    user: str = "user",
    item: str = "item",
    rating: str | None = "rating",
    threshold: float = 4.0,
    time: str | None = None,
    user_columns: list[str] | None = None,
    item_columns: list[str] | None = None,
    history: bool = False,
    negatives: Count = 4,
    candidates: Count = 99,
) -> Labelled:
    """Pairs of a user and an item, and whether the user likes it.

    With `rating` each row is labelled by whether it reaches the threshold. Without, each row is a positive, and
    items that the user has not touched are drawn as negatives; each user's last item is held out among
    `candidates` such items to judge by, the last but one to choose the epoch by (He et al., WWW 2017, §4.1).

    Args:
        seed: of the negatives.
        path: a CSV, Parquet or JSON-lines file.
        user, item: the columns that name them.
        rating: the column of ratings or clicks; None takes every row for a positive.
        threshold: the least rating of a positive.
        time: the column of numbers or dates that tells which rows are last: with ratings the last of all are held out,
            without them each user's last, which is else the last in the file.
        user_columns, item_columns: what else is known of users and of items.
        history: whether a user is also known by the other items that it likes, and does not like, in training.
        negatives: drawn for each positive of the training rows.
        candidates: negatives that the item held out is ranked among.

    Raises:
        BacklightError: the file cannot be read or cannot be learned.
    """
    frame = whole_table(path)
    columns = {
        "user": [user],
        "item": [item],
        "rating": [rating] if rating else [],
        "time": [time] if time else [],
    }
    require_columns(frame, path, **columns, user_columns=user_columns, item_columns=item_columns)
    for option, column in (("user", user), ("item", item)):
        if frame[column].isna().any():
            row = int(frame[column].isna().to_numpy().argmax()) + 1
            raise BacklightError(
                f"data.{option}={column}: row {row} names none; fill it in or remove the row"
            )
    options = {
        "user": user,
        "item": item,
        "user_columns": user_columns or [],
        "item_columns": item_columns or [],
        "history": history,
    }
    when = None if time is None else times_of(frame[time], time)
    if rating is None:
        return _implicit(frame, when, options, seed, negatives, candidates)
    numbers, _ = as_numbers(frame[rating])
    if np.isnan(numbers).any():
        row = int(np.isnan(numbers).argmax())
        raise BacklightError(
            f"data.rating={rating}: row {row + 1} holds '{frame[rating].iloc[row]}'; allowed: numbers (data.rating=null "
            "takes every row for a positive)"
        )
    positive = numbers >= threshold
    if positive.all() or not positive.any():
        raise BacklightError(
            f"data.threshold={threshold}: ratings go from {numbers.min():g} to {numbers.max():g}, so that all rows are "
            "of one class"
        )
    names = [f"below {threshold:g}", f"{threshold:g} or more"]
    rows = frame.drop(columns=[rating]).assign(**{LIKED: positive, SEEN: np.ones(len(positive), dtype=bool)})
    return Labelled(rows, positive.astype(np.int64), [], names, "pairs", options, ordered_by=when)


@dataclass(frozen=True)
class Side:
    """Users or items.

    Attributes:
        column: that names them.
        names: those of the training rows, sorted.
        feature_names: of what else is known of them.
        features: `[names, features]` float32
    """

    column: str
    names: list[str]
    feature_names: list[str]
    features: Tensor

    @classmethod
    def fit(cls, rows: "pd.DataFrame", column: str, columns: list[str], standardize: Standardize) -> "Side":
        known = rows[[column, *columns]].assign(**{column: as_text(rows[column])})
        known = known.drop_duplicates(column, keep="last").sort_values(column)
        features, names = np.zeros((len(known), 0), dtype=np.float32), []
        if columns:
            encoder = FeatureEncoder.fit(known[columns], columns, standardize=standardize)
            encoded, names = encoder.transform(known[columns]), encoder.feature_names
            assert isinstance(encoded, np.ndarray)
            features = encoded
        return cls(column, known[column].tolist(), names, torch.from_numpy(np.ascontiguousarray(features)))

    def codes(self, rows: "pd.DataFrame") -> Ints:
        """`[n]` index into `names`; as many as there are names where it is unknown."""
        import pandas as pd

        if self.column not in rows.columns:
            raise BacklightError(f"column '{self.column}' is absent; the model needs it")
        found = pd.Index(self.names).get_indexer(pd.Index(as_text(rows[self.column])))
        return np.where(found < 0, len(self.names), found).astype(np.int64)

    def matrix(self) -> Any:
        """Sparse `[names + 1, names + features]`: a 1 for the name, then the features; the unknown has none."""
        from scipy.sparse import csr_matrix, eye, hstack, vstack

        known = hstack([eye(len(self.names), dtype=np.float32), csr_matrix(self.features.numpy())])
        return vstack([known, csr_matrix((1, known.shape[1]), dtype=np.float32)], format="csr")


@dataclass(frozen=True)
class PairEncoder(NotStandardized):
    """A user and an item → `[n, features]`, sparse: a 1 for the user, a 1 for the item, and what is known of them.

    The user's history is what else it likes and what it does not like in training, each with the value `1/√n` of n such
    items, and never the item of the pair itself (SVD++, Koren, KDD 2008, eq. 15, with likes and dislikes apart).

    The first layer's columns for them are their embeddings, which it adds: with `W = [V_u E_u, V_i E_i]` this is
    the first layer of neural collaborative filtering (He et al., WWW 2017, eq. 10) with its two factors
    multiplied out.

    Attributes:
        user, item: the two sides.
        has_history: whether histories are features.
        seen: `[2, pairs]` int64, the users and items of training rows by their number, but for drawn ones.
        liked: `[pairs]` bool
    """

    user: Side
    item: Side
    has_history: bool
    seen: Tensor
    liked: Tensor

    @classmethod
    def fit(
        cls,
        rows: "pd.DataFrame",
        *,
        standardize: Standardize,
        user: str,
        item: str,
        user_columns: list[str],
        item_columns: list[str],
        history: bool,
    ) -> "PairEncoder":
        """Learn who and what there is.

        Raises:
            BacklightError: a further column cannot be a feature.
        """
        users = Side.fit(rows, user, user_columns, standardize)
        items = Side.fit(rows, item, item_columns, standardize)
        seen = rows[rows[SEEN]]
        pairs = torch.from_numpy(np.stack([users.codes(seen), items.codes(seen)]))
        return cls(users, items, history, pairs, torch.tensor(seen[LIKED].to_numpy(bool)))

    @property
    def feature_names(self) -> list[str]:
        names = [
            name
            for side in (self.user, self.item)
            for name in (*(f"{side.column}={one}" for one in side.names), *side.feature_names)
        ]
        if self.has_history:
            names += [f"{what} {one}" for what in ("likes", "dislikes") for one in self.item.names]
        return names

    def transform(self, rows: "pd.DataFrame") -> SparseRows:
        """Of the columns that name user and item; who is unknown has no entry.

        Raises:
            BacklightError: a column is absent.
        """
        from scipy.sparse import hstack

        users, items = self.user.codes(rows), self.item.codes(rows)
        parts = [self.user.matrix()[users], self.item.matrix()[items]]
        if self.has_history:
            parts += [self._histories(liked, users, items) for liked in (True, False)]
        return sparse_rows(hstack(parts, format="csr"))

    def _histories(self, liked: bool, users: Ints, items: Ints) -> Any:
        """Sparse `[n, items]` of pairs: what else the user likes, or does not like."""
        from scipy.sparse import csr_matrix

        pairs = self.seen[:, self.liked == liked].numpy()
        shape = (len(self.user.names) + 1, len(self.item.names))
        rows = csr_matrix((np.ones(pairs.shape[1], dtype=np.float32), pairs), shape=shape)[users]
        lengths = np.diff(rows.indptr)
        rows.data *= rows.indices != np.repeat(items, lengths)
        rows.eliminate_zeros()
        lengths = np.diff(rows.indptr)
        rows.data = np.repeat(1 / np.sqrt(np.maximum(lengths, 1)), lengths).astype(np.float32)
        return rows

    def is_close(self, other: "PairEncoder") -> bool:
        """Whether both encode alike, but for rounding."""
        pairs = ((self.user, other.user), (self.item, other.item))
        is_same = torch.equal(self.seen, other.seen) and torch.equal(self.liked, other.liked)
        return (self.has_history, is_same) == (other.has_history, True) and all(
            mine.column == its.column
            and mine.names == its.names
            and mine.feature_names == its.feature_names
            and torch.allclose(mine.features, its.features, rtol=1e-5)
            for mine, its in pairs
        )

    def state_dict(self) -> dict[str, Any]:
        """Plain data and tensors for a checkpoint."""
        return {**vars(self), "user": vars(self.user), "item": vars(self.item)}

    @classmethod
    def from_state_dict(cls, state: dict[str, Any]) -> "PairEncoder":
        return cls(**{**state, "user": Side(**state["user"]), "item": Side(**state["item"])})


def read_pairs(encoder: PairEncoder, path: Path, rows_per_chunk: int) -> Iterator[Chunk]:
    """New pairs; their keys are user and item."""
    columns = [encoder.user.column, encoder.item.column]
    for frame in read_table(path, rows_per_chunk):
        for column in columns:
            if column not in frame.columns:
                raise BacklightError(
                    f"{path}: has no column '{column}'; give one, or ask for the best items of its users with top=10"
                )
        yield Chunk(frame[columns], frame)


def read_users(encoder: PairEncoder, path: Path) -> Iterator[Chunk]:
    """The users of a file, one after the other, each with every item that it has not touched in training.

    Raises:
        BacklightError: the file names no users, or items too.
    """
    import pandas as pd

    user, item = encoder.user, encoder.item
    for frame in read_table(path):
        if item.column in frame.columns or user.column not in frame.columns:
            raise BacklightError(
                f"{path}: with top= it must have a column '{user.column}' and none '{item.column}'"
            )
        for name, code in zip(as_text(frame[user.column]), user.codes(frame), strict=True):
            left = np.setdiff1d(np.arange(len(item.names)), encoder.seen[1][encoder.seen[0] == code].numpy())
            pairs = pd.DataFrame({user.column: name, item.column: np.array(item.names, dtype=object)[left]})
            yield Chunk(pairs, pairs)


SEEN, LIKED = "\0seen", "\0liked"  # no columns of a file are called so


def _implicit(
    frame: "pd.DataFrame",
    when: NDArray[Any] | None,
    options: dict[str, Any],
    seed: int,
    negatives: int,
    candidates: int,
) -> Labelled:
    """Every row a positive, with drawn negatives; the last item of each user held out."""
    import pandas as pd

    user, item = options["user"], options["item"]
    if when is not None:
        frame = frame.iloc[np.argsort(when, kind="stable")]
    frame = frame.assign(**{user: as_text(frame[user]), item: as_text(frame[item])})
    frame = frame.drop_duplicates([user, item], keep="last").reset_index(drop=True)
    user_codes, users = pd.factorize(frame[user])
    item_codes, items = pd.factorize(frame[item])
    if len(items) < 3:
        raise BacklightError(f"data.item={item}: {len(items)} items are too few to rank")
    positions = frame.groupby(user, sort=False).cumcount(ascending=False).to_numpy()
    counts = np.bincount(user_codes)[user_codes]
    parts = np.where(counts < LEAVE_ONE_OUT, 0, np.where(positions == 0, 2, np.where(positions == 1, 1, 0)))
    random = np.random.default_rng([seed, 2])
    of_user = frame.groupby(user_codes, sort=True).indices
    drawn: list[tuple[Ints, int]] = []  # items, part
    owners: list[int] = []
    for code in range(len(users)):
        own = of_user[code]
        untouched = np.setdiff1d(np.arange(len(items)), item_codes[own])
        if len(untouched) == 0:
            continue
        for part in (0, 1, 2):
            positives = int((parts[own] == part).sum())
            if positives == 0:
                continue
            if part == 0:
                chosen = random.choice(untouched, negatives * positives)
            else:
                chosen = np.sort(random.choice(untouched, min(candidates, len(untouched)), replace=False))
            drawn.append((chosen, part))
            owners.append(code)
    lengths = [len(chosen) for chosen, _ in drawn]
    negative_items = np.concatenate([chosen for chosen, _ in drawn]) if drawn else np.empty(0, np.int64)
    negative_users = np.repeat(np.array(owners, dtype=np.int64), lengths)
    pairs = pd.DataFrame(
        {
            user: np.concatenate([frame[user].to_numpy(), np.asarray(users)[negative_users]]),
            item: np.concatenate([frame[item].to_numpy(), np.asarray(items)[negative_items]]),
            SEEN: np.repeat([True, False], [len(frame), len(negative_items)]),
            LIKED: np.repeat([True, False], [len(frame), len(negative_items)]),
        }
    )
    for column, name in ((user, "user_columns"), (item, "item_columns")):
        if options[name]:
            known = frame.drop_duplicates(column, keep="last").set_index(column)[options[name]]
            pairs = pairs.join(known, on=column)
    labels = pairs[LIKED].to_numpy().astype(np.int64)
    return Labelled(
        pairs,
        labels,
        [],
        ["no", "yes"],
        "pairs",
        options,
        groups=np.concatenate([user_codes, negative_users]).astype(np.int64),
        parts=np.concatenate([parts, np.repeat(np.array([p for _, p in drawn], dtype=np.int64), lengths)]),
        judged_by="ranking",
    )
