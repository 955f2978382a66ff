"""Files that appear whole or not at all."""

import os
from pathlib import Path

import pytest

from backlight.files import link_whole, write_whole


@pytest.mark.parametrize("has_links", [True, False])
def test_a_file_made_the_same_as_another_leaves_it_alone_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, has_links: bool
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError

    if not has_links:
        monkeypatch.setattr(os, "link", refuse)
    best, last = tmp_path / "best", tmp_path / "last"
    write_whole(best, "1")
    write_whole(last, "0")
    link_whole(last, best)
    assert last.read_text() == "1" and last.samefile(best) == has_links
    write_whole(last, "2")
    assert best.read_text() == "1"


def test_what_a_killed_process_left_is_not_written_through(tmp_path: Path) -> None:
    """In containers the next process often has the same number."""
    best, last = tmp_path / "best", tmp_path / "last"
    write_whole(best, "1")
    os.link(best, last.with_name(f".{os.getpid()}.last"))
    write_whole(last, "2")
    assert (best.read_text(), last.read_text()) == ("1", "2")
