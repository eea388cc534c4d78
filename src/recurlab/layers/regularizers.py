"""What is added to the loss for large weights or outputs. Each regulariser is a dataclass of its options.

A weight comes as (gates, heads, rows, columns), as `recurlab.layers.initializers` says; an output
as it is.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from recurlab.errors import RecurlabError, check_number

if TYPE_CHECKING:
    from torch import Tensor


class Regularizer:
    """Maps a weight to what it adds to the loss."""

    def __call__(self, weight: "Tensor") -> "Tensor":
        """Return a number, (), differentiable by `weight`."""
        raise TypeError(f"the regularizer {type(self).__name__} regularizes nothing")


@dataclass(frozen=True)
class L1(Regularizer):
    """value * sum |w|."""

    value: float = 0.01

    def __post_init__(self) -> None:
        check_number("l1.value", self.value, low=0)

    def __call__(self, weight: "Tensor") -> "Tensor":
        return self.value * weight.abs().sum()


@dataclass(frozen=True)
class L2(Regularizer):
    """value * sum w^2."""

    value: float = 0.01

    def __post_init__(self) -> None:
        check_number("l2.value", self.value, low=0)

    def __call__(self, weight: "Tensor") -> "Tensor":
        return self.value * weight.square().sum()


@dataclass(frozen=True)
class L1L2(Regularizer):
    """l1 * sum |w| + l2 * sum w^2."""

    l1: float = 0.01
    l2: float = 0.01

    def __post_init__(self) -> None:
        check_number("l1_l2.l1", self.l1, low=0)
        check_number("l1_l2.l2", self.l2, low=0)

    def __call__(self, weight: "Tensor") -> "Tensor":
        return self.l1 * weight.abs().sum() + self.l2 * weight.square().sum()


@dataclass(frozen=True)
class Orthogonal(Regularizer):
    """value * the mean of |cos| over the pairs of columns of a head's weight, all gates below each other.

    A column is what one input or unit sends to all gates: a row for Keras, whose
    OrthogonalRegularizer with mode="rows" this is.
    """

    value: float = 0.01

    def __post_init__(self) -> None:
        check_number("orthogonal.value", self.value, low=0)

    def __call__(self, weight: "Tensor") -> "Tensor":
        import torch

        if weight.dim() != 4 or weight.shape[-1] < 2:
            raise RecurlabError(f"orthogonal: needs a matrix of two or more columns, not {tuple(weight.shape)}")
        columns = weight.shape[-1]
        unit = torch.nn.functional.normalize(weight.transpose(0, 1).flatten(1, 2), dim=1, eps=1e-6)
        cosines = (unit.mT @ unit).abs()
        apart = cosines.sum() - cosines.diagonal(dim1=-2, dim2=-1).sum()
        return self.value * apart / (len(unit) * columns * (columns - 1))
