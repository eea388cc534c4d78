"""What data sets with sequences of different lengths share."""

import numpy as np
from numpy.typing import NDArray

from recurlab.data.data import Ragged


def take(ragged: Ragged, rows: NDArray[np.generic]) -> Ragged:
    """Return some of the sequences: `rows` are their numbers, in the order wanted, or a boolean for each sequence."""
    starts = np.cumsum(ragged.lengths) - ragged.lengths
    lengths = ragged.lengths[rows]
    moved = starts[rows] - (np.cumsum(lengths) - lengths)  # how far each sequence moves
    steps = np.arange(lengths.sum()) + np.repeat(moved, lengths)
    return Ragged(ragged.inputs[steps], lengths, ragged.targets[steps if ragged.per_step else rows], ragged.per_step)


def standardised(train_inputs: NDArray[np.generic], inputs: NDArray[np.generic]) -> NDArray[np.float32]:
    """Return `inputs` (S, C), standardised channel by channel with mean and deviation of `train_inputs`.

    A channel that is constant in training is only shifted.
    """
    mean, deviation = moments(train_inputs)
    scaled: NDArray[np.float64] = (inputs.astype(np.float64) - mean) / deviation
    return scaled.astype(np.float32)


def moments(values: NDArray[np.generic]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return mean and standard deviation of each column of `values` (N, C).

    A deviation of 0, or too small to divide float32 by, is returned as 1.
    """
    known = values.astype(np.float64)
    deviation = known.std(axis=0)
    varies = (known.max(axis=0) > known.min(axis=0)) & (deviation >= np.finfo(np.float32).tiny)
    return known.mean(axis=0), np.where(varies, deviation, 1)
