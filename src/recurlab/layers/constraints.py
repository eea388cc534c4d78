"""Constraints that hold weights in bounds, applied after each step of the optimiser."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from recurlab.errors import check_integer, check_number

if TYPE_CHECKING:
    from torch import Tensor


class Constraint:
    """Projects a weight onto the values that are allowed."""

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
class NonNegative(Constraint):
    """u >= 0, element by element."""

    def __call__(self, weight: "Tensor") -> None:
        weight.clamp_(min=0)


@dataclass(frozen=True)
class MaxNorm(Constraint):
    """The weights that feed a gate of a unit have a Euclidean norm of at most `value`.

    Srivastava et al., JMLR 2014, section 5.1.
    """

    value: float = 2.0

    def __post_init__(self) -> None:
        check_number("max_norm.value", self.value, above=0)

    def __call__(self, weight: "Tensor") -> None:
        rows = weight.view(len(weight), -1)
        rows *= (self.value / rows.norm(dim=1, keepdim=True)).clamp(max=1)


@dataclass(frozen=True)
class UnitNorm(Constraint):
    """The weights that feed a gate of a unit have a Euclidean norm of 1, unless all are 0."""

    def __call__(self, weight: "Tensor") -> None:
        rows = weight.view(len(weight), -1)
        norm = rows.norm(dim=1, keepdim=True)
        rows /= norm.where(norm > 0, 1)


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
