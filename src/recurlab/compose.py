"""From a command line's overrides to composed configs, with Hydra's errors said in one line."""

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any, cast

from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import ConfigTypeError, OmegaConfBaseException

from recurlab.config import CHOICES, Config, load
from recurlab.errors import SHOWN, RecurlabError, one_line, say, shown, unknown, unknown_key

PRIMARY = "train"
APART = "sweep"  # a folder of configs that are not parts of a run's
WHOLE = ("data.sha256",)  # mappings that are given as a whole: a key may be a file's name, with dots
FORMER = {"task": "data"}  # groups by their names of before, and those that they have now
OPEN = ("cell.options", "model.init.gate_bias", "launcher.extra")  # mappings that take any key


def configs_dir() -> Path:
    """Return the folder of the YAML files: inside an installed package, or at the top of a checkout."""
    package = Path(__file__).resolve().parent
    installed = package / "configs"
    return installed if installed.is_dir() else package.parents[1] / "configs"


@cache
def groups() -> dict[str, list[str]]:
    """Return the options of each config group."""
    top = configs_dir()
    found: dict[str, list[str]] = {}
    for path in sorted(top.rglob("*.yaml")):
        group, _, option = path.relative_to(top).with_suffix("").as_posix().partition("/")
        if option and group != APART:
            found.setdefault(group, []).append(option)
    return found


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


def complete(word: str) -> list[str]:
    """Return what the last word of a command line may become: an option of a group, or a key."""
    options = groups()
    key, equals, start = word.partition("=")
    if equals:
        return [f"{key}={option}" for option in options.get(key, []) if option.startswith(start)]
    known = {*options, *_keys(_base([]))}
    return sorted(f"{name}=" for name in known if name.startswith(word))


def _resolve(composed: DictConfig) -> DictConfig:
    choices = composed.hydra.runtime.choices
    try:
        values = cast(dict[str, Any], OmegaConf.to_container(_own(composed), resolve=True))
    except OmegaConfBaseException as error:
        raise RecurlabError(f"{error.full_key}: {str(error).splitlines()[0]}") from error
    for key in CHOICES:
        _spell_out(values, key)
    parts = (values.get(key) for key in ("data", "cell"))
    names = [part.get("name") if isinstance(part, dict) else part for part in parts]
    name = choices.get("experiment") or "/".join(map(str, names))
    return OmegaConf.create({"experiment": name, **values})


def _spell_out(values: dict[str, Any], key: str) -> None:
    """Write a choice that is given by its bare name as it is written with its options."""
    *above, last = key.split(".")
    for name in above:
        values = values.get(name) if isinstance(values, dict) else None  # type: ignore[assignment]
    if isinstance(values, dict) and isinstance(values.get(last), str):
        values[last] = {"name": values[last]}


def _compose(overrides: list[str]) -> DictConfig:
    parsed = _parse(overrides)
    for override in parsed:
        _check_form(override)
        _check_option(override)
        if override.is_sweep_override():
            raise RecurlabError(f"{override.input_line}: several values make a grid, which needs -m")
    try:
        others, replaced = _set_apart(parsed)
        with _hydra():
            rewritten = [text for override in others for text in _rewrite(override)]
            composed = hydra_compose(PRIMARY, overrides=rewritten, return_hydra_config=True)
        with open_dict(composed):
            for override in replaced:
                whole = isinstance(override.value(), dict)
                OmegaConf.update(composed, override.get_key_element(), override.value(), merge=not whole)
        return composed
    except (HydraException, OmegaConfBaseException) as error:
        raise _explain(error, parsed) from error


def _set_apart(parsed: list[Override]) -> tuple[list[Override], list[Override]]:
    """Return the overrides for Hydra, and those that put another choice in the place of a group's.

    Hydra would merge such a mapping, ``data={name: mine, length: 5}``, into what the group's option and an experiment
    say. What is said of its keys later on belongs to it.
    """
    others: list[Override] = []
    replaced: dict[str, list[Override]] = {}
    for override in parsed:
        key, value = override.get_key_element(), override.value()
        owner = key.partition(".")[0]
        if key in CHOICES and key in groups() and isinstance(value, dict) and "name" in value:
            replaced[key] = [override]
        elif owner in replaced and key != owner:
            replaced[owner].append(override)
        else:
            others.append(override)
    return others, [override for each in replaced.values() for override in each]


def _rewrite(override: Override) -> list[str]:
    """Return an override as Hydra has to be told it, where it would merge mappings or refuse new keys."""
    key, value, text = override.get_key_element(), override.value(), str(override.input_line)
    other_choice = key in CHOICES and isinstance(value, dict) and "name" in value  # not a mixture of both
    if other_choice or (key in WHOLE and isinstance(value, dict)):
        return [f"{key}=null", text]
    if any((key == mapping and isinstance(value, dict)) or key.startswith(f"{mapping}.") for mapping in OPEN):
        return [f"++{text}"]
    return [text]


def _check_form(override: Override) -> None:
    """Raise for what Hydra would take and nothing here would."""
    key = str(override.key_or_group)
    if re.match(r"hydra([./]|$)", key):
        raise RecurlabError(f"{_said([override])}: Hydra's own settings have no effect here")
    if re.match(rf"{APART}([./]|$)", key):
        raise RecurlabError(f"{_said([override])}: is of recurlab {APART}, not of a run")
    if override.package is not None:
        raise RecurlabError(f"{_said([override])}: a choice has its own place, say {key}=...")


def _check_option(override: Override) -> None:
    """Raise the error for a group that has no such option."""
    options = groups().get(str(override.key_or_group))
    value = override.value()
    if options is None or override.is_sweep_override() or override.is_delete() or isinstance(value, dict):
        return
    if value not in options:
        raise unknown(str(override.key_or_group), value, options)


def _explain(error: Exception, overrides: list[Override]) -> RecurlabError:
    """Return the line for an error of Hydra's; where a key is unknown, with the keys that stand beside it."""
    inner = error.__cause__ if isinstance(error.__cause__, OmegaConfBaseException) else None
    key, known = str(inner.full_key if inner else ""), groups()
    value = next((found for o in reversed(overrides) for found in _at(o, key)), None)
    if isinstance(inner, ConfigTypeError):  # one of the two was merged into the other
        wanted = "list" if inner.object_type is list else "mapping"
        return RecurlabError(f"{key}={shown(value)}: must be a {wanted}")
    known_keys = _keys(_base([str(o.input_line) for o in overrides if str(o.key_or_group) in known]))
    if inner is None or key in known_keys:
        return RecurlabError(one_line(error))
    place = key.rpartition(".")[0]
    while place and place not in known_keys:
        place = place.rpartition(".")[0]
    siblings = [name for name in known_keys if name.rpartition(".")[0] == place] + ([] if place else list(known))
    return unknown_key(key, value, siblings, known_keys)


def _at(override: Override, key: str) -> Iterator[Any]:
    """Yield what an override says of a key, if it does: the key itself, or an entry of its mapping."""
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


def _base(choices: list[str]) -> dict[str, Any]:
    """Return the config with nothing but options of groups chosen."""
    with _hydra():
        composed = hydra_compose(PRIMARY, overrides=choices, return_hydra_config=True)
    return cast(dict[str, Any], OmegaConf.to_container(_own(composed)))


def _own(composed: DictConfig) -> DictConfig:
    """Return a composed config without Hydra's part."""
    return OmegaConf.masked_copy(composed, [str(key) for key in composed if key != "hydra"])


def _keys(config: dict[str, Any], place: str = "") -> list[str]:
    """Return the full names of all keys in a config."""
    found = []
    for key, value in config.items():
        found += [f"{place}{key}", *(_keys(value, f"{place}{key}.") if isinstance(value, dict) else [])]
    return found


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


@contextmanager
def _hydra() -> Iterator[None]:
    with initialize_config_dir(str(configs_dir()), version_base="1.3"):
        yield
