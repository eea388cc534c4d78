"""The simple recurrent network of Elman (Finding structure in time, 1990), and with it the IndRNN."""

from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from recurlab.cells.activations import ACTIVATIONS, Activation
from recurlab.cells.cell import Cell


@dataclass(frozen=True)
class Elman(Cell):
    """``h' = phi(W x + R h + b)``.

    With a diagonal recurrence and ReLU this is the IndRNN (Li et al., arXiv 1803.04831).
    """

    activation: str = "tanh"
    gates: ClassVar = ("hidden",)

    def __post_init__(self) -> None:
        ACTIVATIONS.check("activation", self.activation)

    def step(self, x: Any, h: Tensor, recur: Any) -> Tensor:
        """Return h' (B, H)."""
        phi: Activation = ACTIVATIONS[self.activation]
        return phi(x.hidden + recur.hidden(h))
