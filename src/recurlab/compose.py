"""From a command line's overrides to composed configs, with Hydra's errors said in one line."""

import re
from collections.abc import Iterable, Iterator
from itertools import product
from typing import Any, cast

from hydra import compose as hydra_compose
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import ConfigTypeError, OmegaConfBaseException

from recurlab.choices import CHOICES
from recurlab.config import Config, load
from recurlab.errors import SHOWN, RecurlabError, one_line, say, shown, unknown, unknown_key
from recurlab.former import WITH_RESET, flat_cell
from recurlab.plugins import import_plugins
from recurlab.schema import full_keys
from recurlab.sources import APART, FORMER, check_unambiguous, groups, hydra, import_plugins_of

PRIMARY = "train"
WHOLE = ("data.sha256",)  # mappings that are given as a whole: a key may be a file's name, with dots
OPEN = (*CHOICES, "model.init.gate_bias")  # mappings that take keys which no YAML file names


def compose(overrides: list[str]) -> tuple[Config, DictConfig]:
    """Return the typed config for a command line's overrides, and the resolved plain one that is kept with the run.

    Raises:
        RecurlabError: for an override that names nothing, or a value that the schema refuses.
    """
    try:
        resolved = _resolve(_compose(overrides))
    except RecurlabError:
        raise
    except Exception as error:  # Hydra's own errors are of many kinds
        raise RecurlabError(f"{_said(overrides)}: {one_line(error):.300}") from error
    return load(resolved), resolved


def base(overrides: list[str]) -> dict[str, Any]:
    """Return the config for overrides as the YAML files have it, with interpolations and without types."""
    return _values(_compose(overrides))


def expand(overrides: list[str]) -> list[list[str]]:
    """Return the jobs of a grid: one list of overrides for each combination of ``key=a,b`` and ranges."""
    try:
        choices = [
            [f"{o.get_key_element()}={value}" for value in o.sweep_string_iterator()]
            if o.is_sweep_override()
            else [str(o.input_line)]
            for o in _parse(overrides)
        ]
    except HydraException as error:
        raise RecurlabError(f"{_said(overrides)}: {one_line(error)}") from error
    jobs = [list(job) for job in product(*choices)]
    if not jobs:
        raise RecurlabError(f"{_said(overrides)}: this grid has no job")
    return jobs


def _resolve(composed: DictConfig) -> DictConfig:
    choices = composed.hydra.runtime.choices
    try:
        values = cast(dict[str, Any], OmegaConf.to_container(_own(composed), resolve=True))
    except OmegaConfBaseException as error:
        raise RecurlabError(f"{error.full_key}: {str(error).splitlines()[0]}") from error
    for key in CHOICES:
        _spell_out(values, key)
    if isinstance(values.get("cell"), dict):
        values["cell"] = flat_cell(values["cell"])
    parts = (values.get(key) for key in ("data", "cell"))
    names = [part.get("name") if isinstance(part, dict) else part for part in parts]
    name = choices.get("experiment") or "/".join(map(str, names))
    return OmegaConf.create({"experiment": name, **values})


def _spell_out(values: dict[str, Any], key: str) -> None:
    """Replace a choice given by its bare name by a mapping that holds the name."""
    *above, last = key.split(".")
    for name in above:
        values = values.get(name) if isinstance(values, dict) else None  # type: ignore[assignment]
    if isinstance(values, dict) and isinstance(values.get(last), str):
        values[last] = {"name": values[last]}


def _compose(overrides: list[str]) -> DictConfig:
    parsed = _parse(overrides)
    _import_plugins(parsed)
    known = groups()
    for override in parsed:
        _check_form(override)
        _check_option(override, known)
        if override.is_sweep_override():
            raise RecurlabError(f"{override.input_line}: several values make a grid, which needs -m")
    ours = [override for override in parsed if _is_set_here(override, known)]
    try:
        composed = _composed(str(override.input_line) for override in parsed if override not in ours)
        for override in ours:
            _set(composed, override)
        return composed
    except (HydraException, OmegaConfBaseException) as error:
        raise _explain(error, parsed) from error


def _import_plugins(overrides: list[Override]) -> None:
    """Import the plugins of a command line and of its experiment, whose names may be chosen in it."""
    given = {str(override.key_or_group): override.value() for override in overrides if not override.is_delete()}
    if isinstance(given.get("experiment"), str):
        import_plugins_of(str(given["experiment"]))
    if given.get("plugins") is not None:
        import_plugins(cast(list[str], given["plugins"]))


def _is_set_here(override: Override, known: dict[str, list[str]]) -> bool:
    """Return whether an override is of a mapping that takes any key; Hydra would refuse it, or merge two choices."""
    key = str(override.key_or_group)
    if override.is_delete():
        return False
    below = any(key.startswith(f"{mapping}.") for mapping in OPEN)
    return below or (key in OPEN and (isinstance(override.value(), dict) or key not in known))


def _set(composed: DictConfig, override: Override) -> None:
    """Apply an override of a mapping that takes any key."""
    key, value = str(override.key_or_group), override.value()
    for choice in CHOICES:
        if key == choice and isinstance(value, str):
            value = {"name": value}
        elif key.startswith(f"{choice}.") and isinstance(name := OmegaConf.select(composed, choice), str):
            OmegaConf.update(composed, choice, {"name": name})
    if key == "cell.name" and OmegaConf.select(composed, key) in WITH_RESET and "reset" not in composed.cell:
        OmegaConf.update(composed, "cell.reset", None, force_add=True)  # as before: by it a run is found
    other_choice = key in CHOICES and isinstance(value, dict) and "name" in value  # not a mixture of both
    OmegaConf.update(composed, key, value, merge=not (other_choice or key in WHOLE), force_add=True)


def _check_form(override: Override) -> None:
    """Raise for an override that Hydra would accept although it has no effect here."""
    key = str(override.key_or_group)
    if re.match(r"hydra([./]|$)", key):
        raise RecurlabError(f"{_said([override])}: Hydra's own settings have no effect here")
    if re.match(rf"{APART}([./]|$)", key):
        raise RecurlabError(f"{_said([override])}: is of recurlab {APART}, not of a run")
    if override.package is not None:
        raise RecurlabError(f"{_said([override])}: a choice has its own place, say {key}=...")


def _check_option(override: Override, known: dict[str, list[str]]) -> None:
    """Raise the error for a group that has no such option, or two of them."""
    group, value = str(override.key_or_group), override.value()
    if group not in known or override.is_sweep_override() or override.is_delete() or isinstance(value, dict):
        return
    if value not in known[group]:
        raise unknown(group, value, known[group])
    check_unambiguous(group, str(value))


def _explain(error: Exception, overrides: list[Override]) -> RecurlabError:
    """Return the one-line error for one of Hydra's; for an unknown key it lists the keys that are allowed there."""
    inner = error.__cause__ if isinstance(error.__cause__, OmegaConfBaseException) else None
    key, known = str(inner.full_key if inner else ""), groups()
    value = next((found for o in reversed(overrides) for found in _at(o, key)), None)
    if isinstance(inner, ConfigTypeError):  # one of the two was merged into the other
        wanted = "list" if inner.object_type is list else "mapping"
        return RecurlabError(f"{key}={shown(value)}: must be a {wanted}")
    choices = [o for o in overrides if str(o.key_or_group) in known and not _is_set_here(o, known)]
    known_keys = full_keys(_values(_composed(str(o.input_line) for o in choices)))
    if inner is None or key in known_keys:
        return RecurlabError(one_line(error))
    place = key.rpartition(".")[0]
    while place and place not in known_keys:
        place = place.rpartition(".")[0]
    siblings = [name for name in known_keys if name.rpartition(".")[0] == place] + ([] if place else list(known))
    return unknown_key(key, value, siblings, known_keys)


def _at(override: Override, key: str) -> Iterator[Any]:
    """Yield the value that an override gives to a key, itself or as an entry of its mapping."""
    given, value = str(override.key_or_group), override.value()
    if key == given:
        yield value
    elif key.startswith(f"{given}."):
        for name in key.removeprefix(f"{given}.").split("."):
            value = value.get(name) if isinstance(value, dict) else None
        yield value


def _said(overrides: Iterable[object]) -> str:
    """Return overrides as they were given, cut where they are long."""
    line = " ".join(str(o.input_line) if isinstance(o, Override) else str(o) for o in overrides)
    return line if len(line) <= SHOWN else f"{line[: SHOWN - 1]}…"


def _composed(overrides: Iterable[str]) -> DictConfig:
    """Return what Hydra composes."""
    with hydra(overrides) as words:
        return hydra_compose(PRIMARY, overrides=words, return_hydra_config=True)


def _values(composed: DictConfig) -> dict[str, Any]:
    """Return what was composed in plain containers, with its interpolations."""
    return cast(dict[str, Any], OmegaConf.to_container(_own(composed)))


def _own(composed: DictConfig) -> DictConfig:
    """Return a composed config without Hydra's part."""
    return OmegaConf.masked_copy(composed, [str(key) for key in composed if key != "hydra"])


def _parse(overrides: list[str]) -> list[Override]:
    parsed = []
    for text in map(_renamed, overrides):
        if text.startswith("=") or ("=" not in text and not text.startswith("~")):
            raise RecurlabError(f"{shown(text)}: an override has the form key=value")
        try:
            parsed += OverridesParser.create().parse_overrides([text])
        except (HydraException, ValueError, RecursionError) as error:  # Python reads no number of thousands of digits
            advice = "special characters need quotes: 'key=\"value\"'"
            raise RecurlabError(f"{shown(text)}: can't be read; {advice}") from error
    return parsed


def _renamed(text: str) -> str:
    """Return an override with its group's present name, and say so where it was given by a former one."""
    key, equals, value = text.partition("=")
    if key not in FORMER or not equals:
        return text
    say(f"{key}=: is called {FORMER[key]}= now")
    return f"{FORMER[key]}={value}"
