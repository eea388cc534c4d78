"""Batch normalisation of sequences."""

import torch
from torch import Tensor, nn


class BatchNormOverTime(nn.Module):
    """Batch normalisation with statistics over batch and time together (Li et al., arXiv 1910.06251).

    Masked steps are left out of the statistics and are 0 in the output. In evaluation, with the
    statistics of training, all steps are normalised and the masked ones set to 0 afterwards, so
    that shapes do not depend on the mask.
    """

    def __init__(self, features: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(features)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """Normalise x (T, B, F) at the steps where `mask` (T, B) is True."""
        if mask is None or not self.training:
            normal: Tensor = self.norm(x.flatten(0, 1)).view_as(x)
            return normal if mask is None else normal.masked_fill(~mask.unsqueeze(-1), 0)
        valid = self.norm(x[mask])
        return torch.zeros_like(x, dtype=valid.dtype).masked_scatter(mask.unsqueeze(-1), valid)
