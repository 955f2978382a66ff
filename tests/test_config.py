"""Every shipped config composes and builds; what the schema says holds for any value."""

from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import pytest
import yaml
from hydra import compose, initialize_config_dir
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field

from backlight.assemble import assemble
from backlight.command import config_folder
from backlight.config import build, plain, task_of
from backlight.errors import BacklightError, nearest
from backlight.run_folder import RunFolder
from tests.data import files

CONF = config_folder()
GROUPS = ("data", "model", "optimizer", "scheduler", "trainer", "callbacks", "sweep", "experiment")
OPTIONS = [
    (group, path.stem)
    for group in GROUPS
    for path in sorted((CONF / group).glob("*.yaml"))
    if path.stem[0] != "_"
]


@pytest.mark.parametrize(("group", "option"), OPTIONS)
def test_every_option_builds(group: str, option: str, tmp_path: Path) -> None:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = compose("train", [f"{group}={option}", *files_for(option, tmp_path)])
    node = plain(task_of(config))
    if node["trainer"]["accelerator"] in ("gpu", "mps"):
        node["trainer"]["accelerator"] = "cpu"  # the rest of the option is built all the same
    experiment = assemble(node, RunFolder(tmp_path / "run"))
    assert experiment.trainer.max_epochs == node["trainer"]["max_epochs"]
    assert (
        experiment.classifier.model(experiment.data.part("train")[0]).shape[1] == experiment.data.num_outputs
    )
    assert not (tmp_path / "run").exists(), "building writes nothing"


def files_for(option: str, folder: Path) -> list[str]:
    """What an option that reads the user's files, or downloaded ones, needs."""
    if option in ("table", "own_table"):
        (folder / "t.csv").write_text("a,y\n" + "\n".join(f"{row},{row % 2}" for row in range(50)))
        return [f"data.path={folder / 't.csv'}", "data.target=y"]
    if option == "arrays":
        np.savez(folder / "a.npz", x=np.arange(120.0).reshape(60, 2), y=np.arange(60) % 2)
        return [f"data.path={folder / 'a.npz'}"]
    if option == "openml":
        return ["data.name=tea", f"data.cache={files.openml(folder)}"]
    if option in ("images", "audio", "speech"):
        # Arrays, to which no sound has to be turned.
        np.savez(folder / "d.npz", x=np.random.default_rng(0).random((40, 6, 5)), y=np.arange(40) % 2)
        return [f"data.path={folder / 'd.npz'}"]
    if option == "text":
        return [f"data.path={files.texts(folder / 't.csv')}", "data.column=text", "data.target=label"]
    if option == "tagging":
        return [f"data.path={files.sentences(folder / 't.conllu')}"]
    if option in ("ratings", "clicks"):
        return [f"data.path={files.ratings(folder / 'r.csv')}"]
    return []


@pytest.mark.parametrize("path", sorted(CONF.rglob("*.yaml")), ids=lambda path: str(path.relative_to(CONF)))
def test_every_key_has_a_comment(path: Path) -> None:
    lines = path.read_text().splitlines()
    assert lines[0].startswith("#"), "a config starts with what it is"
    if path.relative_to(CONF).parts[0] in ("hydra", "experiment"):
        return
    keys = [line for line in lines if line[:1].isalpha() and ":" in line]
    said = [line for line in keys if "#" in line or line.split(":")[0] in STRUCTURE]
    inherited = [line for line in keys if line not in said]
    # A config on top of another one changes values that are explained there.
    assert not inherited or "defaults" in yaml.safe_load(path.read_text()), inherited


STRUCTURE = ("defaults", "hydra", "name", "source", "loss", "progress", "backprop", "gradients", "evaluation_plots",
             "decision_boundary", "early_stopping")  # fmt: skip


def example(
    given: str, *, count: Annotated[int, Field(ge=1)], rate: float = 0.5, kind: Literal["a", "b"] = "a"
) -> tuple[str, int, float, str]:
    return given, count, rate, kind


@given(st.integers(), st.one_of(st.integers(), st.floats(), st.text(), st.booleans(), st.none()), st.text())
def test_build_takes_exactly_what_the_annotations_allow(count: int, rate: object, kind: str) -> None:
    fits = count >= 1 and type(rate) in (int, float) and kind in ("a", "b")
    node = {"count": count, "rate": rate, "kind": kind}
    if fits:
        given, *built = build(example, node, "key", given="x")
        assert given == "x"
        assert built == [count, rate, kind]
    else:
        with pytest.raises(BacklightError, match=r"^key\.(count|rate|kind)="):
            build(example, node, "key", given="x")


def test_build_names_what_is_missing_or_unknown() -> None:
    with pytest.raises(BacklightError, match=r"^key.count: a value is needed$"):
        build(example, {}, "key", given="x")
    with pytest.raises(BacklightError, match=r"^key.cuont: no such option; did you mean 'count'\?$"):
        build(example, {"count": 1, "cuont": 2}, "key", given="x")
    with pytest.raises(BacklightError, match=r"^key.given: no such option"):
        build(example, {"count": 1, "given": "y"}, "key", given="x")


def test_nearest() -> None:
    assert nearest("adm", ["adam", "sgd"]) == "; did you mean 'adam'?"
    assert nearest("zzz", ["adam", "sgd"]) == "; allowed: adam, sgd"
    assert nearest("zzz", []) == ""
