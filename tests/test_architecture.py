"""Imports run one way, and nothing heavy is imported before it is needed."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import backlight

SOURCE = Path(backlight.__file__).parent
CORE = [
    SOURCE / "model.py",
    SOURCE / "loss.py",
    *sorted((SOURCE / "backprop").glob("*.py")),
    *sorted((SOURCE / "diagnosis").glob("*.py")),
]


def imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
    return found


@pytest.mark.parametrize("path", CORE, ids=lambda path: str(path.relative_to(SOURCE)))
def test_core_imports_torch_and_itself_only(path: Path) -> None:
    for name in imports(path):
        top = name.split(".")[0]
        assert top in sys.stdlib_module_names | {"torch", "numpy"} or name.startswith(
            (
                "backlight.backprop",
                "backlight.model",
                *(["backlight.diagnosis"] if "diagnosis" in path.parts else []),
            )
        ), name


@pytest.mark.parametrize("path", sorted((SOURCE / "data").glob("*.py")), ids=lambda path: path.name)
def test_data_knows_nothing_of_training(path: Path) -> None:
    above = (
        "train",
        "assemble",
        "callbacks",
        "classifier",
        "command",
        "evaluate",
        "predict",
        "export",
        "config",
        "chunk",
        "population",
        "sweep",
    )
    assert not [
        name for name in imports(path) if name.startswith(tuple(f"backlight.{room}" for room in above))
    ]


def test_command_line_answers_before_torch_is_imported() -> None:
    code = "import sys, backlight.command; print([m for m in ('torch', 'lightning', 'pandas') if m in sys.modules])"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "[]"
