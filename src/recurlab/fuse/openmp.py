"""The threads of the OpenMP runtime, which torch brings and the kernels share, and what a fork makes of them."""

import ctypes
import os
import warnings

import torch

HARD = 2  # omp_pause_hard
ADVICE = (
    "forked from a process whose OpenMP threads could not be ended: set to one thread, for torch's products wait "
    "forever for any other one here; start processes by 'spawn' or 'forkserver' to use several"
)

_ended = True


def _end_threads() -> None:
    """End the idle threads of the one that is about to fork; parent and child start new ones when they need them.

    GCC's runtime takes no notice of a fork: in torch's products as in a kernel, the child would wait forever for
    threads that only its parent has.
    """
    global _ended
    pause = getattr(ctypes.CDLL(None), "omp_pause_resource_all", None)  # GCC 9 and newer, LLVM
    _ended = _ended and pause is not None and pause(HARD) == 0


def _do_without() -> None:
    """Use one thread in a forked process, where those of its parent could not be ended."""
    if not _ended and torch.get_num_threads() > 1:
        torch.set_num_threads(1)
        warnings.warn(ADVICE, RuntimeWarning, stacklevel=2)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_end_threads, after_in_child=_do_without)
