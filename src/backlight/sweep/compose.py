"""The config of every trial of a sweep, with Hydra's work done once per set of choices."""

import copy
import json
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.config_loader import ConfigLoader
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from omegaconf import DictConfig, OmegaConf, open_dict

from backlight.config import plain, task_of
from backlight.errors import BacklightError
from backlight.files import to_yaml

Node = dict[str, Any]
Place = tuple[str | int, ...]

MARKS = NUMBER, OVERRIDES, DIRNAME, FOLDER = "@number", "@overrides", "@dirname", "@folder"
"""Stand for what differs from trial to trial in Hydra's settings; JSON takes their place, which is YAML too."""


@dataclass(frozen=True)
class Trial:
    """One point of a sweep.

    Attributes:
        number: in the order of the sweep.
        overrides: that make it, as Hydra's sweeper writes them.
        node: the resolved config of the task.
        config_yaml: the config as composed, interpolations and all.
        resolved_yaml: `node` as YAML.
        sweep: the node `sweep`, which is no part of the others.
        subfolder: of the sweep's.
    """

    number: int
    overrides: list[str]
    node: Node
    config_yaml: str
    resolved_yaml: str
    sweep: Node
    subfolder: str
    _hydra: str

    def values(self, keys: Sequence[str]) -> Node:
        """What the trial's overrides say of these keys: of values what they are, of groups the option."""
        given = dict(override.partition("=")[::2] for override in self.overrides)
        return {key: self._value(key, given[key]) for key in keys if key in given}

    def _value(self, key: str, string: str) -> Any:
        value: Any = self.node
        for name in key.split("."):
            value = value.get(name) if isinstance(value, dict) else None
        return string if value is None or isinstance(value, dict) else value

    def hydra_yaml(self, folder: Path) -> str:
        """Hydra's own settings, for a trial in this folder."""
        text = self._hydra
        values = (self.number, self.overrides, ",".join(sorted(self.overrides)), str(folder))
        for mark, value in zip(MARKS, values, strict=True):
            text = text.replace(json.dumps(mark), json.dumps(value))
        return text


def swept(trials: Sequence[Trial]) -> list[str]:
    """Keys whose overrides differ from trial to trial."""
    values: dict[str, set[str]] = {}
    for trial in trials:
        for override in trial.overrides:
            key, _, value = override.partition("=")
            values.setdefault(key, set()).add(value)
    return [key for key, seen in values.items() if len(seen) > 1]


class Composer:
    """Composes trials: in full for each set of choices, and by setting values for the others.

    Choosing options of a group, adding and deleting keys, and Hydra's own settings change what there is;
    giving a key that is there a number or a name does not, nor a list of as many, so all trials that do it with
    the same keys share what was composed.

    Args:
        loader: Hydra's.
        master: config of the sweep.
    """

    def __init__(self, loader: ConfigLoader, master: DictConfig) -> None:
        assert isinstance(loader, ConfigLoaderImpl)
        self._loader = loader
        self._master = master
        self._value = cache(self._value_of)
        self._composed: dict[str, _Composed] = {}

    def trials(self, overrides: Sequence[Sequence[str]], first_number: int) -> Iterator[Trial]:
        """The trials with these overrides, one after the other.

        Raises:
            HydraException, OmegaConfBaseException: as Hydra's own sweeper, for what cannot be composed.
            BacklightError: a mandatory value was not given.
        """
        for number, strings in enumerate(overrides, first_number):
            yield self._trial(number, list(strings))

    def _trial(self, number: int, strings: list[str]) -> Trial:
        marks: Node = {}
        values: Node = {}
        choices = []
        for string in strings:
            found = self._value(string)
            if found is None:
                choices.append(string)
            else:
                marks[found[0]] = found[1]
                values |= found[2]
        key = json.dumps([choices, list(marks.items())])
        if key not in self._composed:
            self._composed[key] = _Composed(self._full(number, strings), marks, values)
        composed = self._composed[key]
        if not composed.is_shared:
            composed = _Composed(self._full(number, strings), {}, ())
        subfolder = str(number)
        if not composed.numbers_folders:  # as they are by default; asking Hydra takes 0.1 s
            subfolder = str(self._full(number, strings).hydra.sweep.subdir)
        return composed.trial(number, strings, values, subfolder)

    def _full(self, number: int, strings: list[str]) -> DictConfig:
        config = self._loader.load_sweep_config(self._master, strings)
        with open_dict(config):
            config.hydra.job.id = config.hydra.job.num = number
        return config

    def _value_of(self, string: str) -> tuple[str, Any, Node] | None:
        """The key that an override sets, marks for its value and what they stand for, if it does no more than that."""
        (override,) = OverridesParser.create(config_loader=self._loader).parse_overrides([string])
        if self._chooses(override):
            return None
        values: Node = {}
        marks = _marks_for(override.value(), override.key_or_group, values)
        is_plain = not any(isinstance(v, dict) or (isinstance(v, str) and "$" in v) for v in values.values())
        return (override.key_or_group, marks, values) if is_plain else None

    def _chooses(self, override: Override) -> bool:
        return (
            override.is_add()
            or override.is_force_add()
            or override.is_delete()
            or override.package is not None
            or override.is_hydra_override()
            or bool(self._loader.repository.group_exists(override.key_or_group))
        )


class _Composed:
    """What was composed for one set of choices, with marks where values go.

    Args:
        full: the config of one trial, Hydra's part too.
        marks: by key, of the values that differ from trial to trial.
        names: of all these marks.

    Attributes:
        is_shared: whether trials differ in these values only; not where one is part of another string.
    """

    def __init__(self, full: DictConfig, marks: Mapping[str, Any], names: Collection[str]) -> None:
        hydra = OmegaConf.to_container(full.hydra, resolve=False, enum_to_str=True)
        assert isinstance(hydra, dict)
        self.numbers_folders = hydra["sweep"]["subdir"] == "${hydra.job.num}"
        hydra["job"] |= {"num": NUMBER, "id": NUMBER, "override_dirname": DIRNAME}
        hydra["overrides"]["task"] = OVERRIDES
        hydra["runtime"]["output_dir"] = FOLDER
        self._hydra = re.sub(f"'?({'|'.join(MARKS)})'?", r'"\1"', to_yaml({"hydra": hydra}))

        task = copy.deepcopy(full)
        with open_dict(task):
            del task["hydra"]
        if not OmegaConf.is_missing(task, "resume"):
            raise BacklightError("resume: a sweep cannot go on with a run; sweep.resume goes on with a sweep")
        for key, mark in marks.items():
            OmegaConf.update(task, key, mark)
        sweep = OmegaConf.to_container(task.sweep, resolve=True)
        task_of(task)
        config = OmegaConf.to_container(task, resolve=False)
        self._parts: Node = {"node": plain(task), "sweep": sweep}
        self._places = list(_marked(self._parts, names))
        self._config_yaml = to_yaml(config)  # type: ignore[arg-type]  # it is a dict
        self._resolved_yaml = to_yaml(self._parts["node"])
        self.is_shared = not any(name in self._resolved_yaml.replace(f"'{name}'", "") for name in names)

    def trial(self, number: int, overrides: list[str], values: Node, subfolder: str) -> Trial:
        """The trial with these values of the marks."""
        parts = copy.deepcopy(self._parts)
        for place, mark in self._places:
            *parents, last = place
            node: Any = parts
            for parent in parents:
                node = node[parent]
            node[last] = values[mark]
        return Trial(
            number,
            overrides,
            parts["node"],
            _filled(self._config_yaml, values),
            _filled(self._resolved_yaml, values),
            parts["sweep"],
            subfolder,
            self._hydra,
        )


def _marks_for(value: Any, name: str, values: Node) -> Any:
    """A mark in place of a value, of a list one in place of each entry; `values` is told what they stand for."""
    if isinstance(value, list):
        return [_marks_for(entry, f"{name}.{index}", values) for index, entry in enumerate(value)]
    mark = f"@{name}@"
    values[mark] = value
    return mark


def _marked(node: Any, marks: Collection[str], place: Place = ()) -> Iterator[tuple[Place, str]]:
    """Where the marks are in a node."""
    if isinstance(node, dict | list):
        for name, value in node.items() if isinstance(node, dict) else enumerate(node):
            yield from _marked(value, marks, (*place, name))
    elif isinstance(node, str) and node in marks:
        yield place, node


def _filled(text: str, values: Node) -> str:
    for mark, value in values.items():
        text = text.replace(f"'{mark}'", _scalar(repr(type(value)), value))
    return text


@cache
def _scalar(kind: str, value: object) -> str:
    """A value as it stands in YAML; the kind tells 1 from 1.0 and from true."""
    return to_yaml({"x": value}).removeprefix("x:").strip()
