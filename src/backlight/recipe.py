"""A run as what the command line says of it, so that it can be changed and said again."""

import copy
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from hydra.core.config_loader import ConfigLoader
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from backlight.config import plain, task_of
from backlight.errors import BacklightError
from backlight.run_folder import RunFolder

Node = dict[str, Any]

GROUPS = ("data", "model", "optimizer", "scheduler", "trainer", "callbacks")
OTHER_CALLBACKS = re.compile(r"[+~]*callbacks\.(?!early_stopping)").match
"""Of an override: whether it sets what all options of callbacks have, and each leaves as it is."""


@dataclass(frozen=True)
class Recipe:
    """The config of a run, and how it is given.

    Attributes:
        node: the resolved config.
        choices: the option of each group.
        overrides: of the command line; they compose to the node.
    """

    node: Node
    choices: dict[str, str]
    overrides: list[str]

    @classmethod
    def of(cls, folder: RunFolder) -> "Recipe":
        """That of a run.

        Raises:
            BacklightError: the folder is none of a run, does not say how it was started, or sets what is Hydra's:
                that can name code to run, and whoever gave us the folder may have written it.
        """
        node, overrides = plain(folder.read_config()), folder.read_overrides()
        if any(text.lstrip("+~").startswith("hydra") for text in (*node, *overrides)):
            raise BacklightError(
                f"{folder.path}: its config sets options of Hydra itself, which no run records"
            )
        path = folder.config.with_name("hydra.yaml")
        try:
            choices = OmegaConf.to_container(OmegaConf.load(path).hydra.runtime.choices)
            assert isinstance(choices, dict)
            return cls(node, {group: str(choices[group]) for group in GROUPS}, overrides)
        except (OSError, AttributeError, KeyError, AssertionError, OmegaConfBaseException) as error:
            raise BacklightError(f"{path}: does not say which options the run was started with") from error

    @property
    def command(self) -> str:
        """The command line."""
        return " ".join(["python train.py", *(_quoted(override) for override in self.overrides)])

    def changed(self, overrides: str, loader: ConfigLoader) -> "Recipe":
        """The same with these overrides, whatever the command line was.

        The overrides are added to those of the run where that gives what is wanted. Where it does not, as
        when another optimizer does not have the options that an experiment sets, the whole config is said again.

        Args:
            overrides: `key=value` or `group=option`, with blanks between them.
            loader: Hydra's.
        """
        node, choices = copy.deepcopy(self.node), dict(self.choices)
        for override in OverridesParser.create().parse_overrides(overrides.split()):
            key, value = override.key_or_group, override.value()
            if key in GROUPS:
                choices[key] = str(value)
                kept = list(filter(OTHER_CALLBACKS, self.overrides)) if key == "callbacks" else []
                node[key] = compose(loader, [str(override.input_line), *kept])[key]
            else:
                *parents, last = key.split(".")
                place = node
                for parent in parents:
                    place = place[parent]
                place[last] = value
        added = together([*self.overrides, *overrides.split()])
        try:
            is_enough = compose(loader, added) == node
        except (HydraException, OmegaConfBaseException, BacklightError):
            is_enough = False
        return Recipe(node, choices, added if is_enough else _said(node, choices, loader))


def together(overrides: Iterable[str]) -> list[str]:
    """Overrides made one after the other: of each key the last, and none that a later option takes back."""
    kept: list[str] = []
    for override in overrides:
        key, _, _ = override.partition("=")
        takes_back = re.compile(rf"[+~]*{re.escape(key)}(=|\.|$)").match
        kept = [known for known in kept if not takes_back(known) or OTHER_CALLBACKS(known)]
        kept.append(override)
    return kept


def compose(loader: ConfigLoader, overrides: list[str]) -> Node:
    """The config of `train.py` with these overrides."""
    return plain(_composed(loader, overrides))


def _composed(loader: ConfigLoader, overrides: list[str]) -> DictConfig:
    config = loader.load_configuration("train", overrides, RunMode.RUN)
    with open_dict(config):
        del config["hydra"]
    return task_of(config)


def _said(node: Node, choices: dict[str, str], loader: ConfigLoader) -> list[str]:
    """Overrides that compose to this node, whatever they are."""
    defaults = compose(loader, [])
    overrides = [f"{group}={option}" for group, option in choices.items()]
    overrides += [
        f"{key}={_literal(value)}"
        for key, value in node.items()
        if not isinstance(value, dict) and value != defaults.get(key)
    ]
    # Mandatory values are still missing.
    base: Any = OmegaConf.to_container(_composed(loader, overrides), resolve=True)
    return [*overrides, *_differences(base, node)]


def _differences(base: Node, wanted: Node, prefix: str = "") -> Iterator[str]:
    for key in base.keys() - wanted.keys():
        yield f"~{prefix}{key}"
    for key, value in wanted.items():
        if key not in base:
            yield f"+{prefix}{key}={_literal(value)}"
        elif isinstance(value, dict) and isinstance(base[key], dict):
            yield from _differences(base[key], value, f"{prefix}{key}.")
        elif value != base[key]:
            yield f"{prefix}{key}={_literal(value)}"


def _literal(value: Any) -> str:
    """A value in the grammar of Hydra's overrides."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"
    if isinstance(value, list):
        return "[" + ",".join(map(_literal, value)) + "]"
    if isinstance(value, dict):
        return "{" + ",".join(f"{key}:{_literal(item)}" for key, item in value.items()) + "}"
    return repr(value)


def _quoted(override: str) -> str:
    """As a shell takes it."""
    return (
        override
        if not set(override) & set(" '\"$*?(){}|&;<>\\")
        else '"' + override.replace('"', '\\"') + '"'
    )
