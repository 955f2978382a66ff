"""`BENCHMARKS.md`: the last tables of every benchmark."""

import os
import platform
import re
from datetime import date
from importlib.metadata import version
from pathlib import Path

from rich import get_console
from rich.table import Table

HEADER = """# Benchmarks

Written by `scripts/benchmark.py`, each section when that benchmark was last run. Repeats are interleaved; a ratio is the
median of those within a repeat.
"""
VERSIONS = ("torch", "lightning", "scikit-learn", "numpy")


class Report:
    """What a benchmark has found: shown as it comes, and written when it is complete."""

    def __init__(self) -> None:
        self.tables: list[Table] = []
        self.notes: list[str] = []

    def show(self, table: Table) -> None:
        """Print a table and keep it."""
        self.tables.append(table)
        get_console().print(table)

    def note(self, line: str) -> None:
        """Print a line and keep it."""
        self.notes.append(line)
        get_console().print(line, soft_wrap=True, highlight=False, markup=False)

    def write(self, path: Path, name: str, command: str) -> None:
        """Replace the section of this benchmark; the others stay."""
        old = path.read_text(encoding="utf-8") if path.exists() else ""
        sections = dict(re.findall(r"^## (\S+)\n(.*?)(?=^## |\Z)", old, re.MULTILINE | re.DOTALL))
        versions = ", ".join(f"{package} {version(package)}" for package in VERSIONS)
        machine = (
            f"{processor()}, {os.cpu_count()} cores, {platform.system()}, Python {platform.python_version()}"
        )
        heading = f"`{command}` · {date.today()} · {machine} · {versions}"
        sections[name] = "\n\n".join([heading, *map(markdown, self.tables), *self.notes])
        body = "\n".join(f"## {each}\n\n{sections[each].strip()}\n" for each in sorted(sections))
        path.write_text(f"{HEADER}\n{body}", encoding="utf-8")


def markdown(table: Table) -> str:
    """The table, of plain texts, as Markdown."""
    headers = [str(column.header) for column in table.columns]
    lines = [headers, ["---"] * len(headers)]
    lines += [
        list(map(str, cells)) for cells in zip(*(column.cells for column in table.columns), strict=True)
    ]
    return "\n".join(f"| {' | '.join(cell.replace('|', '/') for cell in line)} |" for line in lines)


def processor() -> str:
    """Its name, as far as the system tells it, and its family: "AMD EPYC" is one of Zen 4 (25) and of Zen 5 (26)."""
    info = Path("/proc/cpuinfo")
    told = dict(re.findall(r"^(\S.*?)\s*: (.*)", info.read_text(), re.MULTILINE)) if info.exists() else {}
    name = told.get("model name") or platform.processor() or platform.machine()
    return f"{name}, family {told['cpu family']}" if "cpu family" in told else name
