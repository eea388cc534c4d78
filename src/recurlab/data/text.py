"""Any text, by characters or words: the next one is to be predicted from all before it."""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from math import log2
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from recurlab.data.cache import cached
from recurlab.data.data import SPLITS, Stream, StreamData
from recurlab.data.files import Files, bytes_of, fetched, text_of
from recurlab.data.vocabulary import EOS, LEVELS, UNKNOWN, Tokens, Vocabulary, tokens_of, vocabulary_of
from recurlab.errors import RecurlabError, check_choice, check_integer, check_number

VERSION = "1"  # of the code that makes symbols of files; a new one makes cached symbols stale
DOCUMENTS = ("stream", "line", "paragraph")


@dataclass(frozen=True)
class Text(StreamData, Files):  # in this order, so that the batch sizes are those of StreamData
    """A corpus in UTF-8 files. The symbols are those of the training text; each line end is one.

    Attributes:
        level: "char", or "word": words are separated by white space; a line end is the word
            ``<eos>``.
        train, valid, test: names of the files; without `valid` and `test`, `train` is cut into the
            three in order.
        valid_fraction, test_fraction: shares of the tokens that are cut off; a document is never
            cut.
        documents: at whose first token the state is reset: a whole file ("stream"), each "line", or
            each "paragraph", which blank lines separate.
        separated: whether a file of characters has a blank between any two, and ``_`` for a space.
        min_count: tokens rarer than this in the training text become ``<unk>``; above 1, so do
            tokens unknown to it.
        corpus: name of the folder under ``$RECURLAB_DATA``, where there is no `dir`.
        url: address of `train`, the whole corpus, which is downloaded if there is no folder; its
            sha256 must be known.
        sha256: of the original files, by their names.
    """

    level: str = "char"
    train: str = "input.txt"
    valid: str | None = None
    test: str | None = None
    valid_fraction: float = 0.05
    test_fraction: float = 0.05
    documents: str = "stream"
    separated: bool = False
    min_count: int = 1
    corpus: str = "."
    url: str | None = None
    sha256: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("data.level", self.level, LEVELS)
        check_choice("data.documents", self.documents, DOCUMENTS)
        check_integer("data.min_count", self.min_count)
        if self.separated and self.level != "char":
            raise RecurlabError(f"data.separated=True: only with data.level=char, not {self.level!r}")
        if (self.valid is None) != (self.test is None):
            missing = "valid" if self.valid is None else "test"
            raise RecurlabError(f"data.{missing}=None: must be a file, or else both data.valid and data.test null")
        for key in ("valid_fraction", "test_fraction"):
            check_number(f"data.{key}", getattr(self, key), above=0, high=1)
        if self.valid_fraction + self.test_fraction >= 1:
            other = f"data.test_fraction={self.test_fraction}"
            raise RecurlabError(f"data.valid_fraction={self.valid_fraction}: must be below 1 together with {other}")
        if self.url is not None and self.train not in self.sha256:
            raise RecurlabError(f"data.url={self.url!r}: needs the file's sha256, data.sha256={{{self.train}: ...}}")

    @property
    def shared(self) -> str:
        """`corpus`."""
        return self.corpus

    @property
    def originals(self) -> Mapping[str, str]:
        """`sha256`."""
        return self.sha256

    @property
    def reads(self) -> tuple[str, ...]:
        """The whole corpus, or its three parts."""
        return (self.train,) if self.valid is None or self.test is None else (self.train, self.valid, self.test)

    def file(self, name: str) -> Path:
        """Return the path of a file; `train` is fetched where there is no folder but a `url`."""
        if name == self.train and self.url is not None and self.folder() is None:
            return fetched("data.url", self.url, self.sha256[name])
        return super().file(name)

    @property
    def input_size(self) -> int:
        """The size of the vocabulary; reads the files."""
        return len(self.vocabulary.names)

    @property
    def names(self) -> tuple[str, ...]:
        """The characters or words."""
        return self.vocabulary.names

    @cached_property
    def vocabulary(self) -> Vocabulary:
        """The symbols of the training text."""
        return Vocabulary(json.loads(self._arrays["names"].tobytes()), self.level)

    @property
    def chance(self) -> dict[str, float]:
        """The metrics of a model for which all symbols are equally likely."""
        return {"perplexity": float(self.input_size), "bits": log2(self.input_size)}

    @property
    def notes(self) -> tuple[str, ...]:
        """The tokens, types and replaced tokens of each split."""
        return tuple(self._note(name) for name in SPLITS)

    def split(self, name: str, seed: int, epoch: int) -> Stream:
        """Return the symbols of a split, as small whole numbers; the arrays must not be written to."""
        return Stream(self._arrays[name], self._arrays[f"{name}_starts"], self.vocabulary.before)

    def _note(self, name: str) -> str:
        symbols, (types, ends, replaced) = self._arrays[name], self._arrays[f"{name}_counts"].tolist()
        words = f" ({len(symbols) - ends:,} words and {ends:,} {EOS})" if self.level == "word" else ""
        documents = "" if self.documents == "stream" else f", {len(self._arrays[f'{name}_starts']):,} documents"
        unknown = "" if self.vocabulary.unknown is None else f", {replaced:,} replaced by {UNKNOWN}"
        return f"{name}: {len(symbols):,} tokens{words}, {types:,} types{documents}{unknown}"

    @cached_property
    def _arrays(self) -> dict[str, NDArray[Any]]:
        """The symbols and starts of the splits, counts for their notes, and the names as JSON."""
        paths = [self.file(name) for name in self.reads]
        contents = [bytes_of(path) for path in paths]
        options = (self.level, self.documents, self.separated, self.min_count, self.valid_fraction, self.test_fraction)
        identity = [VERSION, *options, *(hashlib.sha256(content).hexdigest() for content in contents)]
        return cached(f"text {json.dumps(identity)}", lambda: self._make(paths, contents))

    def _make(self, paths: list[Path], contents: list[bytes]) -> dict[str, NDArray[Any]]:
        texts = [self._text(path, content) for path, content in zip(paths, contents, strict=True)]
        files = [_File(path, tokens_of(text, self.level)) for path, text in zip(paths, texts, strict=True)]
        parts = dict(zip(SPLITS, self._parts(files), strict=True))
        tokens = parts["train"].file.tokens
        counts = np.bincount(parts["train"].codes, minlength=len(tokens.types))
        vocabulary = vocabulary_of(tokens.types, counts, self.level, self.min_count)
        arrays = {"names": np.frombuffer(json.dumps(vocabulary.names).encode(), np.uint8)}
        for name, part in parts.items():
            arrays |= self._arrays_of(name, part, vocabulary)
        return arrays

    def _text(self, path: Path, content: bytes) -> str:
        text = text_of(path, content)
        if not text or text.isspace():
            raise RecurlabError(f"{path}: empty")
        if not self.separated:
            return text
        if joined := re.search(r"\S\S+", text):
            line = text.count("\n", 0, joined.start()) + 1
            raise RecurlabError(
                f"data.separated=True: {path}, line {line}: no blanks in {joined[0][:20]!r}; is it plain text?"
            )
        return text.replace(" ", "").replace("_", " ")

    def _parts(self, files: list["_File"]) -> list["_Part"]:
        """Return the three splits."""
        starts = [self._starts(file) for file in files]
        if len(files) == len(SPLITS):
            return [_Part(f, s, 0, len(f.tokens.codes)) for f, s in zip(files, starts, strict=True)]
        (file,), (documents,) = files, starts
        count = len(file.tokens.codes)
        cuts = [int(count * (1 - self.valid_fraction - self.test_fraction)), int(count * (1 - self.test_fraction))]
        if self.documents != "stream":  # move the cut to the start of the next document
            cuts = np.append(documents, count)[np.searchsorted(documents, cuts)].tolist()
        for split, first, last in zip(SPLITS, [0, *cuts], [*cuts, count], strict=True):
            if first == last:
                raise RecurlabError(f"{file.path}: too short to be cut in three, nothing is left for {split!r}")
        return [_Part(file, documents, first, last) for first, last in zip([0, *cuts], [*cuts, count], strict=True)]

    def _starts(self, file: "_File") -> NDArray[np.int64]:
        """Return where the documents of a file begin."""
        _, _, lines, blank = file.tokens
        if self.documents == "stream":
            return lines[:1]
        if self.documents == "paragraph":
            first: NDArray[np.int64] = lines[~blank & np.append(True, blank[:-1])]
            first[0] = 0  # blank lines before a paragraph belong to it
            return first
        if blank.any():
            raise RecurlabError(f"data.documents='line': {file.path}, line {blank.argmax() + 1} is an empty document")
        return lines

    def _arrays_of(self, name: str, part: "_Part", vocabulary: Vocabulary) -> dict[str, NDArray[Any]]:
        tokens, codes = part.file.tokens, part.codes
        known = np.array([type in vocabulary.index for type in tokens.types])
        if vocabulary.unknown is None and not (found := known[codes]).all():
            raise self._unknown_token(name, part, int(found.argmin()))
        small = next(t for t in (np.uint8, np.uint16, np.int32) if len(vocabulary.names) <= np.iinfo(t).max + 1)
        table = np.array([vocabulary.index.get(type, vocabulary.unknown or 0) for type in tokens.types], small)
        symbols = table[codes]
        ends = vocabulary.index.get(EOS, -1)
        counts = [np.count_nonzero(np.bincount(symbols)), np.count_nonzero(symbols == ends), np.sum(~known[codes])]
        return {name: symbols, f"{name}_starts": part.starts, f"{name}_counts": np.array(counts, np.int64)}

    def _unknown_token(self, name: str, part: "_Part", index: int) -> RecurlabError:
        tokens = part.file.tokens
        line = np.searchsorted(tokens.lines, part.first + index, "right")
        token = tokens.types[part.codes[index]][:40]
        return RecurlabError(
            f"{part.file.path}, line {line}: {token!r} of the split {name!r} is not in the training text; "
            f"with data.min_count=2 it becomes {UNKNOWN}, and so does what occurs once in training"
        )


class _File(NamedTuple):
    """A file, and its tokens."""

    path: Path
    tokens: Tokens


class _Part(NamedTuple):
    """The tokens from `first` up to `last` of a file, in which `documents` begin."""

    file: _File
    documents: NDArray[np.int64]
    first: int
    last: int

    @property
    def codes(self) -> NDArray[np.int32]:
        """The codes of the tokens."""
        return self.file.tokens.codes[self.first : self.last]

    @property
    def starts(self) -> NDArray[np.int64]:
        """The first token of each document, counted from `first`, where one always begins."""
        within = self.documents[(self.documents > self.first) & (self.documents < self.last)]
        return np.append(0, within - self.first)
