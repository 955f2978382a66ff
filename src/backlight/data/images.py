"""Images: a folder per class, arrays in a `.npz` file, or the IDX files of MNIST."""

import gzip
import struct
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from backlight.data.arrays import classes_of, pick, read_npz
from backlight.data.cache import cached, fingerprint
from backlight.data.folders import files_at, read_folder
from backlight.data.source import Chunk, Floats, Labelled, Standardize, numbered
from backlight.errors import BacklightError
from backlight.ranges import Count

if TYPE_CHECKING:
    pass

Bytes = NDArray[np.uint8]
Size = Count | Annotated[list[Count], Field(min_length=2, max_length=2)]

IMAGE_NAMES = ("x", "images", "image", "data", "x_train")
LABEL_NAMES = ("y", "labels", "label", "targets", "target", "y_train")
COLOURS = ("red", "green", "blue")
LOOKED_AT = 100  # images that tell whether a set is grey
PATHS_AT_ONCE = 256


def images(
    seed: int, *, path: str, size: Size = 32, colour: Literal["auto", "grey", "rgb"] = "auto"
) -> Labelled:
    """Images with their classes.

    Args:
        seed: not used; the files are what they are.
        path: a folder with one sub-folder per class, or with `train`, `val` and `test` of such folders; a `.npz`
            file with the arrays x `[n, height, width]` or `[n, height, width, 3]` and y, or x_train, y_train,
            x_test and y_test; an IDX file of images (`…images-idx3-ubyte.gz`) beside that of its labels, or
            a folder of such files.
        size: height and width that every image is brought to; one number for both.
        colour: `grey` or `rgb`; `auto` is grey where the first hundred images are.

    Raises:
        BacklightError: there are no such files, or they cannot be read.
    """
    place = Path(path)
    if place.suffix.lower() == ".npz":
        rows, labels, parts = _of_npz(place)
    elif "ubyte" in place.name or (place.is_dir() and any(place.glob("*images*ubyte*"))):
        rows, labels, parts = _of_idx(place)
    else:
        folder = read_folder(path, _suffixes(), "images")
        return Labelled(
            np.array([str(file) for file in folder.files]),
            numbered(folder.classes, folder.class_names),
            [],
            folder.class_names,
            kind="images",
            options={"size": size, "colour": colour},
            parts=folder.parts,
        )
    codes, class_names = classes_of(labels, place)
    return Labelled(
        rows,
        codes,
        [],
        class_names,
        kind="images",
        options={"size": size, "colour": colour},
        parts=parts,
    )


@dataclass(frozen=True)
class ImageEncoder:
    """Images → `[n, height·width·channels]` float32: resized, brought to [0, 1], then `(value − mean) / scale`.

    Attributes:
        height, width: in pixels.
        channels: 1 grey, 3 red, green and blue.
        white: the value of an array's pixel that is 1; files have 255.
        mean: per pixel and channel, the mean image; 0 when standardising is off.
        channel_scale: the deviation from the mean image, over all pixels of a channel; 1 when standardising is off.
    """

    height: int
    width: int
    channels: int
    white: float
    mean: list[float]
    channel_scale: list[float]

    @classmethod
    def fit(
        cls, rows: NDArray[Any], *, standardize: Standardize, size: int | list[int], colour: str
    ) -> "ImageEncoder":
        """Learn whether images are grey, how bright white is, and the mean and deviation of each channel."""
        height, width = (size, size) if isinstance(size, int) else size
        is_grey = _are_grey(rows) if colour == "auto" else colour == "grey"
        white = 255.0
        if rows.dtype.kind != "U" and rows.dtype != np.uint8:
            white = float(max(1.0, np.abs(rows).max()))
        channels = 1 if is_grey else 3
        size_of_all = height * width * channels
        plain = cls(height, width, channels, white, [0.0] * size_of_all, [1.0] * channels)
        if not standardize:
            return plain
        values = plain.transform(rows)
        mean = values.mean(axis=0, dtype=np.float64)
        deviation = np.sqrt(values.var(axis=0, dtype=np.float64).reshape(-1, channels).mean(axis=0))
        scale = np.where(deviation > 0, deviation, 1.0)
        return cls(height, width, channels, white, mean.tolist(), scale.tolist())

    @property
    def feature_names(self) -> list[str]:
        places = [f"pixel {row},{column}" for row in range(self.height) for column in range(self.width)]
        if self.channels == 1:
            return places
        return [f"{place} {colour}" for place in places for colour in COLOURS]

    def transform(self, rows: NDArray[Any]) -> Floats:
        """Of paths or of arrays.

        Raises:
            BacklightError: a file cannot be read as an image, or arrays are not images.
        """
        pixels = self._decoded(rows) if rows.dtype.kind == "U" else self._resized(rows)
        values = pixels.reshape(len(rows), -1).astype(np.float32)
        values /= np.float32(255)
        values -= np.array(self.mean, dtype=np.float32)
        values /= np.array(self.scale, dtype=np.float32)
        return values

    @property
    def scale(self) -> list[float]:
        return self.channel_scale * (self.height * self.width)

    def is_close(self, other: "ImageEncoder") -> bool:
        """Whether both encode alike, but for rounding."""
        mine, its = asdict(self), asdict(other)
        return all(np.allclose(value, its[name], rtol=1e-6, atol=1e-9) for name, value in mine.items())

    def state_dict(self) -> dict[str, Any]:
        """Plain data for a checkpoint."""
        return asdict(self)

    @classmethod
    def from_state_dict(cls, state: dict[str, Any]) -> "ImageEncoder":
        return cls(**state)

    def _decoded(self, paths: NDArray[np.str_]) -> Bytes:
        """`[n, height, width, channels]` of files, decoded once and then read from the cache."""
        shape = (len(paths), self.height, self.width, self.channels)
        return cached(
            f"images-{fingerprint(paths, shape)}", shape, np.dtype(np.uint8), partial(self._decode, paths)
        )

    def _decode(self, paths: NDArray[np.str_], into: Bytes) -> None:
        from PIL import Image

        broken: list[str] = []

        def one(number: int) -> None:
            try:
                into[number] = self._file(str(paths[number]))
            except (OSError, ValueError, SyntaxError, struct.error, Image.DecompressionBombError) as error:
                broken.append(f"{paths[number]}: {' '.join(str(error).split())}")

        with ThreadPoolExecutor() as threads:
            for start in range(0, len(paths), PATHS_AT_ONCE):
                list(threads.map(one, range(start, min(start + PATHS_AT_ONCE, len(paths)))))
        if broken:
            raise BacklightError(
                f"{len(broken)} of {len(paths)} files cannot be read as images, the first being "
                f"{min(broken)}; repair or remove them"
            )

    def _file(self, path: str) -> Bytes:
        from PIL import Image, ImageOps

        with Image.open(path) as image:
            if image.mode.startswith(("I", "F")):  # 16 bits and more: Pillow would clip instead of scaling
                values = np.asarray(image, dtype=np.float64)
                white = 255 if values.max() <= 255 else 65535
                upright = Image.fromarray(np.clip(values * (255 / white), 0, 255).astype(np.uint8))
            else:
                upright = ImageOps.exif_transpose(image)
            if "A" in upright.getbands() or "transparency" in upright.info:
                paper = Image.new("RGBA", upright.size, "white")
                upright = Image.alpha_composite(paper, upright.convert("RGBA"))
            return self._fitted(upright.convert("L" if self.channels == 1 else "RGB"))

    def _fitted(self, image: Any) -> Bytes:
        from PIL import Image

        if image.size != (self.width, self.height):
            image = image.resize((self.width, self.height), Image.Resampling.BILINEAR)
        return np.asarray(image, dtype=np.uint8).reshape(self.height, self.width, self.channels)

    def _resized(self, arrays: NDArray[Any]) -> NDArray[Any]:
        """`[n, height, width, channels]`, 0 to 255, of arrays `[n, h, w]` or `[n, h, w, c]`."""
        from PIL import Image

        if arrays.ndim not in (3, 4) or (arrays.ndim == 4 and arrays.shape[-1] not in (1, 3)):
            raise BacklightError(
                f"images of shape {list(arrays.shape)}; allowed: [n, height, width] and [n, height, width, 1 or 3]"
            )
        if arrays.dtype.kind == "f" and not np.isfinite(arrays).all():
            raise BacklightError("images: a pixel is not a finite number")
        whole = arrays if arrays.ndim == 4 else arrays[..., None]
        values = whole if self.white == 255.0 else whole * (255.0 / self.white)
        if values.shape[1:] == (self.height, self.width, self.channels):
            return values
        modes = {1: "L", 3: "RGB"}
        bytes_ = np.clip(np.round(values), 0, 255).astype(np.uint8)
        squeezed = bytes_[..., 0] if bytes_.shape[-1] == 1 else bytes_
        return np.stack(
            [self._fitted(Image.fromarray(one).convert(modes[self.channels])) for one in squeezed]
        )


def read_images(encoder: ImageEncoder, path: Path, rows_per_chunk: int) -> Iterator[Chunk]:
    """New images: one file, a folder of any depth, a `.npz` file or an IDX file.

    Raises:
        BacklightError: there are none.
    """
    import pandas as pd

    if path.suffix.lower() == ".npz":
        arrays = pick(read_npz(path), IMAGE_NAMES, path, "images")
    elif "ubyte" in path.name:
        arrays = read_idx(path)
    else:
        arrays = np.array([str(file) for file in files_at(path, _suffixes(), "image")])
    for start in range(0, len(arrays), rows_per_chunk):
        rows = arrays[start : start + rows_per_chunk]
        keys = pd.DataFrame(
            {"file": rows} if rows.dtype.kind == "U" else {"image": range(start, start + len(rows))}
        )
        yield Chunk(keys, rows)


def _suffixes() -> list[str]:
    return [".bmp", ".gif", ".jpeg", ".jpg", ".pbm", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"]


def _are_grey(rows: NDArray[Any]) -> bool:
    if rows.dtype.kind != "U":
        return rows.ndim == 3 or rows.shape[-1] == 1
    from PIL import Image

    for path in rows[:: max(1, len(rows) // LOOKED_AT)]:
        try:
            with Image.open(path) as image:
                if image.mode not in ("1", "L", "LA", "I", "F") and not image.mode.startswith("I;"):
                    return False
        except (OSError, Image.DecompressionBombError):  # decoding all will name it
            continue
    return True


def _of_npz(path: Path) -> tuple[NDArray[Any], NDArray[Any], NDArray[np.int64] | None]:
    arrays = read_npz(path)
    x, y = pick(arrays, IMAGE_NAMES, path, "images"), pick(arrays, LABEL_NAMES, path, "labels")
    pairs = [(x, y)]
    if {"x_train", "x_test", "y_test"} <= {name.lower() for name in arrays}:
        pairs.append((pick(arrays, ("x_test",), path, "x_test"), pick(arrays, ("y_test",), path, "y_test")))
    return _together(path, pairs, [0, 2])


def _of_idx(path: Path) -> tuple[NDArray[Any], NDArray[Any], NDArray[np.int64] | None]:
    files = sorted(path.glob("*images*ubyte*")) if path.is_dir() else [path]
    pairs, parts = [], []
    for file in files:
        beside = file.with_name(file.name.replace("images", "labels").replace("idx3", "idx1"))
        pairs.append((read_idx(file), read_idx(beside)))
        parts.append(2 if file.name.startswith(("t10k", "test")) and len(files) > 1 else 0)
    return _together(path, pairs, parts)


def _together(
    path: Path, pairs: Sequence[tuple[NDArray[Any], NDArray[Any]]], parts: Sequence[int]
) -> tuple[NDArray[Any], NDArray[Any], NDArray[np.int64] | None]:
    for x, y in pairs:
        if len(x) != len(y):
            raise BacklightError(f"{path}: has {len(x)} images and {len(y)} labels; allowed: as many")
    rows, labels = (np.concatenate(arrays) for arrays in zip(*pairs, strict=True))
    of_rows = np.repeat(np.array(parts[: len(pairs)], dtype=np.int64), [len(y) for _, y in pairs])
    return rows, labels.reshape(len(labels), -1)[:, 0], of_rows if len(pairs) > 1 else None


def read_idx(path: Path) -> Bytes:
    """An array of the MNIST files (LeCun et al.): magic number, shape, bytes; gzipped or not.

    Raises:
        BacklightError: the file is absent or not such an array.
    """
    if not path.is_file():
        raise BacklightError(f"{path}: no such file")
    opened: Callable[..., Any] = gzip.open if path.suffix == ".gz" else open
    try:
        with opened(path, "rb") as file:
            content = file.read()
        zero, kind, axes = struct.unpack(">HBB", content[:4])
        shape = struct.unpack(f">{axes}I", content[4 : 4 + 4 * axes])
        if zero != 0 or kind != 8:
            raise ValueError("its magic number is another")
        return np.frombuffer(content, dtype=np.uint8, offset=4 + 4 * axes).reshape(shape)
    except (OSError, EOFError, ValueError, struct.error) as error:
        raise BacklightError(f"{path}: not an IDX file of bytes: {error}") from error
