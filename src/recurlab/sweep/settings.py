"""The keys of `recurlab sweep`, their defaults and checks; imports neither torch nor Optuna."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from recurlab.completion import complete as complete_train
from recurlab.errors import RecurlabError, check_choice, check_integer, one_line, unknown, unknown_key
from recurlab.schema import read_yaml
from recurlab.sources import check_unambiguous, files

SAMPLERS = ("tpe", "random", "grid", "nsgaii")
PRUNERS = ("none", "median", "halving", "hyperband")
DATABASES = ("sqlite:///", "postgresql", "mysql")  # how a storage begins
MINE = re.compile(r"sweep(\.[^=]*)?=")  # words of the sweep itself
CHOICES = {"sampler": SAMPLERS, "pruner": PRUNERS}


@dataclass(frozen=True)
class SweepSettings:
    """The keys of a sweep; configs/sweep/default.yaml says what each means."""

    space: dict[str, Any] = field(default_factory=dict)
    name: str | None = None
    storage: str | None = None
    sampler: str = "tpe"
    seed: int = 0
    pruner: str = "none"
    trials: int = 20
    workers: int = 1
    retries: int = 2
    heartbeat: int = 15

    def __post_init__(self) -> None:
        for key, allowed in CHOICES.items():
            check_choice(f"sweep.{key}", getattr(self, key), allowed)
        for key in ("trials", "workers", "heartbeat"):
            check_integer(f"sweep.{key}", getattr(self, key))
        check_integer("sweep.retries", self.retries, low=0)
        check_integer("sweep.seed", self.seed, low=0, high=2**32 - 1)
        if self.name is not None and not (
            isinstance(self.name, str) and re.fullmatch(r"\w[\w.-]*(/\w[\w.-]*)*", self.name)
        ):
            raise RecurlabError(f"sweep.name={self.name!r}: must be of letters, digits and _ . - /, as lr/second")
        if self.storage is not None and not str(self.storage).startswith(DATABASES):
            raise RecurlabError(
                f"sweep.storage={self.storage!r}: must be null or a database, as sqlite:///sweeps.db, "
                "postgresql://user@host/name or mysql://user@host/name"
            )


def parse_sweep(words: Sequence[str]) -> tuple[SweepSettings, list[str]]:
    """Return a sweep's settings, and the words that are of the training.

    Args:
        words: of a command line; ``sweep=<name>`` and ``sweep.<key>=<value>`` are of the sweep.

    Raises:
        RecurlabError: for an unknown key or name, or a value out of range.
    """
    name, given = "default", dict[str, Any]()
    for word in words:
        if not MINE.match(word):
            continue
        key, value = word.partition("=")[0].removeprefix("sweep").removeprefix("."), _value(word)
        if not key:
            name = value
        elif key.startswith("space."):
            given.setdefault("space", {})[key.removeprefix("space.")] = value
        elif key == "space":
            given["space"] = value
        else:
            given[key] = value
    if name not in sweep_names():
        raise unknown("sweep", name, sweep_names())
    check_unambiguous("sweep", name)
    known = [f"sweep.{item.name}" for item in fields(SweepSettings)]
    values = {**_read("default"), **_read(name), **given}
    for key, value in values.items():
        if f"sweep.{key}" not in known:
            raise unknown_key(f"sweep.{key}", value, known)
    return SweepSettings(**values), [word for word in words if not MINE.match(word)]


def sweep_names() -> list[str]:
    """Return the sweeps there are: the files of configs/sweep/, the package's and the user's."""
    return list(files("sweep"))


def sweep_usage() -> str:
    """Return the keys, their defaults and what they mean, for --help."""
    lines = files("sweep")["default"].read_text().splitlines()[1:]
    return "\n".join(
        [
            "the sweep's keys and their defaults; further words are those of recurlab train:",
            f"  sweep={' | '.join(sweep_names())}",
            *(f"  sweep.{line}" for line in lines),
        ]
    )


def complete_sweep(word: str, before: Sequence[str] = ()) -> list[str]:
    """Return the completions of a command line's last word: keys of sweep and training, or values.

    Args:
        word: the last one, as far as it is written.
        before: the words before it.
    """
    before = [one for one in before if not MINE.match(one)]
    key, equals, start = word.partition("=")
    if not equals:
        keys = ["sweep=", *(f"sweep.{item.name}=" for item in fields(SweepSettings))]
        return [*complete_train(word, before), *(name for name in keys if name.startswith(word))]
    if key == "sweep" or key.startswith("sweep."):
        allowed = sweep_names() if key == "sweep" else CHOICES.get(key.removeprefix("sweep."), ())
        return [f"{key}={name}" for name in allowed if name.startswith(start)]
    return complete_train(word, before)


def _read(name: str) -> dict[str, Any]:
    """Return the values in a file of configs/sweep/."""
    path = files("sweep")[name]
    try:
        content: Any = OmegaConf.to_container(read_yaml(path), resolve=True)
    except OmegaConfBaseException as error:
        raise RecurlabError(f"{path}: can't be read: {one_line(error)}") from error
    return {str(key): value for key, value in content.items()}


def _value(word: str) -> Any:
    """Return the value of a ``key=value`` word, in the grammar of the other overrides."""
    try:
        override = OverridesParser.create().parse_override(word)
        if override.is_sweep_override():
            raise RecurlabError(f"{word}: must be one value; several of a key in the space are [a,b]")
        return override.value()
    except HydraException as error:
        raise RecurlabError(f"{word!r}: can't be read; special characters need quotes: 'key=\"value\"'") from error
