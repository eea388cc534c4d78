"""What the last word of a command line may become: keys of the config, and the options of its groups."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import fields
from typing import Any

from recurlab.choices import CHOICES, schema_at
from recurlab.compose import base
from recurlab.errors import RecurlabError
from recurlab.schema import full_keys
from recurlab.sources import groups


def complete(word: str, before: Sequence[str] = ()) -> list[str]:
    """Return what a word may become: an option of a group, or a key.

    Args:
        word: the last one, as far as it is written.
        before: the words before it, whose choices bring keys of their own.
    """
    values = _values(before)
    options = groups()  # those of the plugins too, which are now imported
    key, equals, start = word.partition("=")
    if equals:
        return [f"{key}={option}" for option in options.get(key, []) if option.startswith(start)]
    known = {*options, *full_keys(values), *_of_choices(values)}
    return sorted(f"{name}=" for name in known if name.startswith(word))


def _values(before: Sequence[str]) -> dict[str, Any]:
    """Return the config that words make, or those of them that make one."""
    given = [word for word in before if "=" in word and not word.startswith("-")]
    for words in (given, [word for word in given if word.startswith("plugins=")]):
        with suppress(Exception):  # of the words so far, which are said when the command runs
            return base(words)
    return base([])


def _of_choices(values: dict[str, Any]) -> list[str]:
    """Return the keys of all options of what is chosen, whether a YAML file names them or not."""
    found = []
    for key in CHOICES:
        given: Any = values
        for name in key.split("."):
            given = given.get(name) if isinstance(given, dict) else None
        chosen = given.get("name") if isinstance(given, dict) else given
        if isinstance(chosen, str):
            with suppress(RecurlabError):  # as of a name that is in no table
                found += [f"{key}.{option.name}" for option in fields(schema_at(key, chosen))]
    return found
