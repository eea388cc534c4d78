"""The long short-term memory with a forget gate."""

from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor, sigmoid

from recurlab.cells.activations import ACTIVATIONS, Activation
from recurlab.cells.cell import Cell


@dataclass(frozen=True)
class LSTM(Cell):
    """``c' = f * c + i * g``, ``h' = o * phi(c')`` (Gers et al., Learning to forget, 2000)."""

    activation: str = "tanh"
    gates: ClassVar = ("input", "forget", "cell", "output")
    states: ClassVar = ("h", "c")

    def __post_init__(self) -> None:
        ACTIVATIONS.check("activation", self.activation)

    def step(self, x: Any, state: tuple[Tensor, Tensor], recur: Any) -> tuple[Tensor, Tensor]:
        """Return (h', c'), each (B, H)."""
        h, c = state
        phi: Activation = ACTIVATIONS[self.activation]
        i = sigmoid(x.input + recur.input(h))
        f = sigmoid(x.forget + recur.forget(h))
        g = phi(x.cell + recur.cell(h))
        o = sigmoid(x.output + recur.output(h))
        c = f * c + i * g
        return o * phi(c), c
