"""From a node of the config to an object: types and ranges are those of the constructor.

A constructor's annotations are the schema of its config node. `build` holds the node's values against
them, calls the constructor, and turns every mismatch into one sentence with the full key.
"""

import inspect
from collections.abc import Callable, Collection, Mapping
from functools import cache
from typing import Any, TypeVar

from omegaconf import DictConfig, OmegaConf, open_dict
from pydantic import ConfigDict, TypeAdapter, ValidationError

from backlight.errors import BacklightError, nearest

T = TypeVar("T")


def as_typed(overrides: Any) -> list[str]:
    """Those of a command line, as OmegaConf has them: what one of them refers to stands in the config, not here."""
    given = OmegaConf.to_container(overrides, resolve=False)
    return list(map(str, given)) if isinstance(given, list) else []


def build(target: Callable[..., T], node: Mapping[str, Any], key: str, **given: Any) -> T:
    """Call `target(**given, **node)` once every value of `node` fits the annotation of its parameter.

    Args:
        target: a class or function whose annotations say what is allowed.
        node: the values, as in the config.
        key: the full key of `node`, for messages (`optimizer`).
        given: arguments that do not come from the config; they are not checked.

    Raises:
        BacklightError: a key nobody reads, a value of the wrong type or range, a missing value.
    """
    check_node(target, node, key, given)
    try:
        return target(**given, **node)
    except ValueError as error:
        raise BacklightError(f"{key}.{error}" if key else str(error)) from error


def check_node(
    target: Callable[..., object], node: Mapping[str, Any], key: str, given: Collection[str]
) -> None:
    """Raises a BacklightError where `build` would, but for what the target itself refuses.

    Args:
        target, node, key: as for `build`.
        given: names of the arguments that do not come from the config.
    """
    parameters = {
        name: parameter
        for name, parameter in _parameters(target).items()
        if name not in given and parameter.kind is not parameter.VAR_KEYWORD
    }
    prefix = f"{key}." if key else ""
    for name, value in node.items():
        if name not in parameters:
            raise BacklightError(f"{prefix}{name}: no such option{nearest(name, parameters)}")
        check(prefix + name, value, parameters[name].annotation)
    for name, parameter in parameters.items():
        if name not in node and parameter.default is parameter.empty:
            raise BacklightError(f"{prefix}{name}: a value is needed")


def choose(options: Mapping[str, T], name: object, key: str) -> T:
    """The option called `name`; a BacklightError that lists the options where there is none."""
    if not isinstance(name, str) or name not in options:
        raise BacklightError(f"{key}={name}: no such option{nearest(str(name), options)}")
    return options[name]


def plain(node: DictConfig) -> dict[str, Any]:
    """The node as resolved plain Python data.

    Raises:
        BacklightError: a mandatory value (`???`) was not given.
    """
    for missing in sorted(OmegaConf.missing_keys(node)):
        full_key = f"{node._get_full_key(None)}.{missing}".lstrip(".")
        raise BacklightError(f"{full_key}: a value is needed; give {full_key}=…")
    container = OmegaConf.to_container(node, resolve=True)
    assert isinstance(container, dict)
    return {str(key): value for key, value in container.items()}


def task_of(config: DictConfig) -> DictConfig:
    """The config, rid of `resume` and `sweep`: they say what the command does, not what a run is."""
    with open_dict(config):
        for key in [key for key in config if key in ("resume", "sweep")]:
            del config[key]
    return config


def check(key: str, value: object, annotation: Any) -> None:
    """Raises a BacklightError if the value of the full key `key` does not fit the annotation."""
    if annotation is inspect.Parameter.empty:
        return
    try:
        _adapter(annotation).validate_python(value)
    except ValidationError as error:
        reasons = dict.fromkeys(_reason(detail["msg"]) for detail in error.errors())
        raise BacklightError(f"{key}={value}: must be {' or '.join(reasons)}") from error


@cache
def _adapter(annotation: Any) -> TypeAdapter[Any]:
    return TypeAdapter(annotation, config=ConfigDict(strict=True, arbitrary_types_allowed=True))


@cache
def _parameters(target: Callable[..., Any]) -> Mapping[str, inspect.Parameter]:
    return inspect.signature(target, eval_str=True).parameters


def _reason(message: str) -> str:
    """Pydantic's message as what comes after "must be"."""
    words = {
        "Input should be ": "",
        "a valid integer": "an integer",
        "a valid ": "a ",
        "greater than or equal to ": "at least ",
        "less than or equal to ": "at most ",
    }
    for theirs, ours in words.items():
        message = message.replace(theirs, ours)
    return message
