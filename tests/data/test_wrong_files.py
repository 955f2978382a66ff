"""Mistakes in files of every kind: one sentence that names the file and what is wrong."""

import errno
import gzip
import struct
import wave
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from tests.conftest import Call, TrainedRun
from tests.data import files

Train = Callable[..., TrainedRun]


def write(path: Path, content: str | bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())


def silence(path: Path) -> None:
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(8000)
        file.writeframes(bytes(4000))


def broken_image(at: Path) -> None:
    write(files.images(at / "d", 6) / "down" / "broken.png", b"\x89PNG\r\n\x1a\nnothing more")


def silent_recording(at: Path) -> None:
    silence(files.recordings(at / "d", 6) / "low" / "silent.wav")


def no_speaker(at: Path) -> None:
    files.tone(files.recordings(at / "d", 6) / "low" / "nobody.wav", 300, np.random.default_rng(0))


def lengths_do_not_fit(at: Path) -> None:
    np.savez(at / "d.npz", X=np.zeros((10, 3)), lengths=[4, 5], y=[0, 1])


def pickled(at: Path) -> None:
    np.savez(at / "d.npz", x=np.array([{}, {}], dtype=object), y=[0, 1])


def one_tag(at: Path) -> None:
    write(at / "d.txt", "a X\nb X\n\nc X\n")


def no_tag(at: Path) -> None:
    write(at / "d.txt", "a X\nb Y\n\nc\n")


def latin(at: Path) -> None:
    write(at / "d.csv", "text,label\ncaf\xe9,a\ntea,b\n".encode("latin-1"))


def empty_texts(at: Path) -> None:
    write(at / "d.csv", "text,label\n" + "".join(f'"",{"ab"[row % 2]}\n' for row in range(40)))


def no_label(at: Path) -> None:
    write(at / "d.csv", "text,label\ngood tea,a\nbad tea,\n")


def rated_in_words(at: Path) -> None:
    write(at / "d.csv", "user,item,rating\n1,2,5\n1,3,good\n")


def all_liked(at: Path) -> None:
    write(at / "d.csv", "user,item,rating\n1,2,5\n1,3,4\n")


def no_user(at: Path) -> None:
    write(at / "d.csv", "user,item,rating\n1,2,5\n,3,2\n")


def when(at: Path) -> None:
    write(at / "d.csv", "user,item,rating,day\n1,2,5,2024-01-02\n1,3,2,soon\n")


@pytest.mark.parametrize(
    ("make", "arguments", "message"),
    [
        (None, "data=images data.path=d", "data.path=d: no such folder"),
        (
            lambda at: write(at / "d/cat/1.txt", ""),
            "data=images data.path=d",
            "the class 'cat' holds no images",
        ),
        (
            lambda at: files.images(at / "d/x"),
            "data=images data.path=d/x/down",
            "two or more sub-folders with images are needed",
        ),
        (broken_image, "data=images data.path=d data.size=8", "files cannot be read as images"),
        (broken_image, "data=images data.path=d data.size=8", "down/broken.png"),
        (lambda at: files.images(at / "d"), "data=images data.path=d data.size=0", "data.size=0: must be"),
        (pickled, "data=images data.path=d.npz", "d.npz: cannot be read as a .npz file of plain arrays"),
        (
            lambda at: np.savez(at / "d.npz", z=[1]),
            "data=images data.path=d.npz",
            "holds no array of images; it has z",
        ),
        (
            lambda at: np.savez(at / "d.npz", x=np.zeros((4, 2, 2)), y=[0, 1, 1]),
            "data=images data.path=d.npz",
            "has 4 images and 3 labels",
        ),
        (
            lambda at: write(at / "a-images-idx3-ubyte", b"\0\0\x08\x03nothing"),
            "data=images data.path=a-images-idx3-ubyte",
            "a-images-idx3-ubyte: not an IDX file of bytes",
        ),
        (
            silent_recording,
            "data=audio data.path=d data.rate=8000",
            "low/silent.wav: silent from start to end",
        ),
        (no_speaker, r"data=audio data.path=d data.group='s(\d)_'", "catches nothing in d/low/nobody.wav"),
        (
            lambda at: files.recordings(at / "d"),
            "data=audio data.path=d data.group='('",
            "not a regular expression",
        ),
        (lengths_do_not_fit, "data=audio data.path=d.npz", "lengths add up to 9, x has 10 frames"),
        (one_tag, "data=tagging data.path=d.txt", "every token has the tag 'X'"),
        (no_tag, "data=tagging data.path=d.txt", "d.txt: line 4 has too few columns (1)"),
        (None, "data=tagging data.path=d.txt", "d.txt: no such file"),
        (latin, "data=text data.path=d.csv", "d.csv: not UTF-8 text at byte"),
        (empty_texts, "data=text data.path=d.csv", "no n-gram is in 2 training texts"),
        (no_label, "data=text data.path=d.csv", "data.target=label: 1 of 2 rows have no label"),
        (latin, "data=text data.path=d.csv data.column=txt", "not UTF-8"),
        (no_label, "data=text data.path=d.csv data.column=txt", "data.column=txt: no such column in d.csv"),
        (no_label, "data=text data.path=d.csv data.words=null", "leave nothing to learn from"),
        (rated_in_words, "data=ratings data.path=d.csv", "data.rating=rating: row 2 holds 'good'"),
        (all_liked, "data=ratings data.path=d.csv", "data.threshold=4.0: ratings go from 4 to 5"),
        (no_user, "data=ratings data.path=d.csv", "data.user=user: row 2 names none"),
        (when, "data=ratings data.path=d.csv data.time=day", "data.time=day: row 2 holds 'soon'"),
    ],
)
def test_refuses(
    make: Callable[[Path], object] | None, arguments: str, message: str, call: Call, tmp_path: Path
) -> None:
    if make is not None:
        make(tmp_path)
    result = call("train", *arguments.split(), "trainer.max_epochs=1")
    assert result.code == 2, result.out
    assert message in result.err
    assert "Traceback" not in result.err


@pytest.mark.parametrize(
    ("new", "message"),
    [
        (lambda at: (at / "new").mkdir(), "new: no image there"),
        (lambda at: write(at / "new", b"text"), "files cannot be read as images"),
    ],
)
def test_predict_refuses(
    new: Callable[[Path], object], message: str, train: Train, call: Call, tmp_path: Path
) -> None:
    files.images(tmp_path / "d")
    train("data=images", "data.path=d", "data.size=8")
    new(tmp_path)
    result = call("predict", "run=run", "input=new", "output=p.csv")
    assert result.code == 2
    assert message in result.err
    assert not Path("p.csv").exists()


def test_images_of_many_kinds_are_one_kind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Grey, 16 bit, palette, transparent and rotated: all of one size, white is 1, paper is white."""
    from backlight.data.images import ImageEncoder

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    white = np.full((6, 4), 255, np.uint8)
    Image.fromarray(white).save(tmp_path / "grey.png")
    Image.fromarray(np.full((6, 4), 65535, np.uint16)).save(tmp_path / "deep.png")
    Image.fromarray(white).convert("P").save(tmp_path / "palette.gif")
    Image.fromarray(np.zeros((6, 4, 4), np.uint8), "RGBA").save(tmp_path / "glass.png")
    Image.fromarray(white).save(tmp_path / "grey.jpg")
    paths = np.array(sorted(str(path) for path in tmp_path.glob("*.*")))
    encoder = ImageEncoder.fit(paths, standardize=False, size=[3, 2], colour="grey")
    assert encoder.transform(paths) == pytest.approx(np.ones((5, 6)), abs=0.01)
    colours = ImageEncoder.fit(paths, standardize=False, size=3, colour="auto")
    assert colours.transform(paths).shape == (5, 27)
    assert len(list((tmp_path / "cache").rglob("*.npy"))) == 2


def test_decoded_images_come_from_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from backlight.data.images import ImageEncoder

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    paths = np.array([str(path) for path in sorted(files.images(tmp_path / "d", 4).rglob("*.png"))])
    encoder = ImageEncoder.fit(paths, standardize=True, size=6, colour="auto")
    first = encoder.transform(paths)
    with monkeypatch.context() as broken:
        broken.setattr(ImageEncoder, "_file", None)  # decoding again would fail
        assert np.array_equal(encoder.transform(paths), first)
    (kept,) = (tmp_path / "cache").rglob("*.npy")
    kept.write_bytes(b"cut short")
    assert np.array_equal(encoder.transform(paths), first)


def test_without_room_for_the_cache_images_are_decoded_in_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from backlight.data.images import ImageEncoder

    def no_room(*_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr("os.posix_fallocate", no_room)
    paths = np.array([str(path) for path in sorted(files.images(tmp_path / "d", 4).rglob("*.png"))])
    assert ImageEncoder.fit(paths, standardize=True, size=6, colour="auto").transform(paths).shape == (8, 36)
    assert not list((tmp_path / "cache").rglob("*.npy"))


def test_idx_and_npz_of_the_same_images(tmp_path: Path) -> None:
    from backlight.data.images import images

    random = np.random.default_rng(0)
    x, y = random.integers(0, 256, (20, 5, 5)).astype(np.uint8), np.arange(20).astype(np.uint8) % 3
    folder = tmp_path / "mnist"
    for part, rows in (("train", slice(0, 14)), ("t10k", slice(14, 20))):
        for name, array in (("images-idx3", x[rows]), ("labels-idx1", y[rows])):
            head = struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape)
            write(folder / f"{part}-{name}-ubyte.gz", gzip.compress(head + array.tobytes()))
    np.savez(tmp_path / "d.npz", x_train=x[:14], y_train=y[:14], x_test=x[14:], y_test=y[14:])
    idx, npz = images(0, path=str(folder)), images(0, path=str(tmp_path / "d.npz"))
    assert idx.class_names == npz.class_names == ["0", "1", "2"]
    assert idx.parts is not None
    assert npz.parts is not None
    order = np.argsort(idx.parts, kind="stable")
    assert np.array_equal(idx.rows[order], npz.rows)
    assert np.array_equal(idx.labels[order], npz.labels)
    assert npz.parts.tolist() == [0] * 14 + [2] * 6


def test_json_lines_and_folders_of_texts(tmp_path: Path) -> None:
    from backlight.data.text import text

    table = pd.read_csv(files.texts(tmp_path / "d.csv"))
    table.to_json(tmp_path / "d.jsonl", orient="records", lines=True)
    for number, row in enumerate(table.itertuples()):
        write(tmp_path / "folder" / row.label / f"{number:04}.txt", row.text)
    of_table = text(0, path=str(tmp_path / "d.csv"))
    of_lines = text(0, path=str(tmp_path / "d.jsonl"))
    of_folder = text(0, path=str(tmp_path / "folder"))
    assert of_lines.rows["text"].tolist() == of_table.rows["text"].tolist()
    assert sorted(of_folder.rows["text"]) == sorted(of_table.rows["text"])
    assert of_table.class_names == of_lines.class_names == of_folder.class_names == ["bad", "good"]
