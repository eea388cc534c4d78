"""The noise of a layer, all drawn here from torch's generator."""

import warnings

import torch
from torch import Tensor
from torch.nn import functional as F

from recurlab.errors import RecurlabError, check_probability


def dropout_factor(like: Tensor, shape: tuple[int, ...], p: float, training: bool) -> Tensor | None:
    """Return a factor of `shape`, 0 with probability p and else 1 / (1 - p); None where it would be 1 everywhere."""
    if p == 0 or not training:
        return None
    return F.dropout(like.new_ones(shape), p)


def check_rates(num_layers: int, **rates: float) -> None:
    """Raise for a rate that is no probability; warn, as torch does, of a dropout between layers that has no effect."""
    for key, p in rates.items():
        check_probability(key, p)
    if rates["dropout"] and num_layers == 1:
        told = f"dropout={rates['dropout']}: acts between layers, it has no effect with num_layers=1"
        warnings.warn(told, stacklevel=3)  # in the caller of the layer


def per_state(zoneout: float | tuple[float, ...], states: tuple[str, ...]) -> tuple[float, ...]:
    """Return one probability for each of a cell's states."""
    values = tuple(zoneout) if isinstance(zoneout, tuple | list) else (zoneout,) * len(states)
    if len(values) != len(states):
        raise RecurlabError(f"zoneout={zoneout!r}: must be one number, or one for each of {', '.join(states)}")
    for p in values:
        check_probability("zoneout", p)
    return values


def zoneout_seed(like: Tensor, zoneout: tuple[float, ...], training: bool) -> Tensor | None:
    """Return what the zoneout masks of one direction are computed from: int64, (); None where nothing is drawn."""
    if not any(zoneout) or not training:
        return None
    return torch.randint(-(2**63), 2**63 - 1, (), device=like.device)


def sequence_dropout(x: Tensor, p: float, training: bool, *, shared: bool) -> Tensor:
    """Return x (T, B, F) after dropout, with one mask for all steps where `shared`."""
    if not shared:
        # Drawn in the order of T and B, however a backend's output lies in memory.
        return F.dropout(x.contiguous() if p and training else x, p, training)
    factor = dropout_factor(x, (1, *x.shape[1:]), p, training)
    return x if factor is None else x * factor
