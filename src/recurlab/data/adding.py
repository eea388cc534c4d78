"""The adding problem: the sum of two marked numbers (Hochreiter and Schmidhuber, Long short-term memory, 1997)."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from recurlab.data.data import Arrays, GeneratedData
from recurlab.errors import check_choice, check_integer


@dataclass(frozen=True)
class Adding(GeneratedData):
    """Inputs (T, 2): numbers from U(0, 1) and a marker; the target is the sum of the two numbers that are marked.

    Training data are new in every epoch; validation and test are the same in every run.

    Attributes:
        length: T.
        markers: "halves" puts one marker in each half of the sequence, "anywhere" two at any steps.
    """

    length: int = 100
    markers: str = "halves"

    problem: ClassVar = "regression"
    fresh: ClassVar = True

    def __post_init__(self) -> None:
        super().__post_init__()
        check_integer("data.length", self.length, low=2)
        self.check_room(self.length)
        check_choice("data.markers", self.markers, ("halves", "anywhere"))

    @property
    def input_size(self) -> int:
        """2: number and marker."""
        return 2

    @property
    def output_size(self) -> int:
        """1: the sum."""
        return 1

    @property
    def chance(self) -> dict[str, float]:
        """The squared error of always answering 1, the variance of the sum: 2/12."""
        return {"mse": 1 / 6}

    def split(self, name: str, seed: int, epoch: int) -> Arrays:
        """Return `name`_size sequences."""
        rng, size = self.generator(name, seed, epoch), self.size(name)
        numbers = rng.random((size, self.length), dtype=np.float32)
        marked = self._marked(rng, size)
        markers = np.zeros_like(numbers)
        np.put_along_axis(markers, marked, 1, axis=1)
        targets = np.take_along_axis(numbers, marked, axis=1).sum(axis=1, keepdims=True)
        return Arrays(np.stack([numbers, markers], axis=-1), targets)

    def _marked(self, rng: np.random.Generator, size: int) -> np.ndarray[tuple[int, int], np.dtype[np.int64]]:
        """Return the two marked steps of each sequence, (size, 2)."""
        if self.markers == "halves":
            half = self.length // 2
            first, second = rng.integers(0, half, size), rng.integers(half, self.length, size)
        else:
            first, second = rng.integers(0, self.length, size), rng.integers(0, self.length - 1, size)
            second += second >= first
        return np.stack([first, second], axis=1)
