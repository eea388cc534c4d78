"""The symbols of a text: from text to numbers and back, given nothing but the names of the symbols."""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from recurlab.errors import RecurlabError, check_choice, did_you_mean

LEVELS = ("char", "word")
UNKNOWN, EOS = "<unk>", "<eos>"


class Vocabulary:
    """The symbols of a model of characters or words.

    Args:
        names: of the symbols 0, 1, …: characters, or words and the line end `EOS`; also `UNKNOWN`.
        level: "char" or "word".

    Raises:
        RecurlabError: for names that can't be the symbols of such a text.
    """

    def __init__(self, names: Sequence[str], level: str) -> None:
        check_choice("level", level, LEVELS)
        self.names, self.level = tuple(names), level
        self.index = {name: symbol for symbol, name in enumerate(self.names)}
        if not self.names or len(self.index) < len(self.names):
            raise RecurlabError(f"names: {len(self.names):,} symbols, {len(self.index):,} of them different")
        if level == "word" and EOS not in self.index:
            raise RecurlabError(f"names: {EOS!r} is not among the {len(self.names):,} words")

    @property
    def unknown(self) -> int | None:
        """The symbol for tokens that are not in the vocabulary, or None."""
        return self.index.get(UNKNOWN)

    @property
    def before(self) -> int:
        """The symbol that is the input of a text's first step: the line end, or else a space, or else 0."""
        return self.index[EOS] if self.level == "word" else self.index.get("\n", self.index.get(" ", 0))

    def encode(self, text: str, key: str = "text") -> list[int]:
        """Return the symbols of a text; at the level of words each line end is the symbol `EOS`.

        Args:
            text: of any length.
            key: the name of the text in an error.

        Raises:
            RecurlabError: for a token that is not in a vocabulary without `UNKNOWN`.
        """
        tokens = text if self.level == "char" else text.replace("\n", f" {EOS} ").split()
        symbols = [self.index.get(token, self.unknown) for token in tokens]
        if None in symbols:
            index = symbols.index(None)
            token, size = tokens[index], f"{len(self.names):,}{_nearest(tokens[index], self.names)}"
            raise RecurlabError(f"{key}: {token[:40]!r}, {self.level} {index + 1}, is not in the vocabulary of {size}")
        return [symbol for symbol in symbols if symbol is not None]

    def decode(self, symbols: Iterable[int]) -> str:
        """Return the text of symbols; words are joined by blanks, with no blank at the end of a line.

        Raises:
            RecurlabError: for a number that is not a symbol.
        """
        numbers = [int(symbol) for symbol in symbols]
        for number in numbers:
            if not 0 <= number < len(self.names):
                raise RecurlabError(f"symbols: {number} is not one of 0 to {len(self.names) - 1}")
        if self.level == "char":
            return "".join(self.names[number] for number in numbers)
        lines: list[list[str]] = [[]]
        for number in numbers:
            if self.names[number] == EOS:
                lines.append([])
            else:
                lines[-1].append(self.names[number])
        return "\n".join(map(" ".join, lines))


class Tokens(NamedTuple):
    """The tokens of a text.

    Attributes:
        codes: (S,) int32, for each token its index in `types`.
        types: the different tokens, in no particular order.
        lines: (L,) int64, the index of each line's first token.
        blank: (L,) boolean, whether a line is empty or white space.
    """

    codes: NDArray[np.int32]
    types: list[str]
    lines: NDArray[np.int64]
    blank: NDArray[np.bool_]


def tokens_of(text: str, level: str) -> Tokens:
    """Return the tokens of a text: its characters; or its words and an `EOS` at each line end, the last included."""
    lines = text.removesuffix("\n").split("\n")
    blank = np.array([not line or line.isspace() for line in lines])
    return Tokens(*(_characters(text) if level == "char" else _words(lines)), blank)


def _characters(text: str) -> tuple[NDArray[np.int32], list[str], NDArray[np.int64]]:
    points = np.frombuffer(text.encode("utf-32-le"), "<u4")
    present = np.flatnonzero(np.bincount(points))
    indices = np.zeros(present[-1] + 1, np.int32)
    indices[present] = np.arange(len(present))
    ends = np.flatnonzero(points == ord("\n")) + 1
    lines = np.concatenate([[0], ends[ends < len(points)]])
    return indices[points], [chr(point) for point in present.tolist()], lines


def _words(lines: list[str]) -> tuple[NDArray[np.int32], list[str], NDArray[np.int64]]:
    tokens: list[str] = []
    begins = []
    for line in lines:
        begins.append(len(tokens))
        tokens += line.split()
        tokens.append(EOS)
    types = list(dict.fromkeys(tokens))
    indices = {name: i for i, name in enumerate(types)}
    codes = np.fromiter(map(indices.__getitem__, tokens), np.int32, len(tokens))
    return codes, types, np.array(begins)


def vocabulary_of(types: Sequence[str], counts: NDArray[Any], level: str, min_count: int) -> Vocabulary:
    """Return the vocabulary of a training text, ordered by falling count, then by name.

    Args:
        types: the tokens that may occur.
        counts: how often each one occurs; those of count 0 are left out.
        level: "char" or "word".
        min_count: rarer tokens become `UNKNOWN`, except line ends; above 1 the vocabulary always
            has `UNKNOWN`.

    A vocabulary of words has `EOS` even if no line ends in the training text.
    """
    found = {name: count for name, count in zip(types, counts.tolist(), strict=True) if count}
    end = EOS if level == "word" else "\n"
    if level == "word":
        found.setdefault(EOS, 1)
    kept = {name: count for name, count in found.items() if count >= min_count or name in (UNKNOWN, end)}
    if min_count > 1:
        kept[UNKNOWN] = kept.get(UNKNOWN, 0) + sum(found.values()) - sum(kept.values())
    return Vocabulary(sorted(kept, key=lambda name: (-kept[name], name)), level)


def _nearest(token: str, names: Sequence[str]) -> str:
    other = token.swapcase()
    return f"; did you mean {other!r}?" if other in names else did_you_mean(token, names, cutoff=0.6)
