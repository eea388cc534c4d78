"""ListOps: nested operations on lists of digits (Nangia and Bowman, arXiv 1804.06028)."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from recurlab.data.cache import cached
from recurlab.data.data import SPLITS, GeneratedData, Ragged, RaggedData
from recurlab.data.progress import track
from recurlab.errors import RecurlabError, check_integer

Ints = NDArray[np.int64]

TOKENS = (*"0123456789", "[MIN", "[MAX", "[MED", "[SM", "]")
OPERATORS = TOKENS[10:14]
NESTED = 0.25  # probability that an argument is a list
VERSION = "1"  # of the code; a new one makes cached data stale
TREES = 2_000  # trees that are grown at a time
PATIENCE = 100  # times without a new sequence before drawing ends with an error


@dataclass(frozen=True)
class ListOps(GeneratedData, RaggedData):
    """Inputs (T,): a list such as ``[MAX 2 9 [MIN 4 7 ] 0 ]``, a symbol for each token; the target is its value.

    The symbols are indices of `TOKENS`: digits, ``[MIN``, ``[MAX``, ``[MED``, ``[SM`` (the sum
    modulo 10) and ``]``. The parentheses with which the original files mark a binary tree are left
    out; the brackets, which say the same, stay. The median of an even number of arguments is the
    mean of the two in the middle, cut to a whole number. A list has 2 to `max_args` arguments, each
    of them a list with probability 1/4 and else a digit, as in Long Range Arena (arXiv 2011.04006);
    sequences are drawn until their length is in the range. No sequence is in two splits, or twice
    in one.

    The data are the same in every run, whatever its seed; they are made once and kept. With a
    larger `train_size` the other splits stay as they are. Long Range Arena has 96,000 / 2,000 /
    2,000 sequences of 501 to 1,999 tokens.

    Attributes:
        min_length, max_length: tokens of a sequence.
        max_depth: of the tree, whose root has depth 1: at most `max_depth` - 1 lists are nested.
        max_args: arguments of an operator.
        data_seed: what the data are drawn with.
    """

    eval_batch_size: int = 100
    min_length: int = 20
    max_length: int = 200
    max_depth: int = 10
    max_args: int = 10
    data_seed: int = 0
    train_size: int = 20_000
    valid_size: int = 2_000
    test_size: int = 2_000

    problem: ClassVar = "classification"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_integer("data.min_length", self.min_length, low=4)
        check_integer("data.max_length", self.max_length, low=4, high=2048)
        check_integer("data.max_depth", self.max_depth, low=2, high=100)
        check_integer("data.max_args", self.max_args, low=2, high=100)
        check_integer("data.data_seed", self.data_seed, low=0)
        if self.min_length > self.max_length:
            raise RecurlabError(f"data.min_length={self.min_length}: must be at most max_length={self.max_length}")
        longest = 1
        for _ in range(self.max_depth - 1):
            longest = 2 + self.max_args * longest
        if self.min_length > longest:
            limits = f"max_depth={self.max_depth} and max_args={self.max_args}"
            raise RecurlabError(f"data.min_length={self.min_length}: with {limits} no sequence has more than {longest}")

    @property
    def input_size(self) -> int:
        """15 tokens."""
        return len(TOKENS)

    @property
    def output_size(self) -> int:
        """10 digits."""
        return 10

    @property
    def symbols(self) -> bool:
        """True: the inputs are symbols."""
        return True

    @property
    def chance(self) -> dict[str, float]:
        """One in ten; the digits are not equally frequent, so always answering the most frequent one does better."""
        return {"accuracy": 0.1}

    def split(self, name: str, seed: int, epoch: int) -> Ragged:
        """Return `name`_size sequences.

        Raises:
            RecurlabError: if there are fewer different ones.
        """
        kept = cached(f"listops {VERSION} {np.__version__} {self._identity()}", self._make)
        tokens, lengths, values = (kept[f"{name}_{part}"] for part in ("tokens", "lengths", "values"))
        return Ragged(tokens, lengths.astype(np.int64), values.astype(np.int64))

    def _identity(self) -> str:
        names = ("min_length", "max_length", "max_depth", "max_args", "data_seed", *(f"{s}_size" for s in SPLITS))
        return " ".join(f"{name}={getattr(self, name)}" for name in names)

    def _make(self) -> dict[str, NDArray[np.generic]]:
        arrays: dict[str, NDArray[np.generic]] = {}
        known: set[bytes] = set()
        for name in reversed(SPLITS):  # training last: its size changes no other split
            chosen = self._choose(name, known)
            arrays[f"{name}_tokens"] = np.concatenate([tokens for tokens, _ in chosen])
            arrays[f"{name}_lengths"] = np.array([len(tokens) for tokens, _ in chosen])
            arrays[f"{name}_values"] = np.array([value for _, value in chosen])
        return arrays

    def _choose(self, name: str, known: set[bytes]) -> list[tuple[NDArray[np.int8], int]]:
        """Return the sequences of a split, none of which is `known`, and add them there."""
        size = self.size(name)
        drawn = self._draw(np.random.default_rng((self.data_seed, SPLITS.index(name))), known)
        chosen = [found for _, found in zip(track(range(size), f"ListOps, {name}"), drawn, strict=False)]
        if len(chosen) < size:
            lengths = f"min_length={self.min_length} and max_length={self.max_length}"
            raise RecurlabError(f"data.{name}_size={size}: only {len(chosen)} new sequences were found with {lengths}")
        return chosen

    def _draw(self, rng: np.random.Generator, known: set[bytes]) -> Iterator[tuple[NDArray[np.int8], int]]:
        """Give sequences with their values until no new one turns up any more."""
        vain = 0
        while vain < PATIENCE:
            vain += 1
            for tokens, value in _write(*_grow(rng, self.max_depth, self.max_args, self.max_length)):
                if len(tokens) < self.min_length:
                    continue
                key = hashlib.blake2b(tokens.tobytes(), digest_size=16).digest()
                if key not in known:
                    known.add(key)
                    vain = 0
                    yield tokens, value


class _Level(NamedTuple):
    """The nodes of one depth, those of a list side by side: digits, and lists which have `args` nodes of the next."""

    symbols: Ints  # the digit, or the token of the operator
    args: Ints  # 0 for a digit


def _grow(
    rng: np.random.Generator, max_depth: int, max_args: int, max_length: int
) -> tuple[list[_Level], NDArray[np.bool_]]:
    """Return the nodes of `TREES` random trees, and which of these have at most `max_length` tokens.

    One that is too long grows no further: it is to be left out.
    """
    levels, lengths, trees = [], np.ones(TREES, np.int64), np.arange(TREES)
    for depth in range(1, max_depth + 1):
        lists = rng.random(len(trees)) < (1 if depth == 1 else NESTED if depth < max_depth else 0)
        args = np.where(lists, rng.integers(2, max_args + 1, len(trees)), 0)
        lengths += np.bincount(trees, args + lists, TREES).astype(np.int64)  # a list has two brackets, a digit is one
        lists &= lengths[trees] <= max_length
        args[~lists] = 0
        digits, operators = rng.integers(0, 10, len(trees)), rng.integers(10, 14, len(trees))
        levels.append(_Level(np.where(lists, operators, digits), args))
        trees = np.repeat(trees, args)
    return levels, lengths <= max_length


def _write(levels: list[_Level], fits: NDArray[np.bool_]) -> Iterator[tuple[NDArray[np.int8], int]]:
    """Give the tokens (T,) and the value of each tree that fits."""
    sizes, values = _sizes_and_values(levels)
    ends = np.cumsum(sizes[0])
    starts = at = ends - sizes[0]
    tokens = np.empty(ends[-1], np.int8)
    for level, size, below in zip(levels, sizes, [*sizes[1:], np.empty(0, np.int64)], strict=True):
        lists = level.args > 0
        tokens[at] = level.symbols
        tokens[(at + size - 1)[lists]] = TOKENS.index("]")
        before = np.cumsum(below) - below  # tokens of the next level before each node
        shift = (at + 1)[lists] - before[_first(level.args)[lists]]
        at = before + np.repeat(shift, level.args[lists])
    for tree in np.flatnonzero(fits):
        yield tokens[starts[tree] : ends[tree]], int(values[tree])


def _sizes_and_values(levels: list[_Level]) -> tuple[list[Ints], Ints]:
    """Return the tokens of each node, level by level, and the values of the roots."""
    sizes: list[Ints] = []
    values = np.empty(0, np.int64)
    for symbols, args in reversed(levels):
        own, lists = np.where(args > 0, 2, 1), args > 0
        result = symbols.copy()
        if lists.any():
            own[lists] += np.add.reduceat(sizes[-1], _first(args)[lists])
            result[lists] = _apply(symbols[lists], values, args[lists])
        sizes.append(own)
        values = result
    return sizes[::-1], values


def _apply(operators: Ints, values: Ints, args: Ints) -> Ints:
    """Return what each operator makes of its arguments, which stand one after another in `values`."""
    first, owner = _first(args), np.repeat(np.arange(len(args)), args)
    ordered = np.sort(owner * 10 + values) % 10
    lowest, highest = ordered[first], ordered[first + args - 1]
    median = (ordered[first + (args - 1) // 2] + ordered[first + args // 2]) // 2
    return np.choose(operators - 10, [lowest, highest, median, np.add.reduceat(values, first) % 10])


def _first(args: Ints) -> Ints:
    """Return where the arguments of each node begin."""
    return np.cumsum(args) - args
