"""The random masks of a layer, all drawn here from torch's generator."""

import torch
from torch import Tensor
from torch.nn import functional as F


def dropout_factor(like: Tensor, shape: tuple[int, ...], p: float, training: bool) -> Tensor | None:
    """Return a factor of `shape`, 0 with probability p and else 1 / (1 - p); None where it would be 1 everywhere."""
    if p == 0 or not training:
        return None
    return F.dropout(like.new_ones(shape), p)


def keep_mask(like: Tensor, shape: tuple[int, ...], p: float, training: bool) -> Tensor | None:
    """Return a boolean mask of `shape`, True with probability p; None where nothing is drawn."""
    if p == 0 or not training:
        return None
    return torch.rand(shape, device=like.device) < p


def sequence_dropout(x: Tensor, p: float, training: bool, *, shared: bool) -> Tensor:
    """Return x (T, B, F) after dropout, with one mask for all steps where `shared`."""
    if not shared:
        return F.dropout(x, p, training)
    factor = dropout_factor(x, (1, *x.shape[1:]), p, training)
    return x if factor is None else x * factor
