"""Every command in the documents runs."""

import re
import shlex
import subprocess
import sys
import textwrap
import time
import urllib.request
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hydra import compose, initialize_config_dir
from yaml import safe_load

from backlight import command
from backlight.assemble import build_data
from backlight.command import config_folder
from backlight.config import build, plain, task_of
from backlight.data.source import Labelled, labelled
from backlight.diagnosis import layer_symptoms
from backlight.examination import Evidence, examine_kin
from backlight.ranges import Count, Positive
from backlight.run_folder import RunFolder
from tests.conftest import Call, Result
from tests.data import files

ROOT = Path(__file__).parents[1]


def compose_train(*overrides: str) -> dict[str, Any]:
    with initialize_config_dir(str(config_folder()), version_base="1.3"):
        config = plain(task_of(compose("train", overrides)))
    return config


def commands(document: str) -> list[str]:
    blocks = re.findall(r"^```bash\n(.*?)^```", (ROOT / document).read_text(), re.MULTILINE | re.DOTALL)
    return [line.split("   #")[0].strip() for block in blocks for line in block.splitlines()]


def run(line: str, call: Call) -> Result:
    """A line of a document; in this process if it can be: starting one costs more than what most commands do."""
    python, script, *arguments = shlex.split(line)
    assert python == "python"
    if hasattr(command, Path(script).stem):
        assert (ROOT / script).is_file()
        result = call(Path(script).stem, *arguments)
    else:
        words = [sys.executable, script if script == "-c" else ROOT / script, *arguments]
        ended = subprocess.run(words, capture_output=True, text=True, check=False)
        result = Result(ended.returncode, ended.stdout, ended.stderr)
    assert result.code == 0, f"{line}\n{result.out}{result.err}"
    return result


@pytest.mark.slow
def test_readme_commands_run_in_their_order(tmp_path: Path, call: Call) -> None:
    ran = [line for line in commands("README.md") if line.startswith("python ")]
    assert len(ran) >= 10
    for line in ran:
        # The longest of them, whose thirty epochs tell no more than two.
        result = run(f"{line} trainer.max_epochs=2" if "experiment=images" in line else line, call)
        assert result.err.count("\n") <= line.count(" -m "), f"{line}\n{result.err}"
    assert (tmp_path / "predictions.csv").read_text().count("\n") == 179


@pytest.mark.slow
@pytest.mark.parametrize("page", sorted(page.name for page in (ROOT / "docs" / "uses").glob("*.md")))
def test_commands_of_each_use_run(page: str, tmp_path: Path, call: Call) -> None:
    """In their order, with one epoch each, on files that are laid out as the page says."""
    files.images(tmp_path / "my_images", 20)
    files.texts(tmp_path / "my_reviews.csv")
    np.save(tmp_path / "x.npy", np.random.default_rng(0).normal(size=(60, 3)))
    np.save(tmp_path / "y.npy", np.arange(60) % 2)
    (tmp_path / "my_table.csv").write_text("size,label\n" + "1,a\n2,b\n" * 30)
    files.sentences(tmp_path / "my_tokens.conllu")
    files.recordings(tmp_path / "my_sounds", 8)
    files.ratings(tmp_path / "my_ratings.csv")
    (tmp_path / "my_users.csv").write_text("user\nu1\nu2\n")
    ran = [line for line in commands(f"docs/uses/{page}") if line]
    assert len(ran) >= 5
    for line in ran:
        run(line + (" trainer.max_epochs=1" if line.startswith("python train.py") else ""), call)


def test_other_commands_are_targets_of_make() -> None:
    named = {line.split()[1] for line in commands("README.md") if not line.startswith("python ")}
    assert named == {"train", "test", "board"}
    targets = re.search(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert targets is not None
    assert named <= set(targets[1].split())


@pytest.mark.slow
def test_board_serves_on_this_machine_only(tmp_path: Path) -> None:
    printed = subprocess.run(
        ["make", "--dry-run", "--always-make", "--no-print-directory", "board"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    line = printed.stdout.splitlines()[-1].replace(".venv/bin/", f"{Path(sys.executable).parent}/")
    assert "--host localhost" in line
    (tmp_path / "outputs").mkdir()
    with (tmp_path / "log").open("w") as log:
        server = subprocess.Popen(
            [*line.split(), "--port", "16006"], cwd=tmp_path, stdout=log, stderr=subprocess.STDOUT
        )
    try:
        for _ in range(150):
            try:
                with urllib.request.urlopen("http://localhost:16006/data/runs", timeout=5) as answer:
                    assert answer.read() == b"[]"
                break
            except OSError:
                time.sleep(0.2)
        else:
            pytest.fail((tmp_path / "log").read_text())
    finally:
        server.terminate()
        server.wait(timeout=10)


def test_options_in_the_readme_are_those_of_conf() -> None:
    text = (ROOT / "README.md").read_text()
    for group in ("experiment", "data", "optimizer", "scheduler", "trainer", "callbacks", "sweep"):
        row = re.search(rf"^\| `{group}` \| (.*) \|$", text, re.MULTILINE)
        assert row is not None
        there = {path.stem for path in (ROOT / "conf" / group).glob("*.yaml") if path.stem[0] != "_"}
        assert set(re.findall(r"`(\w+)`", row[1])) == there


def test_data_source_in_contributing_is_one(tmp_path: Path) -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text()
    python, yaml = (
        textwrap.dedent(re.findall(rf"```{kind}\n(.*?)```", text, re.DOTALL)[0].rstrip() + "\n")
        for kind in ("python", "yaml")
    )
    names: dict[str, Any] = {
        "np": np,
        "Count": Count,
        "Positive": Positive,
        "Labelled": Labelled,
        "labelled": labelled,
    }
    exec(python, names)
    node = {key: value for key, value in safe_load(yaml).items() if key not in ("defaults", "source")}
    source = build(names["rings"], node, "data", seed=1)
    radius = np.linalg.norm(source.rows, axis=1)
    assert radius == pytest.approx(1 + node["gap"] * source.labels, abs=1e-5)
    assert source.class_names == ["0", "1"]


def test_symptom_in_contributing_is_one(tmp_path: Path) -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text()
    python = textwrap.dedent(re.findall(r"```python\n(.*?)```", text, re.DOTALL)[1].rstrip() + "\n")
    names = dict(vars(layer_symptoms))
    exec(python, names)
    config = compose_train("data=moons")
    data = build_data(config["data"], run_seed=0)
    data.setup()
    untrained = replace(
        examine_kin([(config, Evidence.of(RunFolder(tmp_path)), data)])[0],
        series={"train/loss": np.array([0.69])},
    )
    finding = names["idle_layer"](untrained)
    assert finding.layer == "layers.0"
    assert finding.evidence == {"relative_change": 0}
    learned = replace(untrained, series={"train/loss": np.array([0.01])})
    assert names["idle_layer"](learned) is None
