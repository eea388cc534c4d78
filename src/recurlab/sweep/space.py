"""What is searched: the keys of a config, and the values that each may take."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from itertools import product
from math import floor
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException

from recurlab.errors import RecurlabError, check_number, unknown_key
from recurlab.training.job import WITHOUT_EFFECT

Value = str | int | float


@dataclass(frozen=True)
class Choices:
    """A list of values, each written as after ``key=``."""

    key: str
    words: tuple[str, ...]

    @property
    def values(self) -> tuple[Value, ...]:
        """All of them."""
        return self.words

    @property
    def ends(self) -> tuple[Value, ...]:
        """The values that must be valid for all to be."""
        return self.words

    def word(self, value: Value) -> str:
        """Return the override of a config that gives it a value."""
        return f"{self.key}={value}"

    def written(self) -> str:
        """Return the values as they can be given in a space."""
        return f"[{', '.join(self.words)}]"


@dataclass(frozen=True)
class Range:
    """The numbers from `low` to `high`, both included.

    Only whole ones with `whole`; only those `step` apart with a step; with `log`, drawn uniformly
    in the logarithm.
    """

    key: str
    low: float
    high: float
    log: bool = False
    step: float | None = None
    whole: bool = False

    @property
    def values(self) -> tuple[Value, ...]:
        """All of them, for a grid; RecurlabError if there is no step."""
        step = self.step or (1 if self.whole else None)
        if step is None:
            raise RecurlabError(
                f"sweep.space.{self.key}={self.written()}: sweep.sampler='grid' needs a step, or a list of choices"
            )
        count = floor((self.high - self.low) / step + 1e-9) + 1
        return tuple(self._clean(self.low + index * step) for index in range(count))

    @property
    def ends(self) -> tuple[Value, ...]:
        """The values that must be valid for all to be."""
        return self._clean(self.low), self._clean(self.high)

    def word(self, value: Value) -> str:
        """Return the override of a config that gives it a value."""
        return f"{self.key}={self._clean(float(value))}"

    def written(self) -> str:
        """Return the values as they can be given in a space."""
        low, high = self.ends
        step = "" if self.step is None else f", step: {self._clean(self.step)}"
        return f"{{low: {low}, high: {high}{', log: true' if self.log else ''}{step}}}"

    def _clean(self, value: float) -> Value:
        if self.whole:
            return round(value)
        return float(f"{value:.12g}") if self.step else float(value)  # 0.30000000000000004 is no step of 0.1


Parameter = Choices | Range


def parse_space(space: object) -> tuple[Parameter, ...]:
    """Return the parameters of ``sweep.space``.

    Raises:
        RecurlabError: for one that is neither a list of choices nor a range, or an empty one.
    """
    if not isinstance(space, Mapping) or not space:
        raise RecurlabError(
            f"sweep.space={space!r}: must have a key of the config at least, as "
            "{optimizer.lr: {low: 1e-4, high: 1e-2, log: true}, cell: [gru, lstm]}"
        )
    return tuple(_parameter(str(key), given) for key, given in space.items())


def points(space: tuple[Parameter, ...]) -> list[tuple[Value, ...]]:
    """Return the points of a grid: all combinations of values."""
    return list(product(*(parameter.values for parameter in space)))


def _parameter(key: str, given: object) -> Parameter:
    where = f"sweep.space.{key}={given!r}"
    if not re.fullmatch(r"\w+([./]\w+)*", key):
        raise RecurlabError(f"{where}: must be a key of the config, or a group")
    if (key in WITHOUT_EFFECT and key != "data.dir") or key.startswith(("logger.", "launcher.")):
        raise RecurlabError(f"{where}: makes no difference to what a run arrives at")
    if isinstance(given, Mapping) and "choices" in given:
        if len(given) > 1:
            raise RecurlabError(f"{where}: choices have no other keys beside them")
        given = given["choices"]
    if isinstance(given, list):
        words = tuple(dict.fromkeys(written(value) for value in given))
        if not words:
            raise RecurlabError(f"{where}: must have a choice at least")
        return Choices(key, words)
    if not isinstance(given, Mapping):
        raise RecurlabError(f"{where}: must be a list of choices, or a range as {{low: 1, high: 8}}")
    return _range(key, given, where)


def _range(key: str, given: Mapping[Any, Any], where: str) -> Range:
    known = [field.name for field in fields(Range) if field.name not in ("key", "whole")]
    for name, value in given.items():
        if name not in known:
            at = f"sweep.space.{key}"
            raise unknown_key(f"{at}.{name}", value, [f"{at}.{one}" for one in (*known, "choices")])
    for name in ("low", "high"):
        check_number(f"sweep.space.{key}.{name}", given.get(name))
    log, step, low, high = given.get("log", False), given.get("step"), given["low"], given["high"]
    if not isinstance(log, bool):
        raise RecurlabError(f"sweep.space.{key}.log={log!r}: must be true or false")
    if step is not None:
        check_number(f"sweep.space.{key}.step", step, above=0)
    whole = all(isinstance(value, int) for value in (low, high, *(() if step is None else (step,))))
    if not low < high:
        raise RecurlabError(f"{where}: low must be less than high")
    if log and (step is not None or low <= 0):
        raise RecurlabError(f"{where}: log needs a low above 0, and no step")
    if step is not None:  # the last one that the steps reach
        high = low + floor((high - low) / step + 1e-9) * step
    return Range(key, low, high, log, step, whole)


def written(value: object) -> str:
    """Return a value as written after ``key=``, so that it is read as the same value."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return f"[{','.join(map(written, value))}]"
    if isinstance(value, Mapping):
        return f"{{{','.join(f'{key}:{written(part)}' for key, part in value.items())}}}"
    if not isinstance(value, str):
        return str(value)
    try:
        plain = OverridesParser.create().parse_override(f"key={value}")
        if not plain.is_sweep_override() and plain.value() == value and value == value.strip():
            return value
    except HydraException:
        pass
    return "'" + value.replace("'", "\\'") + "'"
