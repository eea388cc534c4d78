"""How a batch of sequences padded at the right is packed, so that kernels and products do its valid steps alone."""

from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence

from recurlab.fuse.cpu import packed


class Packing:
    """The rows of a packed batch: one for each of its N valid steps, of T steps and B samples.

    As in a PackedSequence the rows of a step lie side by side, those of the longest samples first.

    Attributes:
        lengths: int64, (B,), each from 1 to T, on the CPU.
        steps: T.
    """

    def __init__(self, lengths: Tensor, steps: int, plan: tuple[Tensor, Tensor] | None = None) -> None:
        self.lengths, self.steps = lengths.contiguous(), steps
        self._plan = plan
        self._places: dict[bool, Tensor] = {}

    @staticmethod
    def of(sequence: PackedSequence) -> "Packing | None":
        """Return how a PackedSequence on the CPU is packed; None if its parts do not belong together."""
        sizes, order = sequence.batch_sizes.contiguous(), sequence.sorted_indices
        if order is None:
            order = torch.arange(int(sizes[0]) if len(sizes) else 0)
        kinds = {(each.dtype, each.device.type, each.dim()) for each in (sizes, order)}
        found = packed.read(sizes, order.contiguous()) if kinds == {(torch.int64, "cpu", 1)} else None
        if found is None or int(found[0][-1]) != len(sequence.data):
            return None
        return Packing(found[1], len(sizes), (found[0], order))

    @property
    def rows(self) -> Tensor:
        """The first row of each step, and N: int64, (T + 1,)."""
        return self._planned()[0]

    @property
    def order(self) -> Tensor:
        """The samples by their lengths, the longest first: int64, (B,)."""
        return self._planned()[1]

    @cached_property
    def mask(self) -> Tensor:
        """Boolean (T, B), True where a step is valid."""
        return torch.arange(self.steps).unsqueeze(1) < self.lengths

    def places(self, *, batch_first: bool) -> Tensor:
        """Return where each row lies among the steps of an unpacked batch (T, B) or (B, T): int64, (N,)."""
        if batch_first not in self._places:
            self._places[batch_first] = packed.places(*self._planned(), batch_first=batch_first)
        return self._places[batch_first]

    def pack(self, padded: Tensor) -> Tensor:
        """Return the rows (N, F) of a padded batch (T, B, F)."""
        return _Pack.apply(padded, self)  # type: ignore[no-any-return, no-untyped-call]

    def unpack(self, data: Tensor) -> Tensor:
        """Return the padded batch (T, B, F) of these rows (N, F), with zeros as padding."""
        return _Unpack.apply(data, self)  # type: ignore[no-any-return, no-untyped-call]

    def _planned(self) -> tuple[Tensor, Tensor]:
        if self._plan is None:
            self._plan = packed.plan(self.lengths, self.steps)
        return self._plan


class _Pack(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, padded: Tensor, packing: Packing) -> Tensor:
        ctx.packing = packing
        return packed.pack(padded, packing.rows, packing.order)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return ctx.packing.unpack(gradient), None


class _Unpack(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, data: Tensor, packing: Packing) -> Tensor:
        ctx.packing = packing
        return packed.unpack(data, packing.rows, packing.order)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return ctx.packing.pack(gradient), None
