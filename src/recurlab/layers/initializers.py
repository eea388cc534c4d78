"""How weights start. Each initialiser is a dataclass of its options and fills a weight in place.

A weight comes as (gates, heads, rows, columns): (G, 1, H, I) for an input weight, (G, 1, H, H)
dense, (G, H, 1, 1) diagonal, (G, heads, H/heads, H/heads) block, and (G, 1, H, 1) for a bias. torch
is imported where it is used, so that a config can be checked without it.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from recurlab.errors import RecurlabError, check_integer, check_number

if TYPE_CHECKING:
    from torch import Tensor


class Initializer:
    """Fills a weight of shape (gates, heads, rows, columns)."""

    def __call__(self, weight: "Tensor") -> None:
        """Fill `weight` in place; the caller has switched gradients off."""
        raise TypeError(f"the initializer {type(self).__name__} fills nothing")


@dataclass(frozen=True)
class Uniform(Initializer):
    """U(low, high)."""

    low: float = -0.1
    high: float = 0.1

    def __post_init__(self) -> None:
        check_number("uniform.low", self.low)
        check_number("uniform.high", self.high)
        if not self.low < self.high:
            raise RecurlabError(f"uniform.low={self.low!r}: must be less than uniform.high={self.high!r}")

    def __call__(self, weight: "Tensor") -> None:
        weight.uniform_(self.low, self.high)


@dataclass(frozen=True)
class Normal(Initializer):
    """N(mean, std^2)."""

    std: float = 0.01
    mean: float = 0.0

    def __post_init__(self) -> None:
        check_number("normal.std", self.std, low=0)
        check_number("normal.mean", self.mean)

    def __call__(self, weight: "Tensor") -> None:
        weight.normal_(self.mean, self.std)


@dataclass(frozen=True)
class Constant(Initializer):
    """One value everywhere."""

    value: float = 0.0

    def __post_init__(self) -> None:
        check_number("constant.value", self.value)

    def __call__(self, weight: "Tensor") -> None:
        weight.fill_(self.value)


@dataclass(frozen=True)
class Glorot(Initializer):
    """U(-a, a), a = gain * sqrt(6 / (fan_in + fan_out)) (Glorot and Bengio, 2010, equation 16).

    With `per_gate` fan_out is H, a gate's own; otherwise G*H as in Keras, where a kernel is one
    matrix for all gates.
    """

    gain: float = 1.0
    per_gate: bool = True

    def __post_init__(self) -> None:
        check_number("glorot.gain", self.gain, above=0)

    def __call__(self, weight: "Tensor") -> None:
        gates, _, rows, columns = weight.shape
        fan_out = rows if self.per_gate else gates * rows
        bound = self.gain * (6 / (columns + fan_out)) ** 0.5
        weight.uniform_(-bound, bound)


@dataclass(frozen=True)
class Orthogonal(Initializer):
    """A (semi-)orthogonal matrix times `gain` (Saxe et al., arXiv 1312.6120), one per gate or one for all gates."""

    gain: float = 1.0
    per_gate: bool = True

    def __post_init__(self) -> None:
        check_number("orthogonal.gain", self.gain)

    def __call__(self, weight: "Tensor") -> None:
        import torch

        by_head = weight.transpose(0, 1)  # (heads, gates, rows, columns)
        for head in by_head:
            for matrix in head if self.per_gate else [head]:
                fresh = matrix.new_empty(matrix.numel() // matrix.shape[-1], matrix.shape[-1])
                matrix.copy_(torch.nn.init.orthogonal_(fresh, self.gain).view_as(matrix))


@dataclass(frozen=True)
class Identity(Initializer):
    """The identity times `gain` for each gate and head (IRNN: Le et al., arXiv 1504.00941)."""

    gain: float = 1.0

    def __post_init__(self) -> None:
        check_number("identity.gain", self.gain)

    def __call__(self, weight: "Tensor") -> None:
        import torch

        rows, columns = weight.shape[-2:]
        weight.copy_(self.gain * torch.eye(rows, columns, dtype=weight.dtype, device=weight.device).expand_as(weight))


@dataclass(frozen=True)
class IndRNN(Initializer):
    """U(min_gamma^(1/steps), gamma^(1/steps)), from 0 where min_gamma is 0.

    After `steps` steps a state is then scaled by at most gamma (Li et al., arXiv 1803.04831).
    """

    gamma: float = 2.0
    min_gamma: float = 0.0
    steps: int = 1

    def __post_init__(self) -> None:
        check_number("indrnn.gamma", self.gamma, above=0)
        check_number("indrnn.min_gamma", self.min_gamma, low=0, high=self.gamma)
        check_integer("indrnn.steps", self.steps)

    def __call__(self, weight: "Tensor") -> None:
        weight.uniform_(self.min_gamma ** (1 / self.steps), self.gamma ** (1 / self.steps))
