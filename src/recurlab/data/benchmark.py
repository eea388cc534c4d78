"""What every benchmark is: options checked without torch, and arrays for training, validation and test."""

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from recurlab.errors import check_integer

SPLITS = ("train", "valid", "test")


class Arrays(NamedTuple):
    """N sequences: inputs (N, T, C) float32, targets (N, ...), and lengths (N,) where they are right-padded."""

    inputs: NDArray[np.float32]
    targets: NDArray[np.generic]
    lengths: NDArray[np.int64] | None = None


@dataclass(frozen=True)
class Benchmark:
    """A data set and the problem it poses. A subclass is a frozen dataclass that adds its own options.

    Attributes:
        batch_size: sequences in a batch of training.
        eval_batch_size: sequences in a batch of validation and test.
        problem: a name of `recurlab.tasks.PROBLEMS`: what the loss and the metrics are.
        fresh: whether the training data of every epoch are new, so that `split` is asked again.
    """

    batch_size: int = 32
    eval_batch_size: int = 500

    problem: ClassVar[str]
    fresh: ClassVar[bool] = False

    def __post_init__(self) -> None:
        check_integer("data.batch_size", self.batch_size)
        check_integer("data.eval_batch_size", self.eval_batch_size)

    @property
    def input_size(self) -> int:
        """C, features of the input at a step."""
        raise TypeError(f"the benchmark {type(self).__name__} gives no input_size")

    @property
    def output_size(self) -> int:
        """Numbers that the model has to give: targets, or classes."""
        raise TypeError(f"the benchmark {type(self).__name__} gives no output_size")

    @property
    def chance(self) -> dict[str, float]:
        """The value that each metric has without learning."""
        return {}

    def split(self, name: str, seed: int, epoch: int) -> Arrays:
        """Return a split: `name` of `SPLITS`.

        Only the training data may depend on the run's seed and, where `fresh`, on the epoch.

        Raises:
            RecurlabError: for a file that is missing or damaged.
        """
        raise TypeError(f"the benchmark {type(self).__name__} gives no data")
