"""Small files of every kind, from which two classes can be told."""

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
