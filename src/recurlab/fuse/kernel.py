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


@dataclass(slots=True)
class Work:
    """One call of a kernel, over all directions.

    The tensors have the names of the table `DIRECTION`, which gives the shape of one direction's
    part. Of those in `SIDE_BY_SIDE` the directions share the last dimension; every other one has the
    directions as its first dimension and is contiguous. Where a cell has several states or phases,
    they are the second dimension; those that are missing from it are the first ones.

    Attributes:
        steps: the first one of this call, and the one after its last.
        width: units of a head; 1 for a diagonal recurrence.
        x_from: the first step that `x` has.
        mask, rows, order, zoneout, hold, training, grad: as in `Arguments`.
    """

    x: Tensor
    weight: Tensor
    output: Tensor
    start: Tensor
    end: Tensor
    steps: tuple[int, int]
    width: int
    mask: Tensor | None
    rows: Tensor | None
    order: Tensor | None
    zoneout: Sequence[float]
    hold: bool
    training: bool
    grad: bool
    x_from: int = 0
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
    d_end: Tensor | None = None
    d_x: Tensor | None = None
    d_held: Tensor | None = None
    d_recur: Tensor | None = None
    d_start: Tensor | None = None
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
        return self.start.shape[0]

    @property
    def units(self) -> int:
        """H."""
        return self.start.shape[3]


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
        packs: whether it takes packed batches.
        operand_is_state, own_gates, kept_gates, text: what is known of the cell's step, see
            `generate`.
        same: the ranges of gates, as first and last + 1, of which the two biases have the same
            gradient.
        runs: for each phase, its gates that lie side by side in the weight and in a gradient: first,
            last + 1, the first one's index in the gradient, and whether that is d_recur, not d_x.
    """

    keeps_origins = False
    packs = False

    def __init__(self, cell: Cell, kind: str, storage: torch.dtype, dtype: torch.dtype, norm: str = "") -> None:
        self.cell, self.kind, self.storage, self.normalized = cell, kind, storage, bool(norm)
        step = trace(cell, dtype, norm)
        self.results = len(step.results)
        slots = sum(len(phase) for phase in cell.phases)
        self.moments = 2 * (len(cell.gates) + slots + 1 if norm == "gate" else 1 + len(step.phases))
        self.operand_is_state, self.own_gates = operand_is_state(step), own_gates(step)
        self.kept_gates = kept_gates(step)
        self.text = generate(step)
        gates, own = cell.gates, self.own_gates
        recurrent = [gate for phase in cell.phases for gate in phase]
        same = [i for i, gate in enumerate(gates) if gate in recurrent and gate not in own]
        self.same = [(first, last) for first, last, _ in _side_by_side([(i, i) for i in same])]
        self.runs = [
            [
                *((*run, False) for run in _side_by_side([(gates.index(g),) * 2 for g in phase if g not in own])),
                *((*run, True) for run in _side_by_side([(gates.index(g), own.index(g)) for g in phase if g in own])),
            ]
            for phase in cell.phases
        ]

    @abstractmethod
    def forward(self, work: Work) -> None:
        """Fill the outputs of a call."""

    @abstractmethod
    def backward(self, work: Work) -> None:
        """Fill the gradients of a call."""

    def multiply(self, out: Tensor, left: Tensor, right: Tensor, *, add: bool = False, **picked: Tensor | None) -> None:
        """Set a matrix to the product of two others, or add it; see `recurlab.fuse.cpu.product.multiply`."""
        if (rows := picked.get("left_rows")) is not None:
            left = left.index_select(0, rows)
        if (rows := picked.get("right_rows")) is not None:
            right = right.index_select(0, rows)
        if (rows := picked.get("out_rows")) is not None:
            out.index_copy_(0, rows, torch.mm(left, right).to(out.dtype))
        elif left.dtype != out.dtype:
            product = torch.mm(left, right)
            out.copy_(out + product if add else product)
        elif add:
            out.addmm_(left, right)
        else:
            torch.mm(left, right, out=out)

    @abstractmethod
    def parts(self, work: Work) -> int:
        """Return how many rows the backward leaves of the sums over time, to be summed up."""

    @abstractmethod
    def steps_at_a_time(self, start: Tensor, steps: int) -> int:
        """Return how many of the steps one call takes, of the backward and of the forward of a dense kernel.

        Args:
            start: (D, S, B, H), the states before the sequence.
            steps: of the sequence.
        """

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
            "grad": work.grad, "mask": address(work.mask), "zoneout": work.zoneout,
        }  # fmt: skip

    def unfit(self, units: int, width: int) -> str | None:
        """Return None, or why no kernel can serve a layer of so many units, `width` of them a head."""
        return None


def _strides(tensor: Tensor) -> tuple[int, int]:
    """Return the strides of steps and samples; of a packed tensor (N, F) that of its rows is the samples'."""
    *steps, samples, _ = tensor.stride()
    return steps[0] if steps else 0, samples


def _side_by_side(pairs: Sequence[tuple[int, int]]) -> list[tuple[int, int, int]]:
    """Return the runs of pairs of which each number is one more than in the pair before.

    Of each run: its first number, the one after its last, and the number that the first is paired
    with.
    """
    runs: list[tuple[int, int, int]] = []
    for row, column in pairs:
        first, last, begin = runs[-1] if runs else (0, -1, 0)
        if row == last and column == begin + row - first:
            runs[-1] = first, row + 1, begin
        else:
            runs.append((row, row + 1, column))
    return runs
