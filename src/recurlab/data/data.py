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
        targets: (N, ...), or (N, T, ...) where there is one for each step; float32 or whole numbers.
    """

    inputs: NDArray[np.generic]
    targets: NDArray[np.generic]


class Ragged(NamedTuple):
    """N sequences of lengths of their own, one after another without padding; S is the sum of their lengths.

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
        starts: (D,) int64, ascending: where documents begin, before which nothing may be remembered.
        before: the symbol that stands for what came before the first one.
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
        fresh: whether the training data of every epoch are new, so that `split` is asked again.
        ahead: whether a target is what comes next, which a reverse direction would have read.
        answer_steps: where there is a target for each step, how many of the last ones hold the answer, which is what
            the accuracy is of; None is all.
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
        raise TypeError(f"the data set {type(self).__name__} gives no input_size")

    @property
    def output_size(self) -> int:
        """Numbers that the model has to give: targets, or classes."""
        raise TypeError(f"the data set {type(self).__name__} gives no output_size")

    @property
    def symbols(self) -> bool:
        """Whether the inputs are symbols, whole numbers below `input_size`."""
        return False

    @property
    def names(self) -> tuple[str, ...]:
        """What the classes or the symbols are called, () where their numbers say it."""
        return ()

    @property
    def units(self) -> Moments:
        """Mean and standard deviation in training of each number to be predicted, where it is learnt standardised.

        () where the targets are learnt as they are: those of a data set whose results are published have a scale that
        is known, and learning rates and thresholds that belong to it.
        """
        return ()

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader of the log should know of the data, a line each: the counts of tokens, say."""
        return ()

    @property
    def chance(self) -> dict[str, float]:
        """The value that each metric has without learning."""
        return {}

    @property
    def originals(self) -> Mapping[str, str]:
        """The sha256 of the files in `sources` that have to be the original ones, or nearly all have as such."""
        return {}

    @property
    def places(self) -> tuple[str, ...]:
        """The options, beside `dir`, that say where the files of `sources` are and nothing else."""
        return ()

    def sources(self) -> Mapping[str, Path]:
        """Return the files that are read, by names that do not tell where they are; {} where there are none.

        A run is of what these hold. Here they are all below the folder that an option `dir` names, if there is one.

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
        raise TypeError(f"the data set {type(self).__name__} gives no data")


def below(folder: Path) -> dict[str, Path]:
    """Return the files in a folder and in those in it, by their paths from there; hidden ones are left out."""
    names = {str(path.relative_to(folder)): path for path in folder.rglob("*") if path.is_file()}
    return {name: path for name, path in names.items() if not f"/{name}".count("/.")}


@dataclass(frozen=True)
class GeneratedData(Data):
    """A data set that is drawn at random, as many sequences as are wanted.

    Attributes:
        train_size, valid_size, test_size: sequences in a split; where it is `fresh`, those of one epoch of training.
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
        """Return what a split is drawn from: new data in every epoch of training, else the same in every run."""
        return np.random.default_rng((SPLITS.index(name), *((seed, epoch) if name == "train" else ())))


@dataclass(frozen=True)
class RaggedData(Data):
    """A data set whose sequences have lengths of their own.

    Attributes:
        buckets: whether sequences of about the same length share a batch of training, which saves padding.
    """

    buckets: bool = True


@dataclass(frozen=True)
class StreamData(Data):
    """A data set of one long text, read along `batch_size` parts of it at a time.

    Attributes:
        bptt: steps of a batch, through which the gradient goes back.
        random_bptt: whether these are drawn anew for each batch of training: N(bptt, 5), at least 5, and one time in 20
            about half of it (Merity et al., arXiv 1708.02182).
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
        """A text is made of them."""
        return True

    @property
    def output_size(self) -> int:
        """One score for each symbol."""
        return self.input_size
