"""Any data set of the hub, or CSV, TSV, Parquet or JSON files of one's own: sequences with a label or numbers each."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from recurlab.data.benchmark import SPLITS, Moments, Ragged, RaggedBenchmark
from recurlab.data.classes import are_numbers, classes_of, labels, no_class
from recurlab.data.columns import columns, row_of, sequences, symbols, vectors
from recurlab.data.ragged import moments, standardised, take
from recurlab.data.tables import is_local, local_files, open_tables
from recurlab.data.vocabulary import LEVELS, UNKNOWN, Vocabulary, vocabulary_of
from recurlab.errors import RecurlabError, check_choice, check_integer, check_number, unknown


@dataclass(frozen=True)
class Dataset(RaggedBenchmark):
    """Sequences of numbers or symbols from the columns of a table, a row each, with a class or numbers to predict.

    Attributes:
        path: name of a data set on the hub, a local folder, or a file: .csv, .tsv, .parquet, .json or .jsonl.
        config: of the data set on the hub, where it has several.
        train, valid, test: names of splits, or of files in the folder, also as a pattern. Null `valid` and `test` are
            the splits of that name; where there is none, rows of `train` are put aside.
        valid_size, test_size: rows put aside, drawn with `split_seed`; below 1, their share of all rows.
        sequence: a column of lists of numbers, (T,), of lists of lists, (T, C), of strings of numbers between blanks or
            commas, or of texts; or several columns of lists or strings of numbers, each of which is a channel.
        length: column that says how many steps of a padded sequence count.
        label: column of the classes, whole numbers or names; or of a number, or a list of numbers, to predict.
        problem: "classification", or "regression", whose numbers are learnt with mean 0 and variance 1 over the
            training rows; what is predicted and the metrics are in their own units.
        level: of texts, "char" or "word"; null: the sequences are numbers.
        min_count: symbols met less often in training become ``<unk>``; above 1, so do those that training lacks.
        standardise: whether each channel gets mean 0 and variance 1 over the steps of training.
    """

    path: str | None = None
    config: str | None = None
    train: str = "train"
    valid: str | None = None
    test: str | None = None
    valid_size: float = 0.1
    test_size: float = 0.1
    split_seed: int = 0
    sequence: Any = None
    length: str | None = None
    label: str | None = "label"
    problem: str = "classification"  # type: ignore[misc]
    level: str | None = None
    min_count: int = 1
    standardise: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        for key in ("valid_size", "test_size"):
            size = getattr(self, key)
            check_number(f"data.{key}", size, above=0)
            if size >= 1 and size != int(size):
                raise RecurlabError(
                    f"data.{key}={size!r}: must be a share of the rows below 1, or a whole number of rows"
                )
        check_integer("data.split_seed", self.split_seed, low=0, high=2**32 - 1)
        check_choice("data.problem", self.problem, ("classification", "regression"))
        check_integer("data.min_count", self.min_count)
        self._check_columns()
        if self.level is None:
            if self.min_count > 1:
                raise RecurlabError(f"data.min_count={self.min_count}: is for texts; set data.level=char or word")
            return
        check_choice("data.level", self.level, LEVELS)
        if len(self.columns) > 1:
            raise RecurlabError(f"data.sequence={[*self.columns]}: with data.level={self.level} must be one column")
        if self.standardise:
            raise RecurlabError(f"data.standardise=True: is for numbers, not for symbols (data.level={self.level!r})")

    def _check_columns(self) -> None:
        """Raise for a column that is not named at all, or twice."""
        if self.label is None:
            raise RecurlabError("data.label=None: must be a column; for texts without labels there is task=text")
        given = self.sequence if isinstance(self.sequence, list | tuple) else [self.sequence]
        if self.sequence is not None and not (given and all(isinstance(name, str | int) for name in given)):
            raise RecurlabError(f"data.sequence={self.sequence!r}: must be a column, or a list of columns")
        used: list[str] = []
        for key, name in [
            *(("sequence", name) for name in self.columns),
            ("length", self.length),
            ("label", self.label),
        ]:
            if name in used:
                raise RecurlabError(f"data.{key}={name!r}: this column is used twice")
            used += [name] if name is not None else []

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns of the sequences."""
        given = self.sequence if isinstance(self.sequence, list | tuple) else [self.sequence]
        return tuple(str(name) for name in given if name is not None)

    @property
    def places(self) -> tuple[str, ...]:
        """`path`, where that is no name on the hub."""
        return ("path",) if self.path is not None and is_local(self.path) else ()

    def sources(self) -> Mapping[str, Path]:
        """Return the files of the splits, or all of a folder that `datasets` understands."""
        return local_files(self.path, self._files) if self.path is not None and self.places else {}

    @property
    def _files(self) -> dict[str, str | None]:
        """What each split is called in the folder, or on the hub."""
        return {name: getattr(self, name) for name in SPLITS}

    @property
    def input_size(self) -> int:
        """C, channels of the sequences, or symbols of the vocabulary."""
        return len(self.vocabulary.names) if self.vocabulary else int(self._read.splits["train"].inputs.shape[1])

    @property
    def output_size(self) -> int:
        """Classes, or numbers to predict."""
        return len(self._read.classes) or int(self._read.splits["train"].targets.shape[1])

    @property
    def symbols(self) -> bool:
        """Whether the sequences are texts."""
        return self.level is not None

    @property
    def names(self) -> tuple[str, ...]:
        """The classes."""
        return self._read.classes

    @property
    def units(self) -> Moments:
        """Mean and standard deviation of the numbers to predict, in the training rows."""
        return self._read.units

    @property
    def vocabulary(self) -> Vocabulary | None:
        """The symbols of texts, those of the training rows."""
        return self._read.vocabulary

    @property
    def notes(self) -> tuple[str, ...]:
        """Rows and lengths of each split, the classes, the vocabulary."""
        return self._read.notes

    @property
    def chance(self) -> dict[str, float]:
        """Of always answering the commonest class of the training rows, or the mean of their targets."""
        train, test = (self._read.splits[name].targets for name in ("train", "test"))
        if self.problem == "classification":
            return {"accuracy": float((test == np.bincount(train).argmax()).mean())}
        return {"mse": float(((test - train.mean(axis=0)) ** 2).mean())}

    def split(self, name: str, seed: int, epoch: int) -> Ragged:
        """Return the numbers (S, C) or symbols (S,) of the sequences, and classes (N,) or numbers to predict (N, O)."""
        return self._read.splits[name]

    @cached_property
    def _read(self) -> "_Read":
        for key, value, wanted in (
            ("path", self.path, "name of a data set on the hub, or a local file or folder"),
            ("sequence", self.sequence, "column, or a list of columns"),
        ):
            if value is None:
                raise RecurlabError(f"data.{key}=None: must be the {wanted}")
        return _Reader(self).read()


class _Read(NamedTuple):
    """What came of the files."""

    splits: dict[str, Ragged]
    classes: tuple[str, ...]
    units: Moments
    vocabulary: Vocabulary | None
    notes: tuple[str, ...]


class _Part(NamedTuple):
    """Rows of a split; `split` and `rows` say where they stand in the files. Symbols and labels may still be codes."""

    ragged: Ragged
    split: str
    rows: NDArray[np.int64]

    def take(self, rows: NDArray[np.int64]) -> "_Part":
        return _Part(take(self.ragged, rows), self.split, self.rows[rows])


class _Reader:
    """Reads the tables of a data set once."""

    def __init__(self, options: Dataset) -> None:
        self.options = options
        self.symbols: dict[str, int] = {}  # codes of all that stands in the files
        self.labels: dict[str | int, int] = {}

    def read(self) -> _Read:
        """Return the splits, and what the training rows tell."""
        options, parts = self.options, dict[str, _Part]()
        told = list[str]()
        tables = open_tables(str(options.path), options.config, options._files, told.append)
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
        return _Read(splits, classes, units, vocabulary, (*_notes(splits, aside, classes, units, vocabulary), *told))

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
