"""A cell's kernels on a CPU: from tensors to the C structs that the kernels read, and the call."""

import ctypes
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from recurlab.cells.cell import Cell
from recurlab.fuse.compiler import load
from recurlab.fuse.generate import generate, kept_gates, operand_is_state, own_gates
from recurlab.fuse.source import cpu_source
from recurlab.fuse.trace import trace

_forked = False


def _note_fork() -> None:
    global _forked
    _forked = True


if hasattr(os, "register_at_fork"):
    # The OpenMP pool of the parent has no threads in a child, and would wait for them forever.
    os.register_at_fork(after_in_child=_note_fork)


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
    keep: Sequence[Tensor | None] = ()
    saved: Sequence[Tensor | None] = ()
    recur: Tensor | None = None
    entering: Sequence[Tensor | None] = ()
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
    samples: int
    blocks: int
    mask: Tensor | None
    zoneout: Sequence[float]
    hold: bool
    training: bool
    grad: bool


class Kernel:
    """The compiled kernels of one cell, recurrence and dtype."""

    def __init__(self, cell: Cell, kind: str, dtype: torch.dtype) -> None:
        states, phases = len(cell.states), len(cell.phases)
        self.cell, self.kind, self.dtype = cell, kind, dtype
        step = trace(cell, dtype)
        self.operand_is_state, self.own_gates = operand_is_state(step), own_gates(step)
        self.kept_gates = kept_gates(step)
        self.text = generate(step)
        self.library = load(cpu_source(self.text, kind, dtype))
        self.structs = _structs(states, phases, ctypes.c_float if dtype == torch.float32 else ctypes.c_double)

    def forward(self, work: Work) -> None:
        """Fill the outputs of each pass."""
        self.library.forward(ctypes.byref(self._problem(work)))

    def backward(self, work: Work) -> None:
        """Fill the gradients of each pass."""
        self.library.backward(ctypes.byref(self._problem(work)))

    def _problem(self, work: Work) -> ctypes.Structure:
        direction, problem = self.structs
        first = work.passes[0]
        steps, batch = first.x.shape[:2]
        d_x = first.x if first.d_x is None else first.d_x
        d_output = first.output if first.d_output is None else first.d_output
        result = problem(
            steps, batch, first.output.shape[2], work.width, *first.x.stride()[:2], *first.output.stride()[:2],
            *d_output.stride()[:2], *d_x.stride()[:2], *work.steps, work.samples, work.blocks,
            len(work.passes), threads(), work.hold, work.training, work.grad, _pointer(work.mask),
        )  # fmt: skip
        result.zoneout[:] = list(work.zoneout)
        for place, one in enumerate(work.passes):
            result.direction[place] = direction(
                *(
                    type_(*(_pointer(t) for t in getattr(one, name)))
                    if issubclass(type_, ctypes.Array)
                    else _pointer(getattr(one, name))
                    for name, type_, *_ in direction._fields_
                )
            )
        return result


def threads() -> int:
    """Return how many threads a kernel may use: as many as torch does, one in a forked process."""
    return 1 if _forked else torch.get_num_threads()


@lru_cache
def _structs(states: int, phases: int, real: Any) -> tuple[type[ctypes.Structure], type[ctypes.Structure]]:
    """Return the structs `Direction` and `Problem` of the kernels."""
    one, each, every = ctypes.c_void_p, ctypes.c_void_p * states, ctypes.c_void_p * phases
    fields: dict[str, Any] = {
        "x": one, "weight": one, "bias_ih": one, "bias_hh": one, "dropout": one, "cuts": one, "keep": each,
        "start": each, "end": each, "output": one, "saved": each, "recur": one, "entering": every, "d_output": one,
        "d_end": each, "d_x": one, "d_held": one, "d_recur": one, "d_start": each, "d_weight": one, "d_bias_ih": one,
        "d_bias_hh": one,
    }  # fmt: skip
    direction = type("Direction", (ctypes.Structure,), {"_fields_": list(fields.items())})
    numbers = [
        "steps", "batch", "units", "width", "x_step", "x_sample", "h_step", "h_sample", "d_step", "d_sample",
        "d_x_step", "d_x_sample", "from", "until", "samples", "blocks",
    ]  # fmt: skip
    flags = ("directions", "threads", "hold", "training", "grad")
    fields = dict.fromkeys(numbers, ctypes.c_long) | dict.fromkeys(flags, ctypes.c_int)
    fields |= {"mask": one, "zoneout": real * states, "direction": direction * 2}  # type: ignore[operator]
    return direction, type("Problem", (ctypes.Structure,), {"_fields_": list(fields.items())})


def _pointer(tensor: Tensor | None) -> int | None:
    return None if tensor is None else tensor.data_ptr()
