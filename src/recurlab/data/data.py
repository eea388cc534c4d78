"""What every data set is: options checked without torch, and arrays for training, validation and test."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from recurlab.errors import SIZE, RecurlabError, check_integer

SPLITS = ("train", "valid", "test")
Moments = tuple[tuple[float, float], ...]  # mean and standard deviation of each of some numbers


class Arrays(NamedTuple):
    """N sequences of one length.

    Attributes:
        inputs: (N, T, C) float32, or (N, T) whole numbers, symbols.
        targets: (N, ...), or (N, T, ...) where there is one for each step; float32 or whole
            numbers.
    """

    inputs: NDArray[np.generic]
    targets: NDArray[np.generic]


class Ragged(NamedTuple):
    """N sequences of different lengths, one after another without padding; S is the sum of their lengths.

    Attributes:
        inputs: (S, C) float32, or (S,) whole numbers, symbols.
        lengths: (N,) int64, each at least 1.
        targets: (N, ...), or with `per_step` (S, ...); float32 or whole numbers.
        per_step: whether there is a target for each step.
    """

    inputs: NDArray[np.generic]
    lengths: NDArray[np.int64]
    targets: NDArray[np.generic]
    per_step: bool = False


class Stream(NamedTuple):
    """One long text, each of whose S symbols is to be predicted from those before it.

    Attributes:
        symbols: (S,) whole numbers.
        starts: (D,) int64, ascending: the first symbol of each document, where the state is reset.
        before: the symbol that is the input of a document's first step.
    """

    symbols: NDArray[np.integer]
    starts: NDArray[np.int64]
    before: int


@dataclass(frozen=True)
class Data:
    """A data set and the problem it poses. A subclass is a frozen dataclass that adds its own options.

    Attributes:
        batch_size: sequences in a batch of training, on all devices together.
        eval_batch_size: sequences in a batch of validation and test, on all devices together.
        problem: a name of `recurlab.problems.PROBLEMS`: what the loss and the metrics are.
        fresh: whether every epoch has new training data, so that `split` is called again.
        ahead: whether targets are future inputs; a bidirectional model would see them.
        answer_steps: where there is a target for each step: the accuracy is of the last so many
            steps; None is of all.
    """

    batch_size: int = 32
    eval_batch_size: int = 500

    problem: ClassVar[str]
    fresh: ClassVar[bool] = False
    ahead: ClassVar[bool] = False
    answer_steps: ClassVar[int | None] = None

    def __post_init__(self) -> None:
        check_integer("data.batch_size", self.batch_size, high=SIZE)
        check_integer("data.eval_batch_size", self.eval_batch_size, high=SIZE)

    @property
    def input_size(self) -> int:
        """C, features of the input at a step, or the number of symbols."""
        raise RecurlabError(f"the data set {type(self).__name__} gives no input_size")

    @property
    def output_size(self) -> int:
        """Numbers in an answer of the model: targets, or one score for each class."""
        raise RecurlabError(f"the data set {type(self).__name__} gives no output_size")

    @property
    def symbols(self) -> bool:
        """Whether the inputs are symbols, whole numbers below `input_size`."""
        return False

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the classes or symbols; () where their numbers are their names."""
        return ()

    @property
    def units(self) -> Moments:
        """Mean and standard deviation in training of each number to be predicted, where targets are standardised.

        () where the targets are learnt as they are, as in data sets with published results: their
        learning rates and thresholds belong to the scale of the targets.
        """
        return ()

    @property
    def notes(self) -> tuple[str, ...]:
        """Lines about the data for the log, such as the counts of tokens."""
        return ()

    @property
    def chance(self) -> dict[str, float]:
        """The value of each metric for a model that has learnt nothing."""
        return {}

    @property
    def originals(self) -> Mapping[str, str]:
        """The sha256 of those files in `sources` that are the original ones for everybody, or nearly so."""
        return {}

    @property
    def places(self) -> tuple[str, ...]:
        """The options, beside `dir`, that are nothing but the paths of the files in `sources`."""
        return ()

    def sources(self) -> Mapping[str, Path]:
        """Return the files that are read, by names that are the same wherever the files are; {} where there are none.

        Runs of the same content belong together. By default these are all files below the folder
        `dir`, if any.

        Raises:
            RecurlabError: for a file that is missing.
        """
        folder = getattr(self, "dir", None)
        return below(Path(folder).expanduser()) if isinstance(folder, str) else {}

    def split(self, name: str, seed: int, epoch: int) -> Arrays | Ragged | Stream:
        """Return a split: `name` of `SPLITS`.

        Only the training data may depend on the run's seed and, where `fresh`, on the epoch.

        Raises:
            RecurlabError: for a file that is missing or damaged.
        """
        raise RecurlabError(f"the data set {type(self).__name__} gives no data")


def below(folder: Path) -> dict[str, Path]:
    """Return the files in a folder and its subfolders, by their relative paths; hidden ones are left out."""
    names = {str(path.relative_to(folder)): path for path in folder.rglob("*") if path.is_file()}
    return {name: path for name, path in names.items() if not f"/{name}".count("/.")}


@dataclass(frozen=True)
class GeneratedData(Data):
    """A data set that is drawn at random, in any number of sequences.

    Attributes:
        train_size, valid_size, test_size: sequences in a split; of training data that are `fresh`,
            in an epoch.
    """

    train_size: int = 10_000
    valid_size: int = 1_000
    test_size: int = 1_000

    def __post_init__(self) -> None:
        super().__post_init__()
        for split in SPLITS:
            check_integer(f"data.{split}_size", self.size(split))

    def check_room(self, steps: int) -> None:
        """Raise if no array can hold as many sequences of so many steps, of a few numbers each."""
        for split in SPLITS:
            if (size := self.size(split)) * steps >= 2**56:
                raise RecurlabError(f"data.{split}_size={size}: no array holds as many sequences of {steps} steps")

    def size(self, name: str) -> int:
        """Return how many sequences a split has."""
        size: int = getattr(self, f"{name}_size")
        return size

    @staticmethod
    def generator(name: str, seed: int, epoch: int) -> np.random.Generator:
        """Return the random generator of a split: new in every epoch of training, else the same in every run."""
        return np.random.default_rng((SPLITS.index(name), *((seed, epoch) if name == "train" else ())))


@dataclass(frozen=True)
class RaggedData(Data):
    """A data set whose sequences have different lengths.

    Attributes:
        buckets: whether training batches hold sequences of about the same length, which saves
            padding.
    """

    buckets: bool = True


@dataclass(frozen=True)
class StreamData(Data):
    """A data set of one long text, cut into `batch_size` parts that are read side by side.

    Attributes:
        bptt: steps of a batch, through which the gradient is propagated back.
        random_bptt: whether the steps of each training batch are drawn: N(bptt, 5), or one time in
            20 N(bptt / 2, 5), at least 5 (Merity et al., arXiv 1708.02182).
    """

    batch_size: int = 20
    eval_batch_size: int = 10
    bptt: int = 35
    random_bptt: bool = False

    problem: ClassVar = "language"
    ahead: ClassVar = True

    def __post_init__(self) -> None:
        super().__post_init__()
        check_integer("data.bptt", self.bptt, high=SIZE)

    @property
    def symbols(self) -> bool:
        """True: a text is a sequence of symbols."""
        return True

    @property
    def output_size(self) -> int:
        """One score for each symbol."""
        return self.input_size
