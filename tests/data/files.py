"""Small files of every kind, from which two classes can be told."""

import gzip
import hashlib
import json
import wave
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

WORDS = {"good": ["lovely", "great", "fine"], "bad": ["awful", "stale", "poor"]}


def images(folder: Path, per_class: int = 60, size: int = 8, mode: str = "L", seed: int = 0) -> Path:
    """Vertical and horizontal bars in noise."""
    random = np.random.default_rng(seed)
    for name in ("across", "down"):
        (folder / name).mkdir(parents=True, exist_ok=True)
        for number in range(per_class):
            pixels = random.integers(0, 80, (size, size, 3)).astype(np.uint8)
            place = random.integers(2, size - 2)
            pixels[(place, slice(None)) if name == "across" else (slice(None), place)] = 255
            Image.fromarray(pixels).convert(mode).save(folder / name / f"{number}.png")
    return folder


def texts(path: Path, rows: int = 120, seed: int = 0) -> Path:
    """Reviews with words that give their class away."""
    random = np.random.default_rng(seed)
    labels = random.choice(["good", "bad"], rows)
    filler = ["the", "tea", "was", "a", "bit", "this", "time"]
    lines = [" ".join([*random.choice(filler, 5), random.choice(WORDS[label])]) for label in labels]
    pd.DataFrame({"text": lines, "label": labels, "id": range(rows)}).to_csv(path, index=False)
    return path


def sentences(path: Path, number: int = 60, seed: int = 0, tags: bool = True) -> Path:
    """Tokens whose ending tells their tag."""
    random = np.random.default_rng(seed)
    lines = []
    for sentence in range(number):
        lines.append(f"# sent_id = {sentence}")
        for place in range(1, random.integers(3, 8)):
            tag = random.choice(["NOUN", "VERB"])
            word = "".join(random.choice(list("bdgklmnprst"), 3)) + ("ung" if tag == "NOUN" else "en")
            lines.append(f"{place}\t{word}\t_\t{tag if tags else '_'}\t_\t_\t_\t_\t_\t_")
        lines.append("")
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


def tone(path: Path, pitch: float, random: np.random.Generator, seconds: float = 0.3) -> None:
    """A tone in noise, as a WAV file of 8,000 samples a second."""
    time = np.arange(int(8000 * seconds)) / 8000
    samples = 0.5 * np.sin(2 * np.pi * pitch * time) + 0.02 * random.standard_normal(len(time))
    path.parent.mkdir(parents=True, exist_ok=True)
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(8000)
        file.writeframes((samples * 32767).astype(np.int16).tobytes())


def recordings(folder: Path, per_class: int = 20, seed: int = 0) -> Path:
    """High and low tones of four speakers."""
    random = np.random.default_rng(seed)
    for name, pitch in (("high", 1500.0), ("low", 300.0)):
        for number in range(per_class):
            tone(folder / name / f"s{number % 4}_{number}.wav", pitch * random.uniform(0.9, 1.1), random)
    return folder


def ratings(path: Path, users: int = 30, items: int = 20, seed: int = 0) -> Path:
    """Users of two tastes; every pair but some is rated."""
    random = np.random.default_rng(seed)
    rows = [
        (
            f"u{user}",
            f"film {item}",
            5 if user % 2 == item % 2 else 2,
            1000 + random.integers(0, 10**6),
            20 + user,
        )
        for user in range(users)
        for item in range(items)
        if random.random() < 0.7
    ]
    pd.DataFrame(rows, columns=["user", "item", "rating", "time", "age"]).to_csv(path, index=False)
    return path


def openml(folder: Path) -> Path:
    """The set "tea" as scikit-learn's fetcher leaves it in its cache: nothing needs to be downloaded."""
    arff = "@relation tea\n@attribute warmth numeric\n@attribute leaf {green,black}\n@attribute good {no,yes}\n@data\n"
    arff += "".join(
        f"{row},{'green' if row % 3 else 'black'},{'yes' if row > 20 else 'no'}\n" for row in range(40)
    )
    api = "api/v1/json/data"
    described = {
        "id": "7", "name": "tea", "description": "", "version": "1", "format": "ARFF", "file_id": "9", "status": "active",
        "url": "https://www.openml.org/data/v1/download/9/tea.arff", "default_target_attribute": "good",
        "md5_checksum": hashlib.md5(arff.encode()).hexdigest(),
    }  # fmt: skip
    features = [
        {"index": str(index), "name": name, "data_type": kind, "is_target": str(name == "good").lower(),
         "is_ignore": "false", "is_row_identifier": "false", "number_of_missing_values": "0"}
        for index, (name, kind) in enumerate([("warmth", "numeric"), ("leaf", "nominal"), ("good", "nominal")])
    ]  # fmt: skip
    contents = {
        f"{api}/list/data_name/tea/limit/2/status/active/": {"data": {"dataset": [{"did": 7, "version": 1}]}},
        f"{api}/7": {"data_set_description": described},
        f"{api}/features/7": {"data_features": {"feature": features}},
        f"{api}/qualities/7": {"data_qualities": {"quality": [{"name": "NumberOfInstances", "value": "40"}]}},
        "data/v1/download/9/tea.arff": arff,
    }
    for place, content in contents.items():
        file = folder / "openml" / "openml.org" / (place + ".gz")
        file.parent.mkdir(parents=True, exist_ok=True)
        text = content if isinstance(content, str) else json.dumps(content)
        file.write_bytes(gzip.compress(text.encode()))
    return folder
