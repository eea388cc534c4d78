"""What a process of recurlab sets for itself, before torch is imported."""

import ctypes
import io
import os
import signal
import sys


def prepare_process() -> None:
    """Set what has to be set before torch is imported, and how what no terminal of this encoding has is written."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # as Python itself does on the standard error
    # Threads that spin long while they wait make small steps up to 30 times slower on a machine that is not idle.
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")
    # Memory given back to the system and taken anew in every step costs more than much of what is computed in it:
    # glibc is to keep it, and torch to take what is too large for that in huge pages.
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
    if sys.platform == "linux" and hasattr(libc := ctypes.CDLL(None), "mallopt"):
        mmap_threshold, trim_threshold = -3, -1
        libc.mallopt(mmap_threshold, 32 << 20)
        libc.mallopt(trim_threshold, 2**31 - 1)


def die_with_parent() -> None:
    """Let the system kill this process with the one that started it: where it hangs, it can't see to that itself."""
    if sys.platform == "linux":
        set_parent_death_signal = 1
        ctypes.CDLL(None).prctl(set_parent_death_signal, signal.SIGKILL)
