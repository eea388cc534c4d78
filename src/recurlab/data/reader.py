"""The rows of a user's own table as sequences with labels, and the classes, units and symbols of the training rows."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from recurlab.data.classes import are_numbers, classes_of, labels, no_class
from recurlab.data.columns import columns, row_of, sequences, symbols, vectors
from recurlab.data.data import SPLITS, Moments, Ragged
from recurlab.data.ragged import moments, standardised, take
from recurlab.data.table_options import TableOptions
from recurlab.data.tables import open_tables
from recurlab.data.vocabulary import UNKNOWN, Vocabulary, vocabulary_of
from recurlab.errors import RecurlabError, unknown


class Tables(NamedTuple):
    """What was read from the files."""

    splits: dict[str, Ragged]
    classes: tuple[str, ...]
    units: Moments
    vocabulary: Vocabulary | None
    notes: tuple[str, ...]


class _Part(NamedTuple):
    """Rows of a split, with the split and row numbers of the file. Symbols and labels may still be codes."""

    ragged: Ragged
    split: str
    rows: NDArray[np.int64]

    def take(self, rows: NDArray[np.int64]) -> "_Part":
        return _Part(take(self.ragged, rows), self.split, self.rows[rows])


class Reader:
    """Reads the tables of a data set once."""

    def __init__(self, options: TableOptions) -> None:
        self.options = options
        self.symbols: dict[str, int] = {}  # codes of all symbols in the files
        self.labels: dict[str | int, int] = {}

    def read(self) -> Tables:
        """Return the splits, and what the training rows settle."""
        options, parts = self.options, dict[str, _Part]()
        told = list[str]()
        tables = open_tables(str(options.path), options.config, options.files, told.append)
        for name, table in tables.items():
            parts[name] = self._part(name, table, parts["train"].ragged if parts else None)
        if options.level is None and (parts["train"].ragged.lengths == 1).all():
            key = f"data.sequence={options.sequence!r}"
            raise RecurlabError(
                f"{key}: each training row has one step; must be a list of numbers, or a string of them"
            )
        classes: tuple[str, ...] = ()
        if options.problem == "classification":
            named = _class_names(tables["train"], str(options.label))
            used = parts["train"].ragged.targets
            if named is None and (wrong := no_class(self.labels, used)) is not None:
                raise RecurlabError(f"data.label={options.label!r}: train row {wrong[0]} {wrong[1]}")
            classes, of_code = classes_of(self.labels, used, named)
            parts = {name: self._with_classes(part, classes, of_code) for name, part in parts.items()}
        aside = [name for name in SPLITS if name not in parts]
        self._put_aside(parts, aside)
        vocabulary = None
        if options.level is not None:
            vocabulary = self._vocabulary(parts["train"].ragged.inputs)
            parts = {name: self._with_symbols(part, vocabulary) for name, part in parts.items()}
        splits = {name: parts[name].ragged for name in SPLITS}
        if options.standardise:
            known = splits["train"].inputs
            splits = {name: split._replace(inputs=standardised(known, split.inputs)) for name, split in splits.items()}
        units: Moments = ()
        if options.problem == "regression":
            mean, deviation = moments(splits["train"].targets)
            units = tuple(zip(mean.tolist(), deviation.tolist(), strict=True))
        return Tables(splits, classes, units, vocabulary, (*_notes(splits, aside, classes, units, vocabulary), *told))

    def _part(self, split: str, table: Any, train: Ragged | None) -> _Part:
        """Return the rows of a table, with as many channels and numbers to predict as those of training."""
        options = self.options
        wanted = [("sequence", name) for name in options.columns]
        wanted += [(key, name) for key in ("length", "label") if (name := getattr(options, key)) is not None]
        width = train.inputs.shape[1] if train and options.level is None else None
        outputs = train.targets.shape[1] if train and options.problem == "regression" else None
        named = _class_names(table, str(options.label))
        found = []
        for part in columns(table, split, wanted, options.level):
            inputs, label = part[: len(options.columns)], part[-1]
            steps = part[-2] if options.length is not None else None
            if options.level is None:
                values, lengths = sequences(inputs, steps, width)
                width = values.shape[1]
            else:
                values, lengths = symbols(inputs[0], steps, options.level, self.symbols)
            if options.problem == "regression":
                targets: NDArray[Any] = vectors(label, outputs)
                outputs = targets.shape[1]
            else:
                targets = labels(label, named, self.labels)
            found.append((values, lengths, targets))
        whole = [np.concatenate(arrays) for arrays in zip(*found, strict=True)]
        return _Part(Ragged(whole[0], whole[1], whole[2]), split, np.arange(len(whole[1])))

    def _put_aside(self, parts: dict[str, _Part], aside: list[str]) -> None:
        """Give rows of training to the splits that have none of their own."""
        train = parts["train"]
        count = len(train.rows)
        order = np.random.RandomState(self.options.split_seed).permutation(count)
        for name in reversed(aside):
            size = getattr(self.options, f"{name}_size")
            taken = int(size) if size >= 1 else max(1, round(size * count))
            if taken >= len(order):
                raise RecurlabError(f"data.{name}_size={size:g}: must leave some of the {len(order)} rows for training")
            parts[name], order = train.take(np.sort(order[:taken])), order[taken:]
        parts["train"] = train.take(np.sort(order))

    def _with_classes(self, part: _Part, classes: tuple[str, ...], of_code: NDArray[np.int64]) -> _Part:
        targets = of_code[part.ragged.targets]
        for row in np.flatnonzero(targets < 0)[:1]:
            label = list(self.labels)[int(part.ragged.targets[row])]
            where = f"data.label={self.options.label!r}: {part.split} row {part.rows[row]}"
            raise unknown(f"{where}: no training row has the label", label, classes)
        return part._replace(ragged=part.ragged._replace(targets=targets))

    def _vocabulary(self, codes: NDArray[Any]) -> Vocabulary:
        """Return the symbols of the training rows."""
        counts = np.bincount(codes, minlength=len(self.symbols))
        return vocabulary_of(list(self.symbols), counts, str(self.options.level), self.options.min_count)

    def _with_symbols(self, part: _Part, vocabulary: Vocabulary) -> _Part:
        unseen = -1 if vocabulary.unknown is None else vocabulary.unknown
        inputs = np.array([vocabulary.index.get(name, unseen) for name in self.symbols])[part.ragged.inputs]
        for step in np.flatnonzero(inputs < 0)[:1]:
            symbol = list(self.symbols)[int(part.ragged.inputs[step])]
            row = part.rows[row_of(int(step), part.ragged.lengths)]
            where = f"data.sequence={self.options.sequence!r}: {part.split} row {row}"
            raise RecurlabError(f"{where} has {symbol!r}, which no training row has; data.min_count=2 makes it <unk>")
        return part._replace(ragged=part.ragged._replace(inputs=inputs))


def _class_names(table: Any, label: str) -> list[str] | None:
    """Return the names of a column of the type ClassLabel."""
    features = getattr(table, "features", {})  # a pyarrow Table has none
    return getattr(features.get(label), "names", None)


def _notes(
    splits: dict[str, Ragged], aside: list[str], classes: tuple[str, ...], units: Moments, vocabulary: Vocabulary | None
) -> Iterator[str]:
    for name, split in splits.items():
        low, middle, high = split.lengths.min(), np.median(split.lengths), split.lengths.max()
        origin = ", put aside from train" if name in aside else ""
        yield f"{name}: {len(split.lengths):,} rows{origin}; lengths {low} to {high}, median {middle:g}"
    if classes:
        hint = "; data.problem=regression predicts numbers" if len(classes) > 2 and are_numbers(classes) else ""
        yield f"{len(classes)} classes: {', '.join(classes[:20])}{', …' if len(classes) > 20 else ''}{hint}"
    if units:
        each = ", ".join(f"{mean:g} and {deviation:g}" for mean, deviation in units[:20])
        yield f"{len(units)} to predict; mean and standard deviation: {each}{', …' if len(units) > 20 else ''}"
    if vocabulary is not None:
        unseen = "" if vocabulary.unknown is None else f", {UNKNOWN} among them"
        yield f"{len(vocabulary.names):,} symbols{unseen}"
