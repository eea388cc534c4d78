"""The OpenMP runtime, which torch loads and the kernels share, and what becomes of its threads at a fork."""

import ctypes
import functools
import os
import warnings

HARD = 2  # omp_pause_hard
ADVICE = (
    "forked from a process whose OpenMP threads could not be ended: set to one thread, for torch's products wait "
    "forever for any other one here; start processes by 'spawn' or 'forkserver' to use several"
)

_ended = True


def _end_threads() -> None:
    """End the runtime's idle threads before a fork; parent and child start new ones when they need them.

    GCC's runtime does not notice a fork: in torch's products as in a kernel, the child would wait
    forever for threads that only its parent has.
    """
    global _ended
    pause = getattr(ctypes.CDLL(None), "omp_pause_resource_all", None)  # GCC 9 and newer, LLVM
    _ended = _ended and pause is not None and pause(HARD) == 0


def _do_without() -> None:
    """Use one thread in a forked process if its parent's threads could not be ended."""
    import torch  # here, so that a kernel can be compiled without it

    if not _ended and torch.get_num_threads() > 1:
        torch.set_num_threads(1)
        warnings.warn(ADVICE, RuntimeWarning, stacklevel=2)


@functools.cache
def prepare_forks() -> None:
    """Let each process that is forked from now on use threads of its own; done once a process."""
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(before=_end_threads, after_in_child=_do_without)


def cores() -> int:
    """Return how many threads this process can run at the same time."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def load_runtime(compiler: str) -> None:
    """Load the OpenMP runtime that a compiler's code calls, if the process has none; `compiler` is its version text."""
    # The two kinds of compilers call runtimes of two kinds; GCC's gives its licence with its version.
    symbol, names = "GOMP_parallel", ["libgomp.so.1"]
    if "Free Software Foundation" not in compiler:
        symbol, names = "__kmpc_fork_call", ["libomp.so.5", "libomp.so", "libiomp5.so", "libomp.dylib"]
    for name in names:
        if hasattr(ctypes.CDLL(None), symbol):
            return
        try:
            ctypes.CDLL(name, mode=ctypes.RTLD_GLOBAL)
        except OSError:
            continue
