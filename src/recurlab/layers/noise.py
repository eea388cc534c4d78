"""The random masks of a layer, all drawn here from torch's generator."""

from math import prod

import torch
from torch import Tensor
from torch.nn import functional as F

LEVELS = 2**16  # of the random number of a unit


def dropout_factor(like: Tensor, shape: tuple[int, ...], p: float, training: bool) -> Tensor | None:
    """Return a factor of `shape`, 0 with probability p and else 1 / (1 - p); None where it would be 1 everywhere."""
    if p == 0 or not training:
        return None
    return F.dropout(like.new_ones(shape), p)


def keep_mask(like: Tensor, shape: tuple[int, ...], p: float, training: bool) -> Tensor | None:
    """Return a boolean mask of `shape`, True with probability p; None where nothing is drawn."""
    if p == 0 or not training:
        return None
    if p > 1 - 1 / LEVELS:
        return torch.rand(shape, device=like.device) < p
    # A float a unit would cost as much as a fused step: four units share the 64 bits of one draw.
    count = prod(shape)
    bits = torch.empty(-(-count // 4), dtype=torch.int64, device=like.device).random_(-(2**63), None)
    # A threshold rounded at random, up or down, makes the probability exactly p.
    threshold = torch.floor(p * LEVELS + torch.rand((), device=like.device)) - LEVELS // 2
    return bits.view(torch.int16)[:count].view(shape) < threshold.to(torch.int16)


def sequence_dropout(x: Tensor, p: float, training: bool, *, shared: bool) -> Tensor:
    """Return x (T, B, F) after dropout, with one mask for all steps where `shared`."""
    if not shared:
        return F.dropout(x, p, training)
    factor = dropout_factor(x, (1, *x.shape[1:]), p, training)
    return x if factor is None else x * factor
