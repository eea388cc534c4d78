"""Values held against a schema of dataclasses, with OmegaConf's errors said in one line."""

import io
import re
from collections.abc import Iterator
from dataclasses import is_dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import ConfigKeyError, OmegaConfBaseException

from recurlab.errors import RecurlabError, one_line, shown, unknown_key
from recurlab.foreign import content_of

MOST = 2**18  # bytes of a config
VALUES = 10_000  # that aliases may make

# What OmegaConf says of a value that is not of the type of its key.
WRONG_TYPE = re.compile(
    r"could not be converted to (\w+)|field of type '(\w+)'|is not a valid (bool)\b"
    r"|Cannot convert '\w+' to (string)|type hint 'typing\.(\w+)"
)
SPELT = {"str": "string", "int": "integer", "bool": "boolean"}


def read_yaml(path: Path) -> DictConfig:
    """Return what a YAML file holds, as long as it is no larger than a config can be.

    Raises:
        RecurlabError: for a file that can't be read, or holds no mapping.
    """
    try:
        text = content_of(path, MOST).decode()
        if "*" in text:
            _count(yaml.compose(text, yaml.SafeLoader), {})
        config = OmegaConf.load(io.StringIO(text))
    except Exception as error:  # a YAML parser's errors are of many kinds
        raise RecurlabError(f"{path}: can't be read: {one_line(error)}") from error
    if not isinstance(config, DictConfig):
        raise RecurlabError(f"{path}: not a config")
    return config


def _count(node: Any, known: dict[int, int]) -> int:
    """Return how many values a part of a YAML file has once each of its aliases is replaced by what it stands for."""
    if id(node) not in known:
        known[id(node)] = VALUES  # until it is counted: a node that holds itself has no end
        parts = node.value if isinstance(node, yaml.CollectionNode) else ()
        pairs = parts if isinstance(node, yaml.MappingNode) else [(part,) for part in parts]
        known[id(node)] = 1 + sum(_count(part, known) for pair in pairs for part in pair)
    if known[id(node)] > VALUES:
        raise ValueError(f"its aliases (*) make more than {VALUES:,} values")
    return known[id(node)]


def plain(config: DictConfig) -> DictConfig:
    """Return a copy of a config whose values are all plain: its interpolations were resolved before it was saved.

    Raises:
        RecurlabError: for an interpolation, which could read the environment or other things
            outside the config; for a text that cannot be written to a file, and for a value that
            was left open (``???``).
    """
    values = OmegaConf.to_container(config)
    for key, value in _leaves(values, ""):
        text = f"{key}={value}" if isinstance(value, str) else key
        if "${" in text:
            raise RecurlabError(f"{key}={shown(value)}: must be a plain value; no interpolation is resolved here")
        if re.search("[\0\ud800-\udfff]", text):
            raise RecurlabError(f"{key}={shown(value)}: must be a text that can be written to a file, in UTF-8")
        if value == "???":
            raise RecurlabError(f"{key}='???': must be given")
    copy = OmegaConf.create(values)
    assert isinstance(copy, DictConfig)
    return copy


def typed(prefix: str, schema: type, values: DictConfig) -> DictConfig:
    """Return values with the types of a dataclass.

    Args:
        prefix: of the keys in an error, "" or one that ends with a dot.
        schema: the dataclass.
        values: without interpolations; a key that is left out has the schema's default.

    Raises:
        RecurlabError: for an unknown key or a wrong type.
    """
    owner = _structured(schema)
    _check_containers(prefix, owner, values)
    try:
        merged = OmegaConf.merge(owner, values)
    except ConfigKeyError as error:
        key = str(error.full_key)
        place = key.rpartition(".")[0]
        kind = error.object_type
        siblings = OmegaConf.structured(kind) if is_dataclass(kind) else OmegaConf.select(owner, place)
        allowed = [f"{prefix}{place}{'.' if place else ''}{name}" for name in siblings]
        raise unknown_key(prefix + key, OmegaConf.select(values, key), allowed) from error
    except OmegaConfBaseException as error:
        key, reason = str(error.full_key), str(error).splitlines()[0]
        wrong = WRONG_TYPE.search(reason)
        if "is not a ListConfig" in reason:
            reason = "must be a list"
        elif "is not Optional" in reason:
            reason = "must not be null"
        elif wrong:
            wanted = str(wrong[wrong.lastindex or 0])
            reason = f"must be of type {SPELT.get(wanted, wanted).lower()}"
        value = shown(OmegaConf.select(values, key)) if key else "…"
        raise RecurlabError(f"{prefix}{key or 'config'}={value}: {reason}") from error
    except OverflowError as error:  # a whole number where fractions may stand
        for key, value in _leaves(OmegaConf.to_container(values), ""):
            if isinstance(value, int) and value.bit_length() > 1023:
                raise RecurlabError(f"{prefix}{key}={shown(value)}: too large a number") from error
        raise
    assert isinstance(merged, DictConfig)
    return merged


@cache
def _structured(schema: type) -> DictConfig:
    """Return a dataclass as a config, which is shared and must not be changed."""
    made = OmegaConf.structured(schema)
    assert isinstance(made, DictConfig)
    return made


def _check_containers(prefix: str, owner: DictConfig, values: DictConfig) -> None:
    """Raise for a value that is not a mapping, or not a list, where the schema has one."""
    for name in values:
        if name not in owner or values[name] is None or OmegaConf.is_missing(owner, name):
            continue
        wanted, given, key = owner[name], values[name], f"{prefix}{name!s}"
        if OmegaConf.is_list(wanted) and not OmegaConf.is_list(given):
            example = f", as {key}=[{given}]" if isinstance(given, str) else ""
            raise RecurlabError(f"{key}={shown(given)}: must be a list{example}")
        if not OmegaConf.is_dict(wanted):
            continue
        if not OmegaConf.is_dict(given):
            keys = ", ".join(map(str, wanted))
            raise RecurlabError(f"{key}={shown(given)}: must be a mapping{keys and f' of {keys}'}")
        _check_containers(f"{key}.", wanted, given)


def _leaves(value: Any, key: str) -> Iterator[tuple[str, Any]]:
    """Yield the full keys in plain containers with the values that are neither mappings nor lists."""
    if isinstance(value, dict):
        for name, entry in value.items():
            yield from _leaves(entry, f"{key}.{name}" if key else str(name))
    elif isinstance(value, list):
        for place, entry in enumerate(value):
            yield from _leaves(entry, f"{key}[{place}]")
    else:
        yield key, value


def full_keys(values: dict[str, Any], above: str = "") -> list[str]:
    """Return the full names of all keys in a mapping of mappings, each before those below it."""
    found = []
    for key, value in values.items():
        found += [f"{above}{key}", *(full_keys(value, f"{above}{key}.") if isinstance(value, dict) else [])]
    return found
