"""A cell's kernels on a CPU: from tensors to the C structs that the kernels read, and the call."""

import ctypes
from collections.abc import Hashable
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from recurlab.cells.cell import Cell
from recurlab.cells.zoneout import limit
from recurlab.fuse.abi import Structs
from recurlab.fuse.cpu import openmp, product
from recurlab.fuse.cpu.compiler import load
from recurlab.fuse.cpu.source import BLOCKS, GROUP, PART, SAMPLES, cpu_source, step_source
from recurlab.fuse.kernel import Kernel, Work

TEAMWORK = 1 << 18  # weights times samples and one from which on it pays to share a step of the dense kernel
LEAST = 16  # steps of the dense kernel at a time, since it packs its weights each time
LARGE, FEW = 1 << 17, 8  # weights that do not fit into a core's caches, and samples that do not make up for it
MANY = 256  # kinds of calls of which the numbers are kept
CHUNK = 8 << 20  # bytes of the projected input, or its gradient, that are worked on at a time, to stay in the caches


openmp.prepare_forks()


class CpuKernel(Kernel):
    """The kernels of one cell, recurrence and dtype, compiled at once."""

    def __init__(self, cell: Cell, kind: str, dtype: torch.dtype, norm: str) -> None:
        super().__init__(cell, kind, dtype, dtype, norm)
        self.structs = Structs("cpu", len(cell.states), len(cell.phases), dtype, normalized=self.normalized)
        self.library = load(cpu_source(self.text, self.structs.text, kind, dtype, norm))
        self.library.forward.argtypes = self.library.backward.argtypes = [ctypes.c_char_p]
        self.library.forward.restype = self.library.backward.restype = None
        self.product = ctypes.cast(product.compiled(dtype), ctypes.c_void_p).value
        self._known: dict[Hashable, bytes] = {}  # the numbers of calls, by what they follow from

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
        self.library.forward(self._problem(work))

    def backward(self, work: Work) -> None:
        self.library.backward(self._problem(work))

    def complete(self, projected: torch.dtype) -> bool:
        return projected == self.storage

    def chunk(self, projected: torch.dtype, start: Tensor, steps: int, *, back: bool) -> int:
        directions, batch, units = start.shape
        # The two directions come from both ends.
        if directions > 1 or not self.complete(projected) or (self.kind == "diagonal" and not back):
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
            few = share <= FEW or len(work.output) < LEAST
            if few and PART <= share <= GROUP // 2 and weights >= LARGE and work.rows is None:
                share *= 2  # two threads share twice the samples, and each packs and reads half of the weights
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

    def _problem(self, work: Work) -> bytes:
        """Return the bytes of the struct `Problem` of a call."""
        output, d_output, d_x = work.output, work.d_output, work.d_x
        key = (
            output.shape, output.stride(), work.x.stride(), d_output if d_output is None else d_output.stride(),
            d_x if d_x is None else d_x.stride(), work.start[0].shape, work.width, work.hold, work.training, work.grad,
            work.zoneout, work.chunk, work.rows is None, work.input if work.input is None else work.input.shape,
            work.by_sample, torch.get_num_threads(),
        )  # fmt: skip
        numbers = self._known.get(key)
        if numbers is None:
            if len(self._known) >= MANY:
                self._known.clear()
            numbers = self._known[key] = self.structs.numbers(self._numbers(work))
        return numbers + self.structs.addresses(work, work.directions)

    def _numbers(self, work: Work) -> dict[str, Any]:
        samples, blocks, threads = self._items(work)
        return {
            **self.numbers(work), "width": work.width, "x_from": 0, "from": 0, "until": len(work.output),
            "chunk": work.chunk, "samples": samples, "blocks": blocks, "threads": threads,
            "workers": torch.get_num_threads(), "features": 0 if work.input is None else work.input.shape[2],
            "by_sample": work.by_sample, "product": self.product, "limit": [limit(p) for p in work.zoneout],
        }  # fmt: skip
