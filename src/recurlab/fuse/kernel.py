"""What the kernels of every device have in common: how they are asked, and what they tell of their cell."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from recurlab.cells.cell import Cell
from recurlab.fuse.step.generate import generate, kept_gates, operand_is_state, own_gates
from recurlab.fuse.step.trace import trace


@dataclass(slots=True)
class Work:
    """One call of a kernel, over all directions: a whole pass.

    The tensors have the names of the table `DIRECTION`, which gives the shape of one direction's
    part. Of those in `SIDE_BY_SIDE` the directions share the last dimension; every other one has the
    directions as its first dimension, where there are two, and is contiguous. Where a cell has
    several states, there is a tensor for each, or they are the second dimension, as phases are;
    those that are missing from it are the first ones.

    Attributes:
        chunk: how many steps share the memory of d_x, and of x where it is not kept.
        width: units of a head; 1 for a diagonal recurrence.
        zoneout, hold, training, grad: as in `Setting`.
        mask, rows, order, places: as in `Arguments`.
        input, weight_ih, d_input, d_weight_ih: (T, B, I) and (D*G*H, I), where the call is complete,
            see `Kernel.complete`.
        by_sample: whether input and output lie in memory as (B, T, ...).
    """

    start: Sequence[Tensor]
    end: Sequence[Tensor]
    x: Tensor
    weight: Tensor
    output: Tensor
    chunk: int
    width: int
    zoneout: Sequence[float]
    hold: bool
    training: bool
    grad: bool
    mask: Tensor | None = None
    rows: Tensor | None = None
    order: Tensor | None = None
    places: Tensor | None = None
    input: Tensor | None = None
    weight_ih: Tensor | None = None
    by_sample: bool = False
    bias_ih: Tensor | None = None
    bias_hh: Tensor | None = None
    dropout: Tensor | None = None
    cuts: Tensor | None = None
    seed: Tensor | None = None
    saved: Tensor | None = None
    recur: Tensor | None = None
    entering: Tensor | None = None
    origin: Tensor | None = None
    gain_ih: Tensor | None = None
    gain_hh: Tensor | None = None
    moments: Tensor | None = None
    d_output: Tensor | None = None
    d_end: Sequence[Tensor | None] | None = None
    d_x: Tensor | None = None
    d_held: Tensor | None = None
    d_recur: Tensor | None = None
    d_start: Sequence[Tensor] | None = None
    d_input: Tensor | None = None
    d_weight_ih: Tensor | None = None
    d_weight: Tensor | None = None
    d_bias_ih: Tensor | None = None
    d_bias_hh: Tensor | None = None
    d_gain_ih: Tensor | None = None
    d_gain_hh: Tensor | None = None
    transfer: Tensor | None = None
    carry: Tensor | None = None

    @property
    def directions(self) -> int:
        """D: 2 for a bidirectional layer, else 1."""
        return self.start[0].shape[0]

    @property
    def units(self) -> int:
        """H."""
        return self.start[0].shape[2]


class Kernel(ABC):
    """The kernels of one cell.

    Attributes:
        cell: the cell.
        kind: of the loop: diagonal, or dense, which a block recurrence runs in too.
        storage: the type of the sequences in memory.
        normalized: whether with layer normalisation.
        results: what `recur` gives at a step: G, and one more for a state that is normalised.
        moments: two for each row that layer normalisation has at a step of a sample.
        keeps_origins: whether the backward is to be told where the states before masked and cut
            steps came from.
        operand_is_state, own_gates, kept_gates, text: what is known of the cell's step, see
            `generate`.
    """

    keeps_origins = False

    def __init__(self, cell: Cell, kind: str, storage: torch.dtype, dtype: torch.dtype, norm: str = "") -> None:
        self.cell, self.kind, self.storage, self.normalized = cell, kind, storage, bool(norm)
        step = trace(cell, dtype, norm)
        self.results = len(step.results)
        slots = sum(len(phase) for phase in cell.phases)
        self.moments = 2 * (len(cell.gates) + slots + 1 if norm == "gate" else 1 + len(step.phases))
        self.operand_is_state, self.own_gates = operand_is_state(step), own_gates(step)
        self.kept_gates = kept_gates(step)
        self.text = generate(step)

    @abstractmethod
    def forward(self, work: Work) -> None:
        """Fill the outputs of a call."""

    @abstractmethod
    def backward(self, work: Work) -> None:
        """Fill the gradients of a call, where the loop is dense that of the recurrent weight too."""

    def complete(self, projected: torch.dtype) -> bool:
        """Return whether a pass does the products with the input and its weight, of such a type, too.

        Such a pass takes packed batches.
        """
        return False

    def chunk(self, projected: torch.dtype, start: Tensor, steps: int, *, back: bool) -> int:
        """Return how many of the steps one loop over time takes; all of them where a pass is not complete.

        Args:
            projected: the type of the input.
            start: (D, B, H), a state before the sequence.
            steps: of the sequence.
            back: whether it is the backward.
        """
        return steps

    def unfit(self, units: int, width: int) -> str | None:
        """Return None, or why no kernel can serve a layer of so many units, `width` of them a head."""
        return None

    def numbers(self, work: Work) -> dict[str, Any]:
        """Return those numbers of a struct `Problem` that the kernels of every device are called with."""
        steps, batch, _ = work.output.shape
        x_step, x_sample = _strides(work.x)
        h_step, h_sample, _ = work.output.stride()
        d_step, d_sample, _ = (0, 0, 0) if work.d_output is None else work.d_output.stride()
        d_x_step, d_x_sample = (0, 0) if work.d_x is None else _strides(work.d_x)
        return {
            "steps": steps, "batch": batch, "units": work.units, "x_step": x_step, "x_sample": x_sample,
            "h_step": h_step, "h_sample": h_sample, "d_step": d_step, "d_sample": d_sample, "d_x_step": d_x_step,
            "d_x_sample": d_x_sample, "directions": work.directions, "hold": work.hold, "training": work.training,
            "grad": work.grad, "zoneout": work.zoneout,
        }  # fmt: skip


def _strides(tensor: Tensor) -> tuple[int, int]:
    """Return the strides of steps and samples; of a packed tensor (N, F) that of its rows is the samples'."""
    *steps, samples, _ = tensor.stride()
    return steps[0] if steps else 0, samples
