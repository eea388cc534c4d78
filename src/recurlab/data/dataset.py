"""Any data set of the hub, or a user's CSV, TSV, Parquet or JSON files: sequences, each with a label or numbers."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from recurlab.data.data import Moments, Ragged
from recurlab.data.reader import Reader, Tables
from recurlab.data.table_options import TableOptions
from recurlab.data.tables import is_local, local_files
from recurlab.data.vocabulary import Vocabulary
from recurlab.errors import RecurlabError


@dataclass(frozen=True)
class Dataset(TableOptions):
    """Sequences of numbers or symbols from the columns of a table, a row each, with a class or numbers to predict."""

    @property
    def places(self) -> tuple[str, ...]:
        """`path`, unless it is a name on the hub."""
        return ("path",) if self.path is not None and is_local(self.path) else ()

    def sources(self) -> Mapping[str, Path]:
        """Return the files of the splits, or all files of a folder that `datasets` understands."""
        return local_files(self.path, self.files) if self.path is not None and self.places else {}

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
        """The metric of always answering the commonest class of the training rows, or the mean of their targets."""
        train, test = (self._read.splits[name].targets for name in ("train", "test"))
        if self.problem == "classification":
            return {"accuracy": float((test == np.bincount(train).argmax()).mean())}
        return {"mse": float(((test - train.mean(axis=0)) ** 2).mean())}

    def split(self, name: str, seed: int, epoch: int) -> Ragged:
        """Return the numbers (S, C) or symbols (S,) of the sequences, and classes (N,) or numbers to predict (N, O)."""
        return self._read.splits[name]

    @cached_property
    def _read(self) -> Tables:
        for key, value, wanted in (
            ("path", self.path, "name of a data set on the hub, or a local file or folder"),
            ("sequence", self.sequence, "column, or a list of columns"),
        ):
            if value is None:
                raise RecurlabError(f"data.{key}=None: must be the {wanted}")
        return Reader(self).read()
