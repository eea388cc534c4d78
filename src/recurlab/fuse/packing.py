"""How a batch of sequences padded at the right is packed, so that kernels and products do its valid steps alone."""

from functools import cached_property

import numpy as np
import torch
from torch import Tensor


class Packing:
    """The rows of a packed batch: one for each of its N valid steps, of T steps and B samples.

    As in a PackedSequence the rows of a step lie side by side, those of the longest samples first.

    Attributes:
        lengths: int64, (B,), each from 1 to T, on the CPU.
        steps: T.
    """

    def __init__(self, lengths: Tensor, steps: int) -> None:
        self.lengths, self.steps = lengths, steps
        self._places: dict[bool, Tensor] = {}

    @cached_property
    def order(self) -> Tensor:
        """The samples by their lengths, the longest first: int64, (B,)."""
        return self.lengths.argsort(descending=True, stable=True)

    @cached_property
    def rows(self) -> Tensor:
        """The first row of each step, and N: int64, (T + 1,)."""
        ending = np.bincount(self.lengths.numpy(), minlength=self.steps + 1)
        rows = np.zeros(self.steps + 1, np.int64)
        np.cumsum(len(self.lengths) - np.cumsum(ending[:-1]), out=rows[1:])
        return torch.from_numpy(rows)

    def places(self, *, batch_first: bool) -> Tensor:
        """Return where each row lies among the steps of an unpacked batch (T, B) or (B, T): int64, (N,)."""
        if batch_first not in self._places:
            self._places[batch_first] = self._find_places(batch_first)
        return self._places[batch_first]

    def _find_places(self, batch_first: bool) -> Tensor:
        order, lengths = self.order.numpy(), self.lengths.numpy()
        steps, batch = np.arange(self.steps)[:, None], len(order)
        places = order * self.steps + steps if batch_first else steps * batch + order
        return torch.from_numpy(places[steps < lengths[order]])
