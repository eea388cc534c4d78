"""The recurrence types of a layer: a full matrix, a weight for each unit (diagonal), a matrix for each head (block)."""

from dataclasses import dataclass

from recurlab.cells import RECURRENCES
from recurlab.errors import RecurlabError, check_choice, check_integer


@dataclass(frozen=True)
class Recurrence:
    """The shape of the recurrent weight of a layer with G gates and H units.

    ``dense``: (G*H, H). ``diagonal``: (G*H,), the independent cells. ``block``: (G*H, H/heads), row
    g*H + j holding the weights of unit j's gate g on the units of its own head; heads=1 is dense,
    heads=H is diagonal.
    """

    kind: str = "dense"
    heads: int = 1

    def __post_init__(self) -> None:
        check_choice("recurrence", self.kind, RECURRENCES)
        check_integer("heads", self.heads)
        if self.heads != 1 and self.kind != "block":
            raise RecurlabError(f"heads={self.heads}: only recurrence='block' has heads, this one is {self.kind!r}")

    def fan_in(self, hidden_size: int) -> int:
        """Return how many units each unit reads."""
        return {"dense": hidden_size, "diagonal": 1, "block": hidden_size // self.heads}[self.kind]

    def weight_shape(self, gates: int, hidden_size: int) -> tuple[int, ...]:
        """Return the shape of the recurrent weight; heads that don't divide `hidden_size` are an error."""
        if hidden_size % self.heads:
            raise RecurlabError(f"heads={self.heads}: must divide hidden_size={hidden_size}")
        rows = gates * hidden_size
        return (rows,) if self.kind == "diagonal" else (rows, self.fan_in(hidden_size))
