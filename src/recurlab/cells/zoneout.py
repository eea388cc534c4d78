"""What zoneout draws: a function of a seed and of a unit's place, the same on every device and in every backend.

The numbers are those of the counter-based generator Philox 4x32 with 7 rounds (Salmon et al.,
"Parallel random numbers: as easy as 1, 2, 3", 2011), so that a kernel computes them where it needs
them.
"""

import math

import torch
from torch import Tensor

Words = tuple[Tensor, Tensor, Tensor, Tensor]

LOW = 0xFFFFFFFF  # the bits of a word
DRAWN = 2**16  # numbers of four words that are computed at a time, to stay in the caches


def limit(p: float) -> int:
    """Return the largest word of 32 bits by which a unit keeps its value, for a probability; -1 for 0."""
    return math.ceil(p * 2**32) - 1


# An operator, since compilers get integers of 64 bits wrong, and since it need not hold all words at once.
@torch.library.custom_op("recurlab::keep_mask", mutates_args=())
def keep_mask(seed: Tensor, state: int, shape: list[int], p: float) -> Tensor:
    """Return a boolean mask (T, B, H), True where zoneout keeps a unit's previous value, which has probability p.

    Args:
        seed: int64 of shape (), of one direction of a layer; the mask is made on its device.
        state: which of the cell's states, counted from 0.
        shape: T, B, H.
        p: above 0.
    """
    steps, batch, units = shape
    mask = seed.new_empty(shape, dtype=torch.bool)
    fours, samples, columns = (torch.arange(n, device=seed.device) for n in (-(-steps // 4), batch, units))
    key, which = (seed & LOW, seed >> 32 & LOW), seed.new_full((), state)
    size = max(1, DRAWN // max(1, batch * units))
    for some, rows in zip(torch.split(fours, size), torch.split(mask, 4 * size), strict=True):
        drawn = philox((some.view(-1, 1, 1), samples.unsqueeze(1), columns, which), key)
        for k, word in enumerate(drawn):
            row = rows[k::4]
            torch.le(word[: len(row)], limit(p), out=row)
    return mask


@keep_mask.register_fake
def _(seed: Tensor, state: int, shape: list[int], p: float) -> Tensor:
    return seed.new_empty(shape, dtype=torch.bool)


def philox(counter: Words, key: tuple[Tensor, Tensor], rounds: int = 7) -> Words:
    """Return four random words for a counter of four words and a key of two; all are int64 in [0, 2^32)."""
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(rounds):
        (high, low), (other_high, other_low) = _product(c0, 0xD2511F53), _product(c2, 0xCD9E8D57)
        c0, c1, c2, c3 = other_high ^ c1 ^ k0, other_low, high ^ c3 ^ k1, low
        k0, k1 = k0 + 0x9E3779B9 & LOW, k1 + 0xBB67AE85 & LOW
    return c0, c1, c2, c3


def _product(word: Tensor, by: int) -> tuple[Tensor, Tensor]:
    """Return the high and the low word of a product."""
    product = word * by  # beyond 2^63 it wraps to a negative number, of the right bits once masked
    return product >> 32 & LOW, product & LOW
