"""What a process of recurlab sets for itself before torch is imported."""

import ctypes
import io
import os
import sys


def prepare_process() -> None:
    """Set what must be set before torch is imported, and escape characters that the terminal cannot show."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # as Python itself does for the standard error
    # Threads that spin for long while they wait make small steps up to 30 times slower on a busy
    # machine.
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")
    # Returning memory to the system and requesting it again in every step costs more than much of
    # the computation: glibc is to keep it, and torch to take what is too large for that in huge
    # pages.
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
    if sys.platform == "linux" and hasattr(libc := ctypes.CDLL(None), "mallopt"):
        mmap_threshold, trim_threshold = -3, -1
        libc.mallopt(mmap_threshold, 32 << 20)
        libc.mallopt(trim_threshold, 2**31 - 1)
