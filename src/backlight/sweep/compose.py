"""The config of every trial of a sweep, with Hydra's work done once per set of choices."""

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.config_loader import ConfigLoader
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from omegaconf import Container, DictConfig, OmegaConf, open_dict

from backlight.errors import BacklightError

Node = dict[str, Any]


@dataclass(frozen=True)
class Trial:
    """One point of a sweep.

    Attributes:
        number: in the order of the sweep.
        overrides: that make it, as Hydra's sweeper writes them.
        config: of the task, as composed, interpolations and all.
        node: the same, resolved.
        sweep: the node `sweep`, which is no part of the others.
        hydra: Hydra's own settings, unresolved; some are of the first trial composed with these choices.
        subfolder: of the sweep's.
    """

    number: int
    overrides: list[str]
    config: Node
    node: Node
    sweep: Node
    hydra: DictConfig
    subfolder: str


class Composer:
    """Composes trials: in full for each set of choices, and by setting values for the others.

    Choosing options of a group, adding and deleting keys, and Hydra's own settings change what there is;
    setting a key that is there does not, so all trials that set the same keys share what was composed.

    Args:
        loader: Hydra's.
        master: config of the sweep.
    """

    def __init__(self, loader: ConfigLoader, master: DictConfig) -> None:
        assert isinstance(loader, ConfigLoaderImpl)
        self._loader = loader
        self._master = master
        self._parse = cache(self._parsed)
        self._composed: dict[tuple[str, ...], _Composed] = {}

    def trials(self, overrides: Sequence[Sequence[str]], first_number: int) -> Iterator[Trial]:
        """The trials with these overrides, one after the other.

        Raises:
            HydraException, OmegaConfBaseException: as Hydra's own sweeper, for what cannot be composed.
        """
        for number, strings in enumerate(overrides, first_number):
            yield self._trial(number, list(strings))

    def _trial(self, number: int, strings: list[str]) -> Trial:
        parsed = [self._parse(string) for string in strings]
        values = [override for override in parsed if self._sets_value(override)]
        key = tuple(
            override.key_or_group if self._sets_value(override) else str(override.input_line)
            for override in parsed
        )
        if key not in self._composed:
            self._composed[key] = _Composed(self._full(number, strings))
        composed = self._composed[key]
        config, node = composed.with_values(values)
        if config.pop("resume", "???") != "???":
            raise BacklightError("resume: a sweep cannot go on with a run; sweep.resume goes on with a sweep")
        del node["resume"], config["sweep"]
        hydra = composed.hydra
        if hydra.sweep._get_node("subdir")._value() == "${hydra.job.num}":
            subfolder = str(number)  # as it is by default; asking Hydra takes 0.1 s
        else:
            subfolder = str(self._full(number, strings).hydra.sweep.subdir)
        return Trial(number, strings, config, node, node.pop("sweep"), hydra, subfolder)

    def _full(self, number: int, strings: list[str]) -> DictConfig:
        config = self._loader.load_sweep_config(self._master, strings)
        with open_dict(config):
            config.hydra.job.id = config.hydra.job.num = number
        return config

    def _parsed(self, string: str) -> Override:
        (override,) = OverridesParser.create(config_loader=self._loader).parse_overrides([string])
        return override

    def _sets_value(self, override: Override) -> bool:
        return not (
            override.is_add()
            or override.is_force_add()
            or override.is_delete()
            or override.package is not None
            or override.is_hydra_override()
            or isinstance(override.value(), dict)  # which is merged with what is there
            or self._loader.repository.group_exists(override.key_or_group)
        )


class _Composed:
    """What was composed for one set of choices; its values change from trial to trial."""

    def __init__(self, full: DictConfig) -> None:
        self.hydra: DictConfig = full.hydra
        self._task = copy.deepcopy(full)
        with open_dict(self._task):
            del self._task["hydra"]

    def with_values(self, values: Sequence[Override]) -> tuple[Node, Node]:
        """The task config with these values, unresolved and resolved."""
        ConfigLoaderImpl._apply_overrides_to_config(list(values), self._task)
        config = OmegaConf.to_container(self._task, resolve=False)
        assert isinstance(config, dict)
        node = copy.deepcopy(config)
        for path in _interpolations(config):
            *parents, last = path
            place = node
            for parent in parents:
                place = place[parent]
            value = OmegaConf.select(self._task, _dotted(path))
            is_node = isinstance(value, Container)
            place[last] = OmegaConf.to_container(value, resolve=True) if is_node else value
        return config, node  # type: ignore[return-value]  # its keys are strings


def _interpolations(node: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where a value refers to another."""
    if isinstance(node, dict | list):
        for key, value in node.items() if isinstance(node, dict) else enumerate(node):
            yield from _interpolations(value, (*path, key))
    elif isinstance(node, str) and "${" in node:
        yield path


def _dotted(path: tuple[Any, ...]) -> str:
    return "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in path).lstrip(".")
