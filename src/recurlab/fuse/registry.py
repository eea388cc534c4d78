"""The kernels of this process: one for each cell, recurrence, storage type and device, made at first use."""

import os
import threading
from collections.abc import Callable, Hashable
from concurrent.futures import ThreadPoolExecutor
from weakref import ReferenceType

import torch

from recurlab.cells.cell import Cell, cell_of
from recurlab.errors import RecurlabError
from recurlab.fuse.cpu.kernel import CpuKernel
from recurlab.fuse.cuda import kernel as cuda
from recurlab.fuse.kernel import Kernel

# The types of the sequences in memory, by device type; on a GPU half precision is stored, never computed in.
STORAGES = {"cpu": (torch.float32, torch.float64), "cuda": tuple(cuda.STORAGES)}
MAKERS: dict[str, Callable[[Cell, str, torch.dtype, torch.device, str], Kernel]] = {
    "cpu": lambda cell, loop, storage, device, norm: CpuKernel(cell, loop, storage, norm),
    "cuda": cuda.CudaKernel,
}

_lock = threading.RLock()
Made = Kernel | RecurlabError
_kernels: dict[tuple[Hashable, str, torch.dtype, torch.device, str], Made | ReferenceType[Made]] = {}


# Kernels are made in one thread for all callers: hooks and modes that a caller has set for its thread have no effect.
_maker = ThreadPoolExecutor(1, "recurlab-kernels")


def _start_anew() -> None:
    global _lock, _maker
    _lock, _maker = threading.RLock(), ThreadPoolExecutor(1, "recurlab-kernels")


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_start_anew)  # a child lacks its parent's threads, which may hold the lock


def storage_of(projected: torch.dtype, device: torch.device) -> torch.dtype:
    """Return the type of the sequences in a kernel's memory, by that of the projection."""
    half = projected in (torch.float16, torch.bfloat16)
    return torch.float32 if half and projected not in STORAGES[device.type] else projected


def kernel(token: str, kind: str, storage: torch.dtype, device: torch.device, norm: str = "") -> Kernel:
    """Return the kernels of a cell known by its token, for sequences of a type on a device; made at first use.

    Args:
        token: of the cell.
        kind: of the recurrence: dense, diagonal or block.
        storage: the type of the sequences in memory.
        device: where they are.
        norm: the kind of layer normalisation, see `LayerNorm`; empty without it.

    Raises:
        RecurlabError: if the step can't be written as a kernel, or there is no compiler.
    """
    cell, loop = cell_of(token), "diagonal" if kind == "diagonal" else "dense"
    # Equal cells share their kernels; a cell that can't be compared has its own, and takes them with it.
    key = (cell if cell.comparable else token, loop, storage, device, norm)
    with _lock:  # tracing is not for several threads at once
        made = _kernels.get(key)
        if isinstance(made, ReferenceType):
            made = made()
        if made is None:
            made = _made(cell, loop, storage, device, norm)
            if cell.comparable:
                _kernels[key] = made
            else:
                cell.kernels.append(made)
                _kernels[key] = ReferenceType(made, lambda _: _kernels.pop(key, None))
    if isinstance(made, RecurlabError):
        raise made
    return made


def _made(cell: Cell, loop: str, storage: torch.dtype, device: torch.device, norm: str) -> Made:
    try:
        return _maker.submit(MAKERS[device.type], cell, loop, storage, device, norm).result()
    except RecurlabError as error:  # so that a step without a kernel is not traced anew in every call
        return error
