"""Kernels of a few lines, run by the emulation."""

import ctypes

import torch
from torch import Tensor

from emulated import DEVICE, Emulated


class Problem(ctypes.Structure):
    _fields_ = (("x", ctypes.c_void_p), ("y", ctypes.c_void_p), ("counter", ctypes.c_void_p), ("n", ctypes.c_int))


def source(body: str, threads: int) -> str:
    problem = "struct Problem { const float *x; float *y; unsigned *counter; int n; };"
    return f"constexpr int THREADS = {threads};\n{DEVICE}\n{problem}\nENTRY(kernel) {{\n{body}\n}}\n"


def run(body: str, x: Tensor, y: Tensor, n: int = 0, *, threads=64, blocks=1, seed=0, seconds=60, **launch) -> Tensor:
    """Run a kernel's body; x, y and the counter lie where a GPU wants them: at multiples of 16 bytes."""
    counter = torch.zeros(4, dtype=torch.int32)
    problem = Problem(x.data_ptr(), y.data_ptr(), counter.data_ptr(), n)
    module = Emulated(source(body, threads), seed=seed, seconds=seconds)
    module.launch("kernel", problem, blocks=blocks, threads=threads, **launch)
    return y


def same(a: Tensor, b: Tensor) -> bool:
    """Tell whether the numbers are equal, NaNs among themselves too."""
    return torch.equal(a.isnan(), b.isnan()) and torch.equal(a.nan_to_num(0), b.nan_to_num(0))


def without(body: str, line: str, which: int = 0) -> str:
    """Drop one of the lines that are equal to `line`."""
    lines = body.splitlines()
    del lines[[i for i, text in enumerate(lines) if text.strip() == line][which]]
    return "\n".join(lines)


def sums_of_clusters(x: Tensor, steps: int) -> Tensor:
    """Return what each of 64 threads has after steps that each add the numbers of the four blocks of its cluster."""
    x = x.view(-1, 4).clone()
    for _ in range(steps):
        x += x.sum(1, keepdim=True)
    return x.view(-1, 1).expand(-1, 64)
