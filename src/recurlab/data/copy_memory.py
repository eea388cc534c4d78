"""Copy memory: ten digits to be repeated after a long wait (Hochreiter and Schmidhuber, 1997)."""

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from recurlab.data.data import Arrays, GeneratedData
from recurlab.errors import check_integer

DIGITS = 10  # to be remembered, each from 1 to 8
BLANK, DELIMITER = 0, 9


@dataclass(frozen=True)
class CopyMemory(GeneratedData):
    """Inputs (T + 20,): 10 digits from 1 to 8, T - 1 blanks (0), 11 delimiters (9); targets: T + 10 blanks, the digits.

    So each digit is the target T + 10 steps after it was read. This is the form of Arjovsky et al.
    (arXiv 1511.06464) with the symbols and counts of Bai et al. (arXiv 1803.01271). The loss is the
    cross-entropy over all steps, the accuracy that of the last 10. As there, the classes are the 10
    symbols, although no target is a delimiter.

    Training data are new in every epoch; validation and test are the same in every run.

    Attributes:
        length: T.
    """

    length: int = 100

    problem: ClassVar = "labelling"
    fresh: ClassVar = True
    answer_steps: ClassVar = DIGITS

    def __post_init__(self) -> None:
        super().__post_init__()
        check_integer("data.length", self.length)
        self.check_room(self.length)

    @property
    def input_size(self) -> int:
        """10 symbols: blank, 8 digits, delimiter."""
        return 10

    @property
    def output_size(self) -> int:
        """10, the symbols again."""
        return 10

    @property
    def symbols(self) -> bool:
        """True: the inputs are symbols."""
        return True

    @property
    def chance(self) -> dict[str, float]:
        """Those of a model that answers blanks rightly and guesses the digits: 10 ln 8 / (T + 20), one in eight."""
        return {"loss": DIGITS * math.log(8) / (self.length + 2 * DIGITS), "accuracy": 1 / 8}

    def split(self, name: str, seed: int, epoch: int) -> Arrays:
        """Return `name`_size sequences."""
        rng, size = self.generator(name, seed, epoch), self.size(name)
        inputs = np.full((size, self.length + 2 * DIGITS), BLANK, np.int64)
        targets = np.full_like(inputs, BLANK)
        inputs[:, :DIGITS] = targets[:, -DIGITS:] = rng.integers(1, 9, (size, DIGITS))
        inputs[:, -DIGITS - 1 :] = DELIMITER
        return Arrays(inputs, targets)
