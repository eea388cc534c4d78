"""A cell and data of a user's own, as they were written for version 0.1.0."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch

import recurlab


@recurlab.register_cell("old_leaky")
class Leaky(recurlab.Cell):
    """A part of the state stays as it is."""

    gates = ("candidate",)

    def __init__(self, leak: float = 0.9) -> None:
        self.leak = leak

    def step(self, x, h, recur):
        return self.leak * h + (1 - self.leak) * torch.tanh(x.candidate + recur.candidate(h))


@recurlab.register_benchmark("old_sums")
@dataclass(frozen=True)
class Sums(recurlab.Benchmark):
    """The sum of a short sequence's numbers."""

    batch_size: int = 8
    eval_batch_size: int = 5
    count: int = 40
    problem: ClassVar = "regression"
    fresh: ClassVar = True
    chance: ClassVar = {"mse": 1.0}
    input_size: ClassVar = 2
    output_size: ClassVar = 1

    def split(self, name, seed, epoch):
        """Return the arrays of a split."""
        rng = np.random.default_rng((len(name), epoch, seed))
        inputs = rng.normal(size=(self.count if name == "train" else 13, 5, 2)).astype(np.float32)
        return recurlab.Arrays(inputs, inputs.mean(1)[:, :1])
