"""Files that appear whole or not at all."""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml
from omegaconf._utils import get_omega_conf_dumper

from backlight.errors import BacklightError


@contextmanager
def whole_file(target: Path) -> Iterator[Path]:
    """Gives a path to write; when the block ends well, that file takes the place of `target`.

    Raises:
        BacklightError: the folder of `target` does not exist.
    """
    if not target.parent.is_dir():
        raise BacklightError(f"{target}: the folder {target.parent} does not exist; give one that does")
    temporary = target.with_name(f".{os.getpid()}.{target.name}")
    try:
        yield temporary
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)


def write_whole(target: Path, content: str | bytes | memoryview, *, wait: bool = True) -> None:
    """Write a file (text as UTF-8); the old content stays until the new one is complete.

    With `wait` it is then on the disk, which takes milliseconds; without, a power cut may still lose it.
    """
    with whole_file(target) as temporary, temporary.open("wb") as file:
        file.write(content.encode() if isinstance(content, str) else content)
        file.flush()
        if wait:
            os.fsync(file.fileno())


class _Dumper(getattr(yaml, "CSafeDumper", yaml.SafeDumper)):  # type: ignore[misc]  # chosen while it runs
    """OmegaConf's way to write, in C where there is one."""


_Dumper.add_representer(str, get_omega_conf_dumper().str_representer)


def to_yaml(node: Mapping[str, Any] | Sequence[Any]) -> str:
    """What `OmegaConf.to_yaml` gives for plain data, four times as fast."""
    text: str = yaml.dump(node, default_flow_style=False, allow_unicode=True, sort_keys=False, Dumper=_Dumper)
    return text
