"""The options of a user's own table, and the checks that need no reading of it."""

from dataclasses import dataclass
from typing import Any

from recurlab.data.data import SPLITS, RaggedData
from recurlab.data.vocabulary import LEVELS
from recurlab.errors import RecurlabError, check_choice, check_integer, check_number


@dataclass(frozen=True)
class TableOptions(RaggedData):
    """Where the rows of a table are, and which columns hold the sequences and what is to be predicted.

    Attributes:
        path: name of a data set on the hub, a local folder, or a file: .csv, .tsv, .parquet, .json
            or .jsonl.
        config: of the data set on the hub, where it has several.
        train, valid, test: names of splits, or of files in the folder, also as a pattern. A null
            `valid` or `test` is the split of that name or, where there is none, rows of `train`
            that are put aside.
        valid_size, test_size: rows put aside, drawn with `split_seed`; below 1, their share of all
            rows.
        sequence: a column of lists of numbers, (T,), of lists of lists, (T, C), of strings of
            numbers between blanks or commas, or of texts; or several columns of lists or strings of
            numbers, each of which is a channel.
        length: column that says how many steps of a padded sequence count.
        label: column of the classes, whole numbers or names; or of a number, or a list of numbers,
            to predict.
        problem: "classification", or "regression", whose numbers are learnt with mean 0 and
            variance 1 over the training rows; what is predicted and the metrics are in their own
            units.
        level: of texts, "char" or "word"; null: the sequences are numbers.
        min_count: symbols rarer than this in training become ``<unk>``; above 1, so do symbols
            unknown to training.
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
            raise RecurlabError("data.label=None: must be a column; for texts without labels there is data=text")
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
    def files(self) -> dict[str, str | None]:
        """What each split is called in the folder, or on the hub."""
        return {name: getattr(self, name) for name in SPLITS}
