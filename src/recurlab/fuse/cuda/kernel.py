"""A cell's kernels on a GPU: from tensors to the C structs that the kernels read, and the launches."""

import ctypes
import warnings
from dataclasses import replace
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from recurlab.cells.cell import Cell
from recurlab.cells.zoneout import limit
from recurlab.errors import RecurlabError
from recurlab.fuse import measured, products
from recurlab.fuse.abi import Structs, address
from recurlab.fuse.cuda import dense_plan, diagonal_plan, gpu, normalized_plan, nvrtc
from recurlab.fuse.cuda.faults import Fault, fault_of, watch
from recurlab.fuse.cuda.gpu import dotted
from recurlab.fuse.cuda.plan import Multiplication, Plan, Storage, Task, phases_of
from recurlab.fuse.cuda.source import cuda_source
from recurlab.fuse.kernel import Kernel, Work

STORAGES = {torch.float32: Storage.FLOAT32, torch.bfloat16: Storage.BFLOAT16, torch.float16: Storage.FLOAT16}
OLDEST, OLDEST_DENSE = (7, 5), (8, 0)


def unavailable(device: torch.device) -> str | None:
    """Return None, or why no kernel can be had on a device."""
    found = gpu.properties(device)
    if found.capability < OLDEST:
        return f"its kernels need compute capability {dotted(OLDEST)}, {found.name} has {dotted(found.capability)}"
    return nvrtc.unavailable()


@lru_cache
def _note_unmeasured(device: gpu.Properties) -> None:
    if dotted(device.capability) not in measured.capabilities():
        warnings.warn(
            f"backend='fused': its CUDA kernels have not been measured on {device.name} "
            f"(compute capability {dotted(device.capability)}); compare with backend='eager' once",
            RuntimeWarning,
            stacklevel=2,
        )


class CudaKernel(Kernel):
    """The kernels of one cell, recurrence and storage type on one device, each compiled when first needed."""

    keeps_origins = True

    def __init__(self, cell: Cell, kind: str, storage: torch.dtype, device: torch.device, norm: str = "") -> None:
        # Without a recurrence there is nothing to multiply.
        super().__init__(cell, kind if cell.phases else "diagonal", storage, torch.float32, norm)
        self.device, self.norm = device, norm
        _note_unmeasured(gpu.properties(device))
        sizes = (len(cell.states), len(cell.phases), torch.float32, {"Fault": Fault})
        self.structs = Structs("cuda", *sizes, normalized=self.normalized)
        self.modules: dict[tuple[str, tuple[tuple[str, int], ...]], tuple[gpu.Module, int]] = {}

    def forward(self, work: Work) -> None:
        plan = self._plan(work, backward=False)
        if self.normalized and self.kind == "dense":  # a thread computes one unit: those side by side read side by side
            matrices = work.weight.view(-1, work.width, work.width)
            work = replace(work, weight=matrices.transpose(1, 2).contiguous().view(work.weight.shape))
        problem, kept = self._problem(work, plan)
        self._launch(plan, "forward", problem)
        del kept  # what a kernel on the same stream still reads is not given away before it has run

    def backward(self, work: Work) -> None:
        plan = self._plan(work, backward=True)
        if plan.chunks > 1:
            variables = len(self.cell.states) + int(_noisy(work))
            work.transfer, work.carry = (
                work.start[0].new_empty(work.directions, plan.chunks, rows, *work.start[0].shape[1:])
                for rows in ((variables + 1) * variables, variables)
            )
        sums, totals = self._sums(work, plan)
        problem, kept = self._problem(work, plan)
        if plan.chunks > 1:
            self._launch(plan, "transfer", problem)
            self._launch(plan, "combine", problem)
        self._launch(plan, "backward", problem)
        del kept
        self._add_up(work, sums, totals)
        if self.kind == "dense":
            products.of_recurrence(self, work)

    def _sums(self, work: Work, plan: Plan) -> tuple[Tensor, list[Tensor | None]]:
        """Give a call sums over time, (D, parts, results * H) each; return them and the tensors for their totals."""
        assert work.d_end is not None
        assert work.d_start is not None
        names = ["d_bias_ih", "d_bias_hh"]
        if self.normalized:
            names += ["d_gain_ih", "d_gain_hh"]
        if self.kind == "diagonal":
            names.append("d_weight")
        totals = [None if name == "d_weight" and not self.cell.phases else getattr(work, name) for name in names]
        sums = work.start[0].new_zeros(len(names), work.directions, plan.parts, self.results * work.units)
        for name, each in zip(names, sums, strict=True):
            setattr(work, name, each)
        # The states' gradient starts as that of the last ones and ends as that of the first.
        for gradient, given in zip(work.d_start, work.d_end, strict=True):
            gradient.zero_() if given is None else gradient.copy_(given)
        work.d_end = work.d_start
        return sums, totals

    def _add_up(self, work: Work, sums: Tensor, totals: list[Tensor | None]) -> None:
        """Set the totals, where they are wanted, to the sums of all parts."""
        found = sums.sum(2)
        recurrent = {gate for phase in self.cell.phases for gate in phase}
        for g, gate in enumerate(self.cell.gates):
            if gate in recurrent and gate not in self.own_gates:  # its two biases have one gradient
                at = slice(g * work.units, (g + 1) * work.units)
                found[1, :, at] = found[0, :, at]
        for total, each in zip(totals, found, strict=True):
            if total is not None:
                flat = total.view(work.directions, -1)
                flat.copy_(each[:, : flat.shape[1]])

    def unfit(self, units: int, width: int) -> str | None:
        if self.normalized:
            return normalized_plan.unfit(units, self.kind)
        if self.kind == "diagonal":
            return None
        device = gpu.properties(self.device)
        if device.capability < OLDEST_DENSE:
            return (
                f"its dense kernels need compute capability {dotted(OLDEST_DENSE)}, {device.name} has "
                f"{dotted(device.capability)}"
            )
        for backward in (False, True):
            task = self._task(1, 1, units, width, 1, noisy=True, backward=backward, aligned=1)
            if dense_plan.dense(task, device) is None:
                return dense_plan.unfit(task)
        return None

    def sources(self, steps: int, batch: int, units: int, width: int, directions: int, *, noisy: bool) -> list[str]:
        """Return the sources of both passes of a call, its tensors aligned as torch allocates them.

        Raises:
            RecurlabError: if no kernel can serve it.
        """
        sizes = (steps, batch, units, width, directions)
        plans = [self._plan_of(*sizes, noisy=noisy, backward=backward, aligned=8) for backward in (False, True)]
        return [self._source(plan) for plan in plans]

    def _task(self, steps: int, batch: int, units: int, width: int, directions: int, **others: Any) -> Task:
        product = Multiplication.STORED
        if self.storage == torch.float32:
            product = Multiplication.TF32 if tf32_allowed() else Multiplication.SPLIT
        phases = phases_of(self.cell.phases)
        return Task(
            len(self.cell.gates), len(self.cell.states), phases, steps, batch, units, width, directions,
            self.storage.itemsize, STORAGES[self.storage], product=product, norm=self.norm, **others,
        )  # fmt: skip

    def _plan(self, work: Work, *, backward: bool) -> Plan:
        sizes = (*work.output.shape[:2], work.units, work.width, work.directions)
        return self._plan_of(*sizes, noisy=_noisy(work), backward=backward, aligned=_aligned(work))

    def _plan_of(
        self, steps: int, batch: int, units: int, width: int, directions: int, *,
        noisy: bool, backward: bool, aligned: int,
    ) -> Plan:  # fmt: skip
        device = gpu.properties(self.device)
        others = {"noisy": noisy, "backward": backward}
        if self.normalized:
            if (reason := self.unfit(units, width)) is not None:
                raise RecurlabError(f"backend='fused': {reason}")
            task = self._task(1, batch, units, width, directions, aligned=1, **others)
            return normalized_plan.normalized(task, self.kind, device)
        if self.kind == "diagonal":
            return diagonal_plan.diagonal(
                self._task(steps, batch, units, units, directions, aligned=aligned, **others), device
            )
        # The same for every length and address, so that it is not sought anew for each.
        task = self._task(1, batch, units, width, directions, aligned=1, **others)
        plan = dense_plan.dense(task, device)
        if plan is None:
            raise RecurlabError(f"backend='fused': {dense_plan.unfit(task)}")
        return plan

    def _source(self, plan: Plan) -> str:
        return cuda_source(self.text, self.structs.text, plan.program, dict(plan.constants))

    def _launch(self, plan: Plan, name: str, problem: ctypes.Structure) -> None:
        compiled = plan.program, plan.constants  # the same for many plans
        if compiled not in self.modules:
            source = self._source(plan)
            module = gpu.Module(source, self.device)
            self.modules[compiled] = module, watch(f"{plan.program} of {type(self.cell).__name__}", source)
        module, number = self.modules[compiled]
        problem.fault = fault_of(number, problem.steps, problem.batch, problem.units)
        module.launch(
            name, problem, blocks=plan.blocks, threads=plan.threads, shared=plan.shared, cluster=plan.cluster,
            cooperative=plan.cooperative,
        )  # fmt: skip

    def _problem(self, work: Work, plan: Plan) -> tuple[Any, list[Tensor]]:
        """Return the struct of a call, and tensors that have to live until it is launched."""
        kept: list[Tensor] = []
        if plan.exchange:
            kept.append(work.x.new_empty(plan.teams * 2 * plan.exchange, dtype=torch.uint8))
            kept.append(work.x.new_zeros(plan.teams, dtype=torch.int32))
        exchange, counters = map(address, kept or (None, None))
        numbers = {
            **self.numbers(work), "chunks": plan.chunks, "chunk_steps": -(-len(work.output) // plan.chunks),
            "exchange": exchange, "exchange_size": plan.exchange // 16, "counters": counters,
            "limit": [max(0, limit(p)) for p in work.zoneout],
        }  # fmt: skip
        return self.structs.filled(numbers, work, work.directions), kept


def tf32_allowed() -> bool:
    """Return whether float32 matrices may be multiplied in TF32."""
    matmul = torch.backends.cuda.matmul
    # From torch 2.9 on; once it has been set, the older flag can't be read.
    precision = getattr(matmul, "fp32_precision", None)
    return bool(matmul.allow_tf32 if precision is None else precision == "tf32")


def _noisy(work: Work) -> bool:
    return any(work.zoneout) or any(each is not None for each in (work.mask, work.cuts, work.dropout))


def _aligned(work: Work) -> int:
    """Return the largest power of two, up to 8, that all offsets and addresses of the sequences are multiples of."""
    size, least = work.x.element_size(), 8
    for tensor in (work.x, work.output, work.d_output, work.d_x, work.saved):
        if tensor is None:
            continue
        numbers = [tensor.data_ptr() // size, *tensor.stride()[:-1]]
        if work.directions > 1 and tensor is not work.saved:
            numbers.append(tensor.shape[-1] // work.directions)  # where the second direction begins
        for number in numbers:
            while number % least:
                least //= 2
    return least
