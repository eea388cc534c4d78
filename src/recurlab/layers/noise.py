"""The random masks of a layer, all drawn here from torch's generator."""

import torch
from torch import Tensor
from torch.nn import functional as F

LEVELS = 2**16  # of the random number of a unit
DRAWN = 2**18  # units drawn at a time, to stay in the cache


def dropout_factor(like: Tensor, shape: tuple[int, ...], p: float, training: bool) -> Tensor | None:
    """Return a factor of `shape`, 0 with probability p and else 1 / (1 - p); None where it would be 1 everywhere."""
    if p == 0 or not training:
        return None
    return F.dropout(like.new_ones(shape), p)


def keep_mask(like: Tensor, shape: tuple[int, ...], p: float, training: bool) -> Tensor | None:
    """Return a boolean mask of `shape`, True with probability p; None where nothing is drawn."""
    if p == 0 or not training:
        return None
    if like.device.type != "cpu":
        return torch.rand(shape, device=like.device) < p
    # The seed is drawn outside of the operator: two of the same arguments would be merged in a compiled graph.
    mask: Tensor = draw(torch.randint(2**63 - 1, ()), list(shape), p)
    return mask


@torch.library.custom_op("recurlab::draw", mutates_args=())
def draw(seed: Tensor, shape: list[int], p: float) -> Tensor:
    """Return a boolean mask of `shape`, each element True with probability p."""
    generator = torch.Generator().manual_seed(int(seed))
    if p * LEVELS > LEVELS - 2:
        return torch.rand(shape, generator=generator) < p
    # A float a unit would cost as much as a fused step: four units share the 64 bits of one draw.
    mask = torch.empty(shape, dtype=torch.bool)
    flat = mask.view(-1)
    bits = torch.empty(-(-min(flat.numel(), DRAWN) // 4), dtype=torch.int64)
    # A threshold rounded at random, up or down, makes the probability exactly p.
    threshold = int(p * LEVELS + float(torch.rand((), dtype=torch.float64, generator=generator))) - LEVELS // 2
    for part in torch.split(flat, DRAWN):
        bits.random_(-(2**63), None, generator=generator)
        torch.lt(bits.view(torch.int16)[: part.numel()], threshold, out=part)
    return mask


@draw.register_fake
def _(seed: Tensor, shape: list[int], p: float) -> Tensor:
    return seed.new_empty(shape, dtype=torch.bool)


def sequence_dropout(x: Tensor, p: float, training: bool, *, shared: bool) -> Tensor:
    """Return x (T, B, F) after dropout, with one mask for all steps where `shared`."""
    if not shared:
        # Drawn in the order of T and B, however a backend's output lies in memory.
        return F.dropout(x.contiguous() if p and training else x, p, training)
    factor = dropout_factor(x, (1, *x.shape[1:]), p, training)
    return x if factor is None else x * factor
