"""Explicit tables from the names in a config to the code behind them, resolved only when first used."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from importlib import import_module
from importlib.metadata import EntryPoint, EntryPoints, entry_points
from typing import Any, TypeVar

from recurlab.errors import RecurlabError, one_line, unknown

T = TypeVar("T")


@cache
def installed() -> EntryPoints:
    """Return the entry points for recurlab of all installed packages; finding them takes 20 ms, so they are kept."""
    found = entry_points()
    groups = [group for group in found.groups if group.startswith("recurlab.")]
    return EntryPoints([point for group in groups for point in found.select(group=group)])


class Table(Mapping[str, Any]):
    """Names of one kind of thing, each standing for an object or for the ``"module:attribute"`` to import it from.

    Nothing is imported before a name is looked up, so a config can be checked against the names
    without torch. Other packages add names by `register` or by an entry point.

    Args:
        kind: what an error calls an entry.
        entries: the names, and what they stand for.
        groups: of entry points that add names; None is ``recurlab.<kind>s``.
    """

    def __init__(self, kind: str, entries: Mapping[str, Any], groups: Sequence[str] | None = None) -> None:
        self.kind = kind
        self._groups = groups or (f"recurlab.{kind}s",)
        self._entries: dict[str, Any] = dict(entries)

    def __getitem__(self, name: str) -> Any:
        found = self._entries.get(name) or self._plugins().get(name)
        if found is None:
            raise unknown(self.kind, name, self)
        if isinstance(found, EntryPoint):
            found = self._load(found)
        elif isinstance(found, str):
            module, _, attribute = found.partition(":")
            found = getattr(import_module(module), attribute)
        self._entries[name] = found
        return found

    def __iter__(self) -> Iterator[str]:
        return iter(sorted({*self._entries, *self._plugins()}))

    def __len__(self) -> int:
        return len(list(iter(self)))

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and (name in self._entries or name in self._plugins())

    def check(self, key: str, name: object) -> None:
        """Raise the error for `key` unless `name` is in the table."""
        if name not in self:
            raise unknown(key, name, self)

    def register(self, name: str) -> Callable[[T], T]:
        """Return a decorator that enters an object under `name`; a name already taken is an error."""
        if not isinstance(name, str) or not name.isidentifier():
            raise RecurlabError(f"{self.kind}={name!r}: a registered name must be an identifier, like my_{self.kind}")

        def enter(thing: T) -> T:
            known = self._entries.get(name)
            if known is not None and _origin(known) != _origin(thing):
                raise RecurlabError(f"{self.kind}={name!r}: this name is taken, choose another")
            self._entries[name] = thing
            return thing

        return enter

    def _plugins(self) -> dict[str, EntryPoint]:
        return {point.name: point for group in self._groups for point in installed().select(group=group)}

    def _load(self, point: EntryPoint) -> Any:
        try:
            return point.load()
        except Exception as error:  # whatever another package's module does, it is said in a line
            raise RecurlabError(
                f"{self.kind}={point.name!r}: the entry point {point.value} can't be imported: {one_line(error)}"
            ) from error


def _origin(thing: Any) -> tuple[Any, Any]:
    """Return module and name of a class, which are the same when a notebook cell defines it a second time."""
    return getattr(thing, "__module__", None), getattr(thing, "__qualname__", thing)
