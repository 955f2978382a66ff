"""Recordings: a folder of sound files per class, or arrays of frames."""

import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from backlight.data.arrays import LABELS, Arrays, classes_of, pick, read_npz
from backlight.data.cache import cached, fingerprint
from backlight.data.encoder import mean_and_scale
from backlight.data.folders import files_at, read_folder
from backlight.data.source import Chunk, Floats, Ints, Labelled, Standardize, numbered
from backlight.data.spectra import cepstrum, log_mel
from backlight.errors import BacklightError
from backlight.ranges import Count

SUFFIXES = (".flac", ".ogg", ".wav")
WINDOW_SECONDS, HOP_SECONDS = 0.025, 0.010
MEL_BANDS = 40
SILENT = 1e-6  # of full scale


def audio(
    seed: int,
    *,
    path: str,
    features: Literal["mfcc", "logmel"] = "mfcc",
    rate: Count = 16_000,
    coefficients: Count = 20,
    segments: Count = 8,
    group: str | None = None,
) -> Labelled:
    """Recordings with their classes.

    Args:
        seed: not used; the files are what they are.
        path: a folder with one sub-folder of sound files per class, or with `train`, `val` and `test` of such
            folders; or a `.npz` file of frames: x `[frames, coefficients]` of all recordings one after the other
            with lengths `[n]`, or x `[n, frames, coefficients]`; and y `[n]`.
        features: of sound files: mel-frequency cepstral coefficients, or logarithms of mel bands.
        rate: samples per second that sound files are brought to.
        coefficients: of each frame of a sound file.
        segments: into which the time of a recording is divided; each gives the mean of its frames.
        group: of sound files a regular expression whose first parentheses catch the speaker in the file's path; of a `.npz`
            file the name of an array `[n]`. Recordings of one group stay on one side of the split.

    Raises:
        BacklightError: there are no such files, or they cannot be read.
    """
    options: dict[str, Any] = {
        "features": features,
        "rate": rate,
        "coefficients": coefficients,
        "segments": segments,
    }
    place = Path(path)
    if place.suffix.lower() == ".npz":
        arrays = read_npz(place)
        rows = _recordings(arrays, place)
        labels = pick(arrays, LABELS, place, "labels")
        if len(labels) != len(rows):
            raise BacklightError(
                f"{path}: has {len(rows)} recordings and {len(labels)} labels; allowed: as many"
            )
        codes, class_names = classes_of(labels, place)
        groups = None
        if group is not None:
            groups = _codes(pick(arrays, (group.lower(),), place, f"groups (data.group={group})").tolist())
        return Labelled(rows, codes, [], class_names, "audio", options, groups)
    folder = read_folder(path, SUFFIXES, "sound files")
    groups = None if group is None else _codes(_caught(group, folder.files))
    return Labelled(
        np.array([str(file) for file in folder.files]),
        numbered(folder.classes, folder.class_names),
        [],
        folder.class_names,
        "audio",
        options,
        groups,
        parts=folder.parts,
    )


@dataclass(frozen=True)
class AudioEncoder:
    """Recordings → `[n, features]` float32: what their frames are over time, then `(value − mean) / scale`.

    Of each coefficient: mean and deviation over all frames, the same of its deltas (the slope over nine frames,
    Furui 1986), and the mean in each of some equal segments of the time.

    Attributes:
        features, rate, segments: as for the source `audio`.
        coefficients: of each frame.
        mean, scale: per feature.
    """

    features: str
    rate: int
    coefficients: int
    segments: int
    mean: list[float]
    scale: list[float]

    @classmethod
    def fit(
        cls,
        rows: NDArray[Any],
        *,
        standardize: Standardize,
        features: str,
        rate: int,
        coefficients: int,
        segments: int,
    ) -> "AudioEncoder":
        """Learn the mean and deviation of each feature."""
        if rows.dtype.kind == "O":
            coefficients = int(rows[0].shape[1])
        plain = cls(features, rate, coefficients, segments, [], [])
        raw = plain._raw(rows)
        mean, scale = np.zeros(raw.shape[1]), np.ones(raw.shape[1])
        if standardize:
            mean, scale = mean_and_scale(raw)
        return cls(features, rate, coefficients, segments, mean.tolist(), scale.tolist())

    @property
    def feature_names(self) -> list[str]:
        over_time = ["mean", "deviation", "delta mean", "delta deviation"]
        over_time += [f"segment {number}" for number in range(1, self.segments + 1)]
        return [
            f"{what} of {self.features} {number}" for what in over_time for number in range(self.coefficients)
        ]

    def transform(self, rows: NDArray[Any]) -> Floats:
        """Of paths, or of frames.

        Raises:
            BacklightError: a file cannot be read, or is silent; or frames have other coefficients.
        """
        standardised: Floats = ((self._raw(rows) - np.array(self.mean)) / np.array(self.scale)).astype(
            np.float32
        )
        return standardised

    def is_close(self, other: "AudioEncoder") -> bool:
        """Whether both encode alike, but for rounding."""
        mine, its = asdict(self), asdict(other)
        is_same = all(mine[name] == its[name] for name in ("features", "rate", "coefficients", "segments"))
        return is_same and all(np.allclose(mine[name], its[name], rtol=1e-6) for name in ("mean", "scale"))

    def state_dict(self) -> dict[str, Any]:
        """Plain data for a checkpoint."""
        return asdict(self)

    @classmethod
    def from_state_dict(cls, state: dict[str, Any]) -> "AudioEncoder":
        return cls(**state)

    def _raw(self, rows: NDArray[Any]) -> NDArray[np.float64]:
        if rows.dtype.kind == "O":
            return np.stack([self._over_time(frames) for frames in rows])
        shape = (len(rows), (4 + self.segments) * self.coefficients)
        settings = (shape, self.features, self.rate, self.coefficients, self.segments)
        name = f"audio-{fingerprint(rows, settings)}"
        values = cached(name, shape, np.dtype(np.float64), lambda into: self._read(rows, into))
        return np.asarray(values)

    def _read(self, paths: NDArray[np.str_], into: NDArray[np.float64]) -> None:
        if not all(find_spec(name) for name in ("soundfile", "soxr")):
            raise BacklightError(
                "data=audio: sound files need packages that are absent; pip install 'backlight[audio]'"
            )
        broken: list[str] = []

        def one(number: int) -> None:
            try:
                into[number] = self._over_time(self._frames(str(paths[number])))
            except (OSError, RuntimeError, ValueError) as error:
                broken.append(f"{paths[number]}: {' '.join(str(error).split())}")

        with ThreadPoolExecutor() as threads:
            list(threads.map(one, range(len(paths))))
        if broken:
            raise BacklightError(
                f"{len(broken)} of {len(paths)} files cannot be used as recordings, the first being "
                f"{min(broken)}; repair or remove them"
            )

    def _frames(self, path: str) -> NDArray[np.float64]:
        """`[frames, coefficients]` of a file."""
        import soundfile
        import soxr

        samples, rate = soundfile.read(path, always_2d=True)
        samples = samples.mean(axis=1)
        if len(samples) == 0 or not np.isfinite(samples).all():
            raise ValueError("no samples, or some that are not finite")
        if np.abs(samples).max() < SILENT:
            raise ValueError("silent from start to end")
        if rate != self.rate:
            samples = soxr.resample(samples, rate, self.rate)
        window, hop = round(WINDOW_SECONDS * self.rate), round(HOP_SECONDS * self.rate)
        samples = np.pad(samples, (0, max(0, window - len(samples))))
        bands = self.coefficients if self.features == "logmel" else max(MEL_BANDS, self.coefficients)
        frames = log_mel(samples, self.rate, window, hop, bands)
        return cepstrum(frames, self.coefficients) if self.features == "mfcc" else frames

    def _over_time(self, frames: NDArray[Any]) -> NDArray[np.float64]:
        """`[features]` of `[frames, coefficients]`."""
        if frames.shape[1] != self.coefficients:
            raise BacklightError(
                f"frames of {frames.shape[1]} coefficients; the model was trained on {self.coefficients}"
            )
        if len(frames) == 0 or not np.isfinite(frames).all():
            raise BacklightError("a recording has no frames, or values that are not finite")
        wide = frames.astype(np.float64)
        slopes = _slopes(wide)
        ends = np.linspace(0, len(wide), self.segments + 1)
        parts = [
            wide[int(start) : max(int(start) + 1, int(np.ceil(end)))].mean(axis=0)
            for start, end in pairwise(ends)
        ]
        return np.concatenate(
            [wide.mean(axis=0), wide.std(axis=0), slopes.mean(axis=0), slopes.std(axis=0), *parts]
        )


def read_audio(encoder: AudioEncoder, path: Path, rows_per_chunk: int) -> Iterator[Chunk]:
    """New recordings: one file, a folder of any depth, or a `.npz` file of frames.

    Raises:
        BacklightError: there are none.
    """
    import pandas as pd

    if path.suffix.lower() == ".npz":
        rows: NDArray[Any] = _recordings(read_npz(path), path)
    else:
        rows = np.array([str(file) for file in files_at(path, SUFFIXES, "recording")])
    for start in range(0, len(rows), rows_per_chunk):
        some = rows[start : start + rows_per_chunk]
        keys = {"recording": range(start, start + len(some))} if rows.dtype.kind == "O" else {"file": some}
        yield Chunk(pd.DataFrame(keys), some)


def _slopes(frames: NDArray[np.float64], reach: int = 4) -> NDArray[np.float64]:
    """The least-squares slope over `2·reach + 1` frames, the first and last repeated beyond the ends."""
    padded = np.pad(frames, ((reach, reach), (0, 0)), mode="edge")
    offsets = np.arange(-reach, reach + 1)
    total: NDArray[np.float64] = sum(
        (offset * padded[reach + offset : reach + offset + len(frames)] for offset in offsets),
        start=np.zeros_like(frames),
    )
    slopes: NDArray[np.float64] = total / (offsets**2).sum()
    return slopes


def _recordings(arrays: Arrays, path: Path) -> NDArray[np.object_]:
    """`[n]` arrays of frames `[frames, coefficients]`."""
    x = pick(arrays, ("x", "frames", "features"), path, "frames")
    if x.ndim == 2:
        lengths = pick(arrays, ("lengths", "length"), path, "lengths").astype(np.int64)
        if lengths.sum() != len(x) or lengths.min() < 1:
            raise BacklightError(
                f"{path}: lengths add up to {lengths.sum()}, x has {len(x)} frames; allowed: the same"
            )
        parts = np.split(x, np.cumsum(lengths)[:-1])
    elif x.ndim == 3:
        parts = list(x)
    else:
        raise BacklightError(f"{path}: x has {x.ndim} axes; allowed: 2 with lengths, or 3")
    rows = np.empty(len(parts), dtype=object)
    for number, part in enumerate(parts):  # at once, NumPy would take parts of one length for one array
        rows[number] = part
    return rows


def _caught(expression: str, files: list[Path]) -> list[str]:
    try:
        pattern = re.compile(expression)
    except re.error as error:
        raise BacklightError(f"data.group={expression}: not a regular expression: {error}") from error
    found = []
    for file in files:
        match = pattern.search(file.as_posix())
        if match is None or not match.groups():
            raise BacklightError(
                f"data.group={expression}: catches nothing in {file}; its first parentheses must catch the group"
            )
        found.append(match.group(1))
    return found


def _codes(names: list[Any]) -> Ints:
    codes: Ints = np.unique(np.array(names), return_inverse=True)[1].astype(np.int64)
    return codes
