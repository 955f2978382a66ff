"""`scripts/get_data.py`, from a package that lies in a folder instead of an index."""

import sys
import zipfile
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "scripts"))
import get_data

LINE = "39, ?, 77516, Bachelors, 13, Never-married, Adm-clerical, Not-in-family, White, Male, 1, 0, 40, Peru, <=50K\n"


@pytest.fixture
def wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A wheel of mglearn that pip finds, with one line of data."""
    path = tmp_path / "index" / "mglearn-0.2.0-py2.py3-none-any.whl"
    path.parent.mkdir()
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("mglearn/data/adult.data", LINE)
        file.writestr(
            "mglearn-0.2.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: mglearn\nVersion: 0.2.0\n"
        )
        file.writestr("mglearn-0.2.0.dist-info/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        file.writestr("mglearn-0.2.0.dist-info/RECORD", "")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(path.parent))
    monkeypatch.setattr(sys, "argv", ["get_data.py", "adult", "--to", str(tmp_path / "data")])
    return path


def test_brings_the_file_and_says_whose_it_is(
    wheel: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    known = replace(get_data.SOURCES["adult"], sha256=sha256(wheel.read_bytes()).hexdigest())
    monkeypatch.setitem(get_data.SOURCES, "adult", known)
    get_data.main()
    names, values = (line.split(",") for line in (tmp_path / "data" / "adult.csv").read_text().splitlines())
    assert dict(zip(names, values, strict=True)) | {"age": "39", "workclass": "", "income": "<=50K"} == dict(
        zip(names, values, strict=True)
    )
    assert "UCI (CC BY 4.0)" in capsys.readouterr().out


def test_a_changed_package_is_refused(wheel: Path, tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"mglearn==0.2.0: its SHA-256 is .*; nothing was written"):
        get_data.main()
    assert not (tmp_path / "data").exists()


def test_a_package_that_is_not_there_is_named(wheel: Path, tmp_path: Path) -> None:
    wheel.unlink()
    with pytest.raises(SystemExit, match=r"mglearn==0.2.0 cannot be downloaded: "):
        get_data.main()
    assert not (tmp_path / "data").exists()
