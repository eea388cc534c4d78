"""Kernels that waited in vain: what the GPU recorded before it gave up, told in one line."""

import atexit
import ctypes
import functools
import itertools
from typing import Any

import torch

from recurlab.errors import say


class Fault(ctypes.Structure):
    """Where a kernel that waits in vain records it, and how the kernel names itself: see `Fault` in device.h."""

    _fields_ = (("record", ctypes.c_void_p), *((name, ctypes.c_int) for name in ("kernel", "steps", "batch", "units")))


class Record(ctypes.Structure):
    """What it records: see `FaultRecord` in device.h."""

    _fields_ = (
        ("set", ctypes.c_uint),
        *((name, ctypes.c_int) for name in ("kernel", "steps", "batch", "units", "line")),
        *((name, ctypes.c_uint) for name in ("block", "seen", "wanted")),
    )


_numbers = itertools.count()
_kernels: dict[int, tuple[str, str]] = {}


def watch(name: str, source: str) -> int:
    """Return the number by which a kernel of this name and source names itself."""
    number = next(_numbers)
    _kernels[number] = (name, source)
    return number


def fault_of(kernel: int, steps: int, batch: int, units: int) -> Fault:
    """Return the struct that a launch of a kernel is given."""
    return Fault(ctypes.addressof(record()), kernel, steps, batch, units)


def fault() -> str | None:
    """Return where a kernel of this process has waited in vain and given up, in a line, or None.

    Its error reaches Python at some later call to CUDA, and no CUDA works in this process any more.
    """
    found = record()
    if not found.set:
        return None
    name, source = _kernels[found.kernel]
    code = source.splitlines()[found.line - 1].strip()
    signals = f": {found.seen} of {found.wanted} signals" if found.wanted else ""
    sizes = f"T={found.steps}, B={found.batch}, H={found.units}"
    return f"kernel {name} ({sizes}): block {found.block} waited in vain at `{code}`{signals}"


@functools.cache
def record() -> Any:
    """Return the one record, in memory that a GPU can write and that outlives what a fault does to CUDA."""
    pinned = torch.cuda.is_available()
    memory = torch.zeros(ctypes.sizeof(Record), dtype=torch.uint8, pin_memory=pinned)
    found = Record.from_address(memory.data_ptr())
    found.memory = memory  # lives as long
    atexit.register(_tell)
    return found


def _tell() -> None:
    """Say it once more at the end of the process, since torch's own error names no kernel."""
    if (what := fault()) is not None:
        say(what)
