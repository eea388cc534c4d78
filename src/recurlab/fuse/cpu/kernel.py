"""A cell's kernels on a CPU: from tensors to the C structs that the kernels read, and the call."""

import ctypes
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from recurlab.cells.cell import Cell
from recurlab.cells.zoneout import limit
from recurlab.fuse.abi import Structs, address
from recurlab.fuse.cpu import openmp, product
from recurlab.fuse.cpu.compiler import load
from recurlab.fuse.cpu.source import BLOCKS, GROUP, PART, SAMPLES, cpu_source, step_source
from recurlab.fuse.kernel import Kernel, Work

TEAMWORK = 1 << 18  # weights times samples and one from which on it pays to share a step of the dense kernel
LEAST = 16  # steps of the dense kernel at a time, since it packs its weights each time
LARGE, FEW = 1 << 17, 8  # weights that do not fit into a core's caches, and samples that do not make up for it
CHUNK = 8 << 20  # bytes of the projected input, or its gradient, that are worked on at a time, to stay in the caches


openmp.prepare_forks()


class CpuKernel(Kernel):
    """The kernels of one cell, recurrence and dtype, compiled at once."""

    packs = True

    def __init__(self, cell: Cell, kind: str, dtype: torch.dtype, norm: str) -> None:
        super().__init__(cell, kind, dtype, dtype, norm)
        self.structs = Structs("cpu", len(cell.states), len(cell.phases), dtype)
        self.library = load(cpu_source(self.text, self.structs.text, kind, dtype, norm))
        product.compiled(dtype)  # compiled now, not in the middle of a step

    @cached_property
    def step(self) -> Any:
        """The compiled function of a single step, see `step.h`; it takes the bytes of its struct."""
        function = load(step_source(self.text, self.structs.text, self.storage)).step
        function.argtypes, function.restype = [ctypes.c_char_p], None
        return function

    @property
    def grouped(self) -> bool:
        """Whether a thread takes a group of samples through the sequence, with all their units."""
        return self.kind == "dense" or self.normalized

    def forward(self, work: Work) -> None:
        self.library.forward(ctypes.byref(self._problem(work)))

    def backward(self, work: Work) -> None:
        self.library.backward(ctypes.byref(self._problem(work)))

    def multiply(self, out: Tensor, left: Tensor, right: Tensor, *, add: bool = False, **picked: Tensor | None) -> None:
        if left.dtype == right.dtype == out.dtype == self.storage:
            product.multiply(out, left, right, add=add, **picked)
        else:
            super().multiply(out, left, right, add=add, **picked)

    def parts(self, work: Work) -> int:
        return -(-work.output.shape[1] // (PART if self.grouped else SAMPLES))

    def steps_at_a_time(self, start: Tensor, steps: int) -> int:
        directions, _, batch, units = start.shape
        if directions > 1:  # they come from both ends
            return steps
        least = LEAST if self.kind == "dense" else 1
        return min(steps, max(least, CHUNK // (max(1, batch) * len(self.cell.gates) * units * start.element_size())))

    def _items(self, work: Work) -> tuple[int, int, int]:
        """Return the samples of an item of work, its vectors of units, and the threads that are worth their while."""
        directions, batch, units, threads = work.directions, work.output.shape[1], work.units, torch.get_num_threads()
        if self.grouped:
            share = -(-batch * directions // threads)
            if work.rows is not None and share > GROUP // 2:
                share //= 2  # the kernel varies the size of a packed batch's groups, to no more than GROUP
            weights = work.weight.numel() // directions
            if PART <= share <= FEW and weights >= LARGE and work.rows is None:
                share *= 2  # two threads share twice the samples, and each reads half of the weights
            samples = min(-(-share // PART) * PART, GROUP)
            items = directions * -(-batch // samples)
            if items < threads:  # those that share an item wait for each other at each step
                shared = (min(samples, batch) + 1) * weights >= TEAMWORK
                threads = max(items, min(threads, openmp.cores())) if shared else items
            return samples, 1, threads
        blocks, lanes = BLOCKS, 64 // work.x.element_size()
        while blocks > 1 and directions * -(-batch // SAMPLES) * -(-units // (lanes * blocks)) < 4 * threads:
            blocks //= 2
        return SAMPLES, blocks, threads

    def _problem(self, work: Work) -> ctypes.Structure:
        samples, blocks, threads = self._items(work)
        numbers = {
            **self.numbers(work), "width": work.width, "x_from": work.x_from, "from": work.steps[0],
            "until": work.steps[1], "samples": samples, "blocks": blocks, "threads": threads,
            "limit": [limit(p) for p in work.zoneout], "rows": address(work.rows), "order": address(work.order),
        }  # fmt: skip
        return self.structs.filled(numbers, work, work.directions)
