"""The keys of `recurlab bench`, their defaults and checks; does not import torch."""

import re
import sys
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, fields
from itertools import product
from typing import Any

from recurlab.backends import BACKENDS
from recurlab.cells import CELLS, RECURRENCES
from recurlab.errors import RecurlabError, check_choice, check_integer, one_line, unknown, unknown_key
from recurlab.plugins import import_plugins

# What each option changes of a layer; masks and resets are arguments of the call, and `reset` one
# of the cell.
OPTIONS: dict[str, dict[str, Any]] = {
    "none": {},
    "zoneout": {"zoneout": 0.1},
    "mask": {},
    "resets": {},
    "recurrent_dropout": {"recurrent_dropout": 0.1},
    "bidirectional": {"bidirectional": True},
    "reset_before": {"reset": "before"},
}
# Candidates that are no backend: torch's own layer, torch.compile of the eager loop, other packages,
# and torch.compile of torch's layer. Who they are stands in the module `others`.
OTHERS = (
    "torch", "compile", "jax", "onnxruntime", "keras", "flashrnn", "xlstm", "torchrl", "haste_pytorch", "torch.compile",
)  # fmt: skip
DTYPES = ("float32", "float64", "bfloat16", "float16")
DEVICES = ("cpu", "cuda")
FLAGS = {"true": True, "false": False}
FLAG_KEYS = ("tf32", "input_grad", "alone", "step")
LOWEST = {"heads": 1, "repeats": 1, "seconds": 0, "limit": 0, "threads": 0, "busy": 0}


@dataclass(frozen=True)
class Shape:
    """T steps, B samples, H units and I features."""

    steps: int
    batch: int
    hidden: int
    features: int

    def __str__(self) -> str:
        return f"{self.steps}x{self.batch}x{self.hidden}x{self.features}"


SHAPES = {
    "A": Shape(784, 32, 128, 64),
    "B": Shape(150, 64, 512, 512),
    "C": Shape(100, 32, 256, 256),
    "D": Shape(28, 64, 128, 28),
    "E": Shape(1000, 1, 64, 8),
    "F": Shape(5, 32, 128, 64),
}


def shape_name(shape: str) -> str:
    """Return a shape, given as TxBxHxI, behind its name if it has one."""
    return "".join(f"{name} " for name, known in SHAPES.items() if str(known) == shape) + shape


@dataclass(frozen=True)
class BenchSettings:
    """The values of all keys; the fields' names are the keys."""

    cells: tuple[str, ...] = ("gru", "lstm", "indrnn", "indy_gru")
    recurrences: tuple[str, ...] = ()
    heads: int = 8
    backends: tuple[str, ...] = ()
    shapes: tuple[Shape, ...] = (SHAPES["A"], SHAPES["B"])
    options: tuple[str, ...] = ()
    dtype: str = "float32"
    device: str = "cpu"
    tf32: bool = False
    input_grad: bool = False
    alone: bool = False
    step: bool = False
    repeats: int = 7
    seconds: int = 0
    limit: int = 60
    threads: int = 0
    busy: int = 0
    output: str = "experiments/speed"
    plugins: tuple[str, ...] = ()


HELP = {
    "cells": "gru,lstm,indrnn,indy_gru   any cells or presets",
    "recurrences": "     dense, diagonal, block; empty: each cell's own",
    "heads": "8   of a block recurrence",
    "backends": f"     empty: torch and every backend that serves the call; only by name {', '.join(OTHERS[1:])}",
    "shapes": f"A,B   {', '.join(f'{name} = {shape}' for name, shape in SHAPES.items())}; or TxBxHxI, 5/28x1/8x128x64",
    "options": f"     {', '.join(OPTIONS)}: a case each, beside the plain one",
    "dtype": f"float32   {', '.join(DTYPES)}",
    "device": "cpu   cpu, cuda",
    "tf32": "false   true: a GPU may multiply float32 matrices in TF32, torch's layers too",
    "input_grad": "false   true: the input needs a gradient too, as in a layer on top of another",
    "alone": "false   true: also the time of the recurrence alone, without the input projection's",
    "step": "false   true: also one step of a sequence at a time, as of an agent, beside torch's cells",
    "repeats": "7   timings of each candidate, in turns; medians are reported",
    "seconds": "0   after which a shape's timings end, with at least three of each candidate; 0: never",
    "limit": "60   seconds in which another package is to be ready, compiled and checked; 0: any time",
    "threads": "0   0: as many as torch takes",
    "busy": "0   processes that keep a core busy meanwhile",
    "output": "experiments/speed   the folder of <processor>.csv and speed-<processor>.png",
    "plugins": "     modules with cells of your own",
}


def bench_usage() -> str:
    """Return the keys, their defaults and what they mean, for --help."""
    rows = [(key, *text.partition("   ")[::2]) for key, text in HELP.items()]
    lines = [f"  {f'{key}={usual.strip()}':34}{meaning.strip()}" for key, usual, meaning in rows]
    return "\n".join(["keys and their defaults:", *lines])


def parse_bench(words: Iterable[str]) -> BenchSettings:
    """Return the settings of a command line's ``key=value`` words.

    Raises:
        RecurlabError: for an unknown key, name or a value out of range.
    """
    known = [field.name for field in fields(BenchSettings)]
    texts = {key: text.strip() for key, text in _texts(words, known).items()}
    import_plugins(_names(texts.get("plugins", "")))
    return BenchSettings(**{key: _value(key, text) for key, text in texts.items()})


def given(words: Iterable[str], defaults: dict[str, str]) -> dict[str, str]:
    """Return the text of each key of a command by its ``key=value`` words.

    Raises:
        RecurlabError: for an unknown key.
    """
    return defaults | _texts(words, defaults)


def _texts(words: Iterable[str], known: Collection[str]) -> dict[str, str]:
    found = {}
    for word in words:
        key, equals, text = word.partition("=")
        if not key or not equals:
            raise RecurlabError(f"{word!r}: an argument has the form key=value")
        if key not in known:
            raise unknown_key(key, text, known)
        found[key] = text
    return found


def command(name: str, usage: str, run: Callable[[list[str]], int], words: list[str]) -> int:
    """Run a command or show its usage; return its exit code, 2 after a one-line error."""
    if {"-h", "--help"} & set(words):
        print(usage, end="")
        return 0
    try:
        return run(words)
    except RecurlabError as error:
        print(f"{name}: {one_line(error)}", file=sys.stderr)
        return 2


def seconds_of(key: str, text: str) -> float:
    """Return a number of seconds; raise RecurlabError unless it is more than 0."""
    if not re.fullmatch(r"\d+(\.\d+)?", text) or float(text) == 0:
        raise RecurlabError(f"{key}={text!r}: must be a number of seconds above 0")
    return float(text)


def complete_bench(word: str) -> list[str]:
    """Return the completions of the last word of a command line: keys, or names in a list."""
    key, equals, text = word.partition("=")
    if not equals:
        return sorted(f"{field.name}=" for field in fields(BenchSettings) if field.name.startswith(key))
    before, comma, last = text.rpartition(",")
    return [f"{key}={before}{comma}{name}" for name in _choices().get(key, ()) if name.startswith(last)]


def _choices() -> dict[str, list[str]]:
    return {
        "cells": list(CELLS),
        "recurrences": list(RECURRENCES),
        "backends": [*BACKENDS, *OTHERS],
        "options": list(OPTIONS),
        "shapes": list(SHAPES),
        "dtype": list(DTYPES),
        "device": list(DEVICES),
        **{key: list(FLAGS) for key in FLAG_KEYS},
    }


def _value(key: str, text: str) -> Any:
    if key in LOWEST:
        number: object = int(text) if re.fullmatch(r"[+-]?\d+", text) else text
        check_integer(key, number, low=LOWEST[key])
        return number
    names = _names(text)
    if key in ("cells", "shapes") and not names:
        raise RecurlabError(f"{key}={text!r}: must name at least one of {', '.join(_choices()[key])}")
    if key == "shapes":
        return tuple(dict.fromkeys(shape for name in names for shape in _shapes(name)))
    if key == "plugins":
        return names
    if key == "output":
        if not text:
            raise RecurlabError("output='': must be a folder")
        return text
    single = key in ("dtype", "device", *FLAG_KEYS)
    for name in [text] if single else names:
        check_choice(key, name, _choices()[key])
    return FLAGS[text] if key in FLAG_KEYS else text if single else names


def _names(text: str) -> tuple[str, ...]:
    """Return the names in a list written as a,b or [a,b], each once."""
    inner = text[1:-1] if text.startswith("[") and text.endswith("]") else text
    return tuple(dict.fromkeys(name.strip() for name in inner.split(",") if name.strip()))


def _shapes(text: str) -> list[Shape]:
    """Return the shape of a name or of TxBxHxI, each of which may be several sizes, as in 5/28x1/8x128x64."""
    if text in SHAPES:
        return [SHAPES[text]]
    sizes = r"(\d+(?:/\d+)*)"
    found = re.fullmatch("x".join([sizes] * 4), text)
    if found is None:
        raise unknown("shapes", text, [*SHAPES, "TxBxHxI"])
    several = [[int(size) for size in part.split("/")] for part in found.groups()]
    if any(0 in part for part in several):
        raise RecurlabError(f"shapes={text!r}: each of TxBxHxI must be at least 1")
    return [Shape(*each) for each in product(*several)]
