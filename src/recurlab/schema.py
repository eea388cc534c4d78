"""Values held against a schema of dataclasses, with OmegaConf's errors said in one line."""

import re
from collections.abc import Iterator
from dataclasses import is_dataclass
from functools import cache
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import ConfigKeyError, OmegaConfBaseException

from recurlab.errors import RecurlabError, shown, unknown_key

# What OmegaConf says of a value that is not of the type of its key.
WRONG_TYPE = re.compile(
    r"could not be converted to (\w+)|field of type '(\w+)'|is not a valid (bool)\b"
    r"|Cannot convert '\w+' to (string)|type hint 'typing\.(\w+)"
)
SPELT = {"str": "string", "int": "integer", "bool": "boolean"}


def plain(config: DictConfig) -> DictConfig:
    """Return a copy of a config that holds nothing but plain values, its interpolations resolved long ago.

    Raises:
        RecurlabError: for an interpolation, which could read what is none of a config's business, as the environment;
            for a text that no file can hold, and a value that was left open (``???``).
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
    _check_kinds(prefix, owner, values)
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
        if "is not Optional" in reason:
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
    """Return a dataclass as a config, which nobody may change."""
    made = OmegaConf.structured(schema)
    assert isinstance(made, DictConfig)
    return made


def _check_kinds(prefix: str, owner: DictConfig, values: DictConfig) -> None:
    """Raise for what is no mapping, or no list, and has to be one."""
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
        _check_kinds(f"{key}.", wanted, given)


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
