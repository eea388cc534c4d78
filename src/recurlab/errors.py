"""The one error that users meet, the checks that raise it, and the other ways in which a run ends early."""

import sys
from collections.abc import Iterable
from difflib import get_close_matches
from numbers import Integral, Real
from pathlib import Path
from signal import Signals

INT64 = 2**63 - 1
SIZE = 2**48  # the largest of a layer or a batch: a few times as much still fits into 64 bits
LARGEST = 1e30  # of a number: results computed from it have to fit into float32
SHOWN = 120  # characters of a value in an error


class RecurlabError(ValueError):
    """Bad input, said in one line: the key or argument, its value, what is allowed, and the nearest valid name."""


class Ending(Exception):
    """A way for a run to end that is no error."""


class Preempted(Ending):
    """A run was told by a signal to end, and has saved its state.

    Args:
        signum: the signal's number.
        where: how far the run was, for the message.

    Attributes:
        hint: how to continue it.
    """

    def __init__(self, signum: int, where: str) -> None:
        self.hint = "continue it with resume=auto, or resume=<its directory>"
        super().__init__(f"ended by {Signals(signum).name} {where}")
        self.signum = signum


class Pruned(Ending):
    """A run was ended because its results promise less than those of others."""


def say(text: object) -> None:
    """Write one line to the standard error, in one piece: processes side by side share it."""
    sys.stderr.write(f"recurlab: {one_line(text)}\n")


def one_line(text: object) -> str:
    """Return `text` in one line: white space becomes single blanks, and control characters are escaped."""
    folded = " ".join(str(text).split())
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in folded)


def shown(value: object) -> str:
    """Return the `repr` of a value, cut where it is long."""
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # a number of thousands of digits, or lists in lists in lists
        text = f"<{type(value).__name__}>"
    return text if len(text) <= SHOWN else f"{text[: SHOWN - 1]}…"


def did_you_mean(name: object, names: Iterable[str], *, cutoff: float = 0.5, within: Path | None = None) -> str:
    """Return the words that propose the known name most similar to an unknown one, "" where none is similar.

    Args:
        name: the unknown one.
        names: the known ones.
        cutoff: how similar two names must be, from 0 to 1.
        within: a folder, if `names` are its files and are to be shown as paths.
    """
    nearest = get_close_matches(str(name), list(names), n=1, cutoff=cutoff)
    return "".join(f"; did you mean {(str(within / found) if within else found)!r}?" for found in nearest)


def unknown(what: str, name: object, allowed: Iterable[str]) -> RecurlabError:
    """Return the error for a name that is not among `allowed`, e.g. ``cell='gruu'``."""
    names = list(allowed)
    return RecurlabError(f"{what}={shown(name)}: allowed are {', '.join(names) or 'none'}{did_you_mean(name, names)}")


def unknown_key(key: str, value: object, siblings: Iterable[str], elsewhere: Iterable[str] = ()) -> RecurlabError:
    """Return the error for an unknown key of a config.

    Args:
        key: the full key, with dots.
        value: what was given.
        siblings: the full keys that are allowed in its place.
        elsewhere: full keys of other parts; one with the same last name, or a similar one, is
            proposed too.
    """
    names = sorted(set(siblings))
    last = key.rpartition(".")[2]
    namesakes = [name for name in elsewhere if name.rpartition(".")[2] == last]
    hint = f"; did you mean {namesakes[0]!r}?" if namesakes else did_you_mean(key, [*names, *elsewhere])
    return RecurlabError(f"{key}={shown(value)}: unknown key; allowed are {', '.join(names) or 'none'}{hint}")


def unknown_option(
    key: str, value: object, owner: str, names: Iterable[str], elsewhere: Iterable[str] = ()
) -> RecurlabError:
    """Return the error for an option that its owner does not have, e.g. ``cell.rest='after'`` of ``cell 'gru'``.

    Args:
        key: the full key, or an argument's name.
        value: what was given.
        owner: whose option it would be.
        names: the options that it has, as the last part of a key.
        elsewhere: full keys of other owners; one of them is proposed if it is spelt almost alike,
            or if no option of this owner is similar.
    """
    place, dot, last = key.rpartition(".")
    own, others = list(names), list(elsewhere)
    close = get_close_matches(last, [*own, *others], n=1, cutoff=0.9)
    near = close or get_close_matches(last, own, n=1) or [name for name in others if name.rpartition(".")[2] == last]
    hint = f"; did you mean {(f'{place}{dot}' if near[0] in own else '') + near[0]!r}?" if near else ""
    hint = hint or did_you_mean(last, others, cutoff=0.8)
    what = "unknown key" if dot else "unknown argument"
    return RecurlabError(f"{key}={shown(value)}: {what}; {owner} has: {', '.join(own) or 'no options'}{hint}")


def check_choice(key: str, value: object, allowed: Iterable[str]) -> None:
    """Raise unless `value` is one of `allowed`."""
    names = list(allowed)
    if value not in names:
        raise unknown(key, value, names)


def check_instance(key: str, value: object, kind: type) -> None:
    """Raise unless `value` is None or an instance of `kind`."""
    if value is not None and not isinstance(value, kind):
        raise RecurlabError(f"{key}={shown(value)}: must be an instance of {kind.__name__}")


def check_integer(key: str, value: object, *, low: int = 1, high: int | None = None) -> None:
    """Raise unless `value` is a whole number from `low` to `high`; None stands for the largest of 64 bits."""
    whole = isinstance(value, Integral) and not isinstance(value, bool)
    most = INT64 if high is None else high
    if not whole or not low <= int(value) <= most:  # type: ignore[call-overload]
        bounded = high is not None or (whole and int(value) > most)  # type: ignore[call-overload]
        bound = f" and at most {most}" if bounded else ""
        raise RecurlabError(f"{key}={shown(value)}: must be a whole number of at least {low}{bound}")


def check_number(
    key: str, value: object, *, above: float | None = None, low: float | None = None, high: float | None = None
) -> None:
    """Raise unless `value` is a number > `above`, >= `low` and <= `high`; a bound of None is open."""
    bounds = {"greater than": above, "at least": low, "at most": high}
    wanted = " and ".join(f"{word} {bound:g}" for word, bound in bounds.items() if bound is not None) or "finite"
    try:
        number = float("nan") if isinstance(value, bool) or not isinstance(value, Real) else float(value)
    except OverflowError:  # a whole number
        number = float("inf")
    fits = (
        abs(number) < float("inf")
        and (above is None or number > above)
        and (low is None or number >= low)
        and (high is None or number <= high)
    )
    if fits and abs(number) > LARGEST:
        fits, wanted = False, f"{wanted}, of a size of at most {LARGEST:g}"
    if not fits:
        raise RecurlabError(f"{key}={shown(value)}: must be a number, {wanted}")


def path_of(key: str, value: str) -> Path:
    """Return the path that a key names; a path that no file can have is an error.

    ``~/`` and ``~user/`` stand for home folders, unless a file of the name ``~user`` exists.
    """
    try:
        path = Path(value)
        path.exists()
        if value == "~" or value.startswith("~/") or (value.startswith("~") and not Path(path.parts[0]).exists()):
            path = _at_home(path)
    except (OSError, RuntimeError, ValueError) as error:  # too long a name, a user that is not there, a NUL
        reason = error.strerror if isinstance(error, OSError) else error
        raise RecurlabError(f"{key}={shown(value)}: there can be no such folder or file: {reason}") from error
    return path


def _at_home(path: Path) -> Path:
    try:
        return path.expanduser()
    except RuntimeError:
        if len(path.parts) > 1:
            raise
        return path  # a file that is called so, as ~notes.csv


def check_probability(key: str, value: object) -> None:
    """Raise unless `value` is a number in [0, 1]."""
    check_number(key, value, low=0, high=1)
