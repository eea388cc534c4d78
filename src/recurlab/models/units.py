"""From standardised numbers, as the head learns them, to the units of the data."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class Units(nn.Module):
    """Scales each number of an answer by its standard deviation and adds its mean. Both are saved with the weights.

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
        """Return answers (..., O) in the units of the data."""
        return answers * self.deviation + self.mean
