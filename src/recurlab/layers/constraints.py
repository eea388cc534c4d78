"""What holds the recurrent weights in bounds, applied after each step of the optimiser."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from recurlab.errors import check_integer, check_number

if TYPE_CHECKING:
    from torch import Tensor


class Constraint:
    """Projects a recurrent weight onto what is allowed."""

    def __call__(self, weight: "Tensor") -> None:
        """Change `weight` in place; the caller has switched gradients off."""
        raise TypeError(f"the constraint {type(self).__name__} constrains nothing")


@dataclass(frozen=True)
class MaxAbs(Constraint):
    """|u| <= value, element by element."""

    value: float = 1.0

    def __post_init__(self) -> None:
        check_number("max_abs.value", self.value, above=0)

    def __call__(self, weight: "Tensor") -> None:
        weight.clamp_(-self.value, self.value)


@dataclass(frozen=True)
class IndRNNBound(Constraint):
    """|u| <= gamma^(1/steps): no gradient grows by more than gamma over `steps` (Li et al., arXiv 1803.04831)."""

    gamma: float = 2.0
    steps: int = 1

    def __post_init__(self) -> None:
        check_number("indrnn.gamma", self.gamma, above=0)
        check_integer("indrnn.steps", self.steps)

    def __call__(self, weight: "Tensor") -> None:
        bound = self.gamma ** (1 / self.steps)
        weight.clamp_(-bound, bound)
