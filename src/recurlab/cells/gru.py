"""The gated recurrent unit, its reset gate after or before the recurrence."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from recurlab.cells.activations import activation, check_activation
from recurlab.cells.cell import Cell
from recurlab.errors import check_choice

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class GRU(Cell):
    """``h' = (1 - z) * n + z * h`` (Cho et al., arXiv 1406.1078, equations 5 to 8).

    ``reset="after"``: ``n = phi(W x + b_in + r * (R h + b_hn))``, as cuDNN and the paper's first
    version; ``reset="before"``: ``n = phi(W x + R (r * h) + b)``, as the third version and
    TensorFlow's GRUCell. phi is the `activation`, that of the gates r and z the
    `recurrent_activation`; None is linear.
    """

    reset: str = "after"
    activation: str | None = "tanh"
    recurrent_activation: str | None = "sigmoid"
    gates: ClassVar = ("reset", "update", "candidate")

    def __post_init__(self) -> None:
        check_choice("reset", self.reset, ("after", "before"))
        check_activation("activation", self.activation)
        check_activation("recurrent_activation", self.recurrent_activation)

    def step(self, x: Any, h: "Tensor", recur: Any) -> "Tensor":
        """Return h' (B, H)."""
        phi = activation(self.activation)
        sigma = activation(self.recurrent_activation)
        r = sigma(x.reset + recur.reset(h))
        z = sigma(x.update + recur.update(h))
        inner: Tensor = r * recur.candidate(h) if self.reset == "after" else recur.candidate(r * h)
        n = phi(x.candidate + inner)
        return (1 - z) * n + z * h
