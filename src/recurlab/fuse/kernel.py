"""What the kernels of every device have in common: how they are asked, and what they tell of their cell."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from recurlab.cells.cell import Cell
from recurlab.fuse.step.generate import generate, kept_gates, operand_is_state, own_gates
from recurlab.fuse.step.trace import trace


@dataclass
class Pass:
    """The tensors of one direction, by the names of the kernels' struct `Direction`, which gives their shapes."""

    x: Tensor
    weight: Tensor
    output: Tensor
    start: Sequence[Tensor]
    end: Sequence[Tensor]
    reverse: bool = False
    bias_ih: Tensor | None = None
    bias_hh: Tensor | None = None
    dropout: Tensor | None = None
    cuts: Tensor | None = None
    seed: Tensor | None = None
    saved: Sequence[Tensor | None] = ()
    recur: Tensor | None = None
    entering: Sequence[Tensor | None] = ()
    origin: Tensor | None = None
    d_output: Tensor | None = None
    d_end: Sequence[Tensor | None] = ()
    d_x: Tensor | None = None
    d_held: Tensor | None = None
    d_recur: Tensor | None = None
    d_start: Sequence[Tensor] = ()
    d_weight: Tensor | None = None
    d_bias_ih: Tensor | None = None
    d_bias_hh: Tensor | None = None


@dataclass
class Work:
    """One call of a kernel; see the kernels' struct `Problem`."""

    passes: list[Pass]
    steps: tuple[int, int]
    width: int
    mask: Tensor | None
    zoneout: Sequence[float]
    hold: bool
    training: bool
    grad: bool


class Kernel(ABC):
    """The kernels of one cell.

    Attributes:
        cell: the cell.
        kind: of the loop: diagonal, or dense, which a block recurrence runs in too.
        storage: the type of the sequences in memory.
        keeps_origins: whether the backward is to be told where the states before masked and cut steps came from.
        operand_is_state, own_gates, kept_gates, text: what is known of the cell's step, see `generate`.
    """

    keeps_origins = False

    def __init__(self, cell: Cell, kind: str, storage: torch.dtype, dtype: torch.dtype) -> None:
        self.cell, self.kind, self.storage = cell, kind, storage
        step = trace(cell, dtype)
        self.operand_is_state, self.own_gates = operand_is_state(step), own_gates(step)
        self.kept_gates = kept_gates(step)
        self.text = generate(step)

    @abstractmethod
    def forward(self, work: Work) -> None:
        """Fill the outputs of each pass."""

    @abstractmethod
    def backward(self, work: Work) -> None:
        """Fill the gradients of each pass."""

    @abstractmethod
    def parts(self, work: Work) -> int:
        """Return how many rows the backward leaves of the sums over time, to be summed up."""

    @abstractmethod
    def steps_at_a_time(self, work: Work) -> int:
        """Return how many steps one call of the backward takes."""

    def unfit(self, units: int, width: int) -> str | None:
        """Return None, or why no kernel can serve a layer of so many units, `width` of them a head."""
        return None
