"""A tiny data set whose training ends as it is told, registered as a user's module does."""

import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np

from recurlab import RecurlabError, register_data
from recurlab.data.data import SPLITS, Arrays, Data


@register_data("toy_sweep")
@dataclass(frozen=True)
class Fated(Data):
    """Sequences of noise, and targets `offset` away from it.

    Attributes:
        fate: of the second epoch: well, not_a_number, no_memory, killed or exit; or unfit from the start.
        offset: the greater it is, the worse is the loss.
        halt: the run of this seed takes long, but once only.
    """

    batch_size: int = 4
    eval_batch_size: int = 4
    fate: str = "well"
    offset: float = 0.0
    halt: int = -1
    problem: ClassVar = "regression"
    fresh: ClassVar = True

    @property
    def input_size(self):
        if self.fate == "unfit":
            raise RecurlabError("data.fate='unfit': does not go with the rest")
        return 2

    @property
    def output_size(self):
        return 1

    def split(self, name, seed, epoch):
        if name == "train" and epoch == 1:
            self.suffer()
            if seed == self.halt and not Path("halted").exists():
                Path("halted").touch()
                time.sleep(5)
        rng = np.random.default_rng((SPLITS.index(name), seed))
        inputs = rng.normal(size=(8, 3, 2)).astype(np.float32)
        targets = rng.normal(size=(8, 1)).astype(np.float32) + np.float32(self.offset)
        return Arrays(inputs * np.float32("nan") if self.fate == "not_a_number" else inputs, targets)

    def suffer(self):
        if self.fate == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        if self.fate == "exit":
            os._exit(3)
        if self.fate == "no_memory":
            raise MemoryError("no more of it")


@register_data("toy_sweep_of_classes")
@dataclass(frozen=True)
class Classes(Fated):
    """Two classes, drawn by lot."""

    problem: ClassVar = "classification"

    @property
    def output_size(self):
        return 2

    def split(self, name, seed, epoch):
        drawn = super().split(name, seed, epoch)
        return Arrays(drawn.inputs, (drawn.targets[:, 0] > 0).astype(np.int64))
