"""Numbers that are learnt with mean 0 and variance 1, in the units that they are measured in."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class Units(nn.Module):
    """Gives each number of an answer its standard deviation and mean back. Both are kept with the weights.

    Args:
        moments: mean and standard deviation of each number.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, moments: Sequence[tuple[float, float]]) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor([mean for mean, _ in moments]))
        self.register_buffer("deviation", torch.tensor([deviation for _, deviation in moments]))

    def forward(self, answers: Tensor) -> Tensor:
        """Return answers (..., O) in their units."""
        return answers * self.deviation + self.mean
