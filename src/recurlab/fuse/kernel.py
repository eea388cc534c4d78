"""What the kernels of every device have in common: how they are asked, and what they tell of their cell."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from recurlab.cells.cell import Cell
from recurlab.fuse.abi import address
from recurlab.fuse.step.generate import generate, kept_gates, operand_is_state, own_gates
from recurlab.fuse.step.trace import trace


@dataclass
class Pass:
    """The tensors of one direction, by the names of the table `DIRECTION`, which gives their shapes."""

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
    transfer: Tensor | None = None
    carry: Tensor | None = None


@dataclass
class Work:
    """One call of a kernel; see the table `PROBLEM`."""

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
        keeps_origins: whether the backward is to be told where the states before masked and cut
            steps came from.
        operand_is_state, own_gates, kept_gates, text: what is known of the cell's step, see
            `generate`.
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

    def numbers(self, work: Work) -> dict[str, Any]:
        """Return those numbers of a struct `Problem` that the kernels of every device are called with."""
        first = work.passes[0]
        steps, batch, units = first.output.shape
        x_step, x_sample, _ = first.x.stride()
        h_step, h_sample, _ = first.output.stride()
        d_step, d_sample, _ = (0, 0, 0) if first.d_output is None else first.d_output.stride()
        d_x_step, d_x_sample, _ = (0, 0, 0) if first.d_x is None else first.d_x.stride()
        return {
            "steps": steps, "batch": batch, "units": units, "x_step": x_step, "x_sample": x_sample, "h_step": h_step,
            "h_sample": h_sample, "d_step": d_step, "d_sample": d_sample, "d_x_step": d_x_step,
            "d_x_sample": d_x_sample, "directions": len(work.passes), "hold": work.hold, "training": work.training,
            "grad": work.grad, "mask": address(work.mask), "zoneout": work.zoneout,
        }  # fmt: skip

    def unfit(self, units: int, width: int) -> str | None:
        """Return None, or why no kernel can serve a layer of so many units, `width` of them a head."""
        return None
