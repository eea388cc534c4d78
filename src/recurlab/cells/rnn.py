"""The simple recurrent network of Elman (Finding structure in time, 1990), and with it the IndRNN."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from recurlab.cells.activations import activation, check_activation
from recurlab.cells.cell import Cell

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Elman(Cell):
    """``h' = phi(W x + R h + b)``.

    With a diagonal recurrence and ReLU this is the IndRNN (Li et al., arXiv 1803.04831). phi is the
    `activation`; None is linear.
    """

    activation: str | None = "tanh"
    gates: ClassVar = ("hidden",)

    def __post_init__(self) -> None:
        check_activation("activation", self.activation)

    def step(self, x: Any, h: "Tensor", recur: Any) -> "Tensor":
        """Return h' (B, H)."""
        phi = activation(self.activation)
        return phi(x.hidden + recur.hidden(h))
