"""The long short-term memory with a forget gate."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from recurlab.cells.activations import activation, check_activation
from recurlab.cells.cell import Cell

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class LSTM(Cell):
    """``c' = f * c + i * g``, ``h' = o * phi(c')`` (Gers et al., Learning to forget, 2000).

    With layer normalisation ``h' = o * phi(LN(c'))`` (Ba et al., arXiv 1607.06450, equations 20 to
    22). phi is the `activation`, that of the gates i, f and o the `recurrent_activation`; None is
    linear.
    """

    activation: str | None = "tanh"
    recurrent_activation: str | None = "sigmoid"
    gates: ClassVar = ("input", "forget", "cell", "output")
    states: ClassVar = ("h", "c")

    def __post_init__(self) -> None:
        check_activation("activation", self.activation)
        check_activation("recurrent_activation", self.recurrent_activation)

    def step(self, x: Any, state: tuple["Tensor", "Tensor"], recur: Any) -> tuple["Tensor", "Tensor"]:
        """Return (h', c'), each (B, H)."""
        h, c = state
        phi = activation(self.activation)
        sigma = activation(self.recurrent_activation)
        i = sigma(x.input + recur.input(h))
        f = sigma(x.forget + recur.forget(h))
        g = phi(x.cell + recur.cell(h))
        o = sigma(x.output + recur.output(h))
        c = f * c + i * g
        return o * phi(recur.normalize(c)), c
