"""A cell's kernels on a CPU: from tensors to the C structs that the kernels read, and the call."""

import ctypes
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from recurlab.cells.cell import Cell
from recurlab.cells.zoneout import limit
from recurlab.fuse.cpu import openmp
from recurlab.fuse.cpu.compiler import load
from recurlab.fuse.cpu.source import BLOCKS, GROUP, PART, SAMPLES, cpu_source
from recurlab.fuse.kernel import Kernel, Work

CHUNK = 8 << 20  # bytes of the gradient of the projected input that are worked on at a time, to stay in the caches


openmp.prepare_forks()


class CpuKernel(Kernel):
    """The kernels of one cell, recurrence and dtype, compiled at once."""

    def __init__(self, cell: Cell, kind: str, dtype: torch.dtype) -> None:
        super().__init__(cell, kind, dtype, dtype)
        states, phases = len(cell.states), len(cell.phases)
        self.library = load(cpu_source(self.text, kind, dtype))
        self.structs = _structs(states, phases, ctypes.c_float if dtype == torch.float32 else ctypes.c_double)

    def forward(self, work: Work) -> None:  # noqa: D102
        self.library.forward(ctypes.byref(self._problem(work)))

    def backward(self, work: Work) -> None:  # noqa: D102
        self.library.backward(ctypes.byref(self._problem(work)))

    def parts(self, work: Work) -> int:  # noqa: D102
        return -(-work.passes[0].x.shape[1] // (PART if self.kind == "dense" else SAMPLES))

    def steps_at_a_time(self, work: Work) -> int:
        """Return how many steps one call of the backward takes.

        All of them where the recurrent weight needs the gradients of all, or where two directions come from both ends.
        """
        steps, batch, rows = work.passes[0].x.shape
        if self.kind == "dense" or len(work.passes) > 1:
            return steps
        return min(steps, max(1, CHUNK // (batch * rows * work.passes[0].x.element_size())))

    def _items(self, work: Work) -> tuple[int, int]:
        """Return the samples of an item of work, and its vectors of units."""
        first, directions, threads = work.passes[0], len(work.passes), torch.get_num_threads()
        _, batch, units = first.output.shape
        if self.kind == "dense":
            share = -(-batch * directions // threads)
            return min(-(-share // PART) * PART, GROUP), 1
        blocks, lanes = BLOCKS, 64 // first.x.element_size()
        while blocks > 1 and directions * -(-batch // SAMPLES) * -(-units // (lanes * blocks)) < 4 * threads:
            blocks //= 2
        return SAMPLES, blocks

    def _problem(self, work: Work) -> ctypes.Structure:
        direction, problem = self.structs
        first = work.passes[0]
        steps, batch = first.x.shape[:2]
        d_x = first.x if first.d_x is None else first.d_x
        d_output = first.output if first.d_output is None else first.d_output
        result = problem(
            steps, batch, first.output.shape[2], work.width, *first.x.stride()[:2], *first.output.stride()[:2],
            *d_output.stride()[:2], *d_x.stride()[:2], *work.steps, *self._items(work),
            len(work.passes), torch.get_num_threads(), work.hold, work.training, work.grad, _pointer(work.mask),
        )  # fmt: skip
        result.zoneout[:] = list(work.zoneout)
        result.limit[:] = [limit(p) for p in work.zoneout]
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


@lru_cache
def _structs(states: int, phases: int, real: Any) -> tuple[type[ctypes.Structure], type[ctypes.Structure]]:
    """Return the structs `Direction` and `Problem` of the kernels."""
    one, each, every = ctypes.c_void_p, ctypes.c_void_p * states, ctypes.c_void_p * phases
    fields: dict[str, Any] = {
        "x": one, "weight": one, "bias_ih": one, "bias_hh": one, "dropout": one, "cuts": one, "seed": one,
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
    fields |= {"mask": one, "zoneout": real * states, "limit": ctypes.c_longlong * states}
    fields |= {"direction": direction * 2}  # type: ignore[operator]
    return direction, type("Problem", (ctypes.Structure,), {"_fields_": list(fields.items())})


def _pointer(tensor: Tensor | None) -> int | None:
    return None if tensor is None else tensor.data_ptr()
