"""Which backend runs a call, and why each other one does not."""

from dataclasses import dataclass
from importlib import import_module
from types import ModuleType

from recurlab.backends import BACKENDS
from recurlab.backends.call import Call
from recurlab.errors import RecurlabError, check_choice

MODULES = {name: import_module(path) for name, path in BACKENDS.items()}


@dataclass(frozen=True)
class Choice:
    """The backend taken for a call, and a line of reason for each one that was not."""

    name: str
    module: ModuleType
    passed_over: dict[str, str]


def check(name: str) -> None:
    """Raise unless `name` is auto or a backend."""
    check_choice("backend", name, ("auto", *BACKENDS))


def choose(name: str, call: Call) -> Choice:
    """Return the fastest backend that can serve a call, or the one named.

    Raises:
        RecurlabError: if a backend asked for by its name can't serve the call; it never falls back to another.
    """
    check(name)
    refusals = {candidate: module.supports(call) for candidate, module in MODULES.items()}
    able = [candidate for candidate, reason in refusals.items() if reason is None]
    taken = able[0] if name == "auto" else name
    if taken not in able:
        raise RecurlabError(f"backend={name!r}: {refusals[taken]}; {', '.join(able)} can")
    idle = f"slower than {taken}" if name == "auto" else f"backend={name!r} was asked for"
    passed_over = {candidate: reason or idle for candidate, reason in refusals.items() if candidate != taken}
    return Choice(taken, MODULES[taken], passed_over)
