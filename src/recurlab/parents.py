"""How a process ends with the process that started it, however that one ends."""

import ctypes
import os
import signal
import sys
import threading
import time


def end_with(pipe: int, grace: float | None = 0.0) -> None:
    """Watch a pipe in a thread and end this process when its other end, which the parent holds, is closed.

    Works on every platform and if other processes lie between this one and the one that holds the
    other end. It needs a Python that still runs threads; for one that hangs in C code add
    `die_with_parent`.

    Args:
        pipe: descriptor of this process's end. It is read by its number: `sys.stdin` has a lock,
            which Python wants at its end. It must stay open.
        grace: seconds from SIGTERM until the process is ended by force; 0 ends it at once, None
            never by force.
    """
    threading.Thread(target=_watch, args=(pipe, grace), daemon=True).start()


def die_with_parent() -> None:
    """Have Linux kill this process when its direct parent ends, even if it hangs; elsewhere do nothing."""
    if sys.platform == "linux":
        set_parent_death_signal = 1
        ctypes.CDLL(None).prctl(set_parent_death_signal, signal.SIGKILL)


def _watch(pipe: int, grace: float | None) -> None:
    try:
        while os.read(pipe, 1):
            pass
    except OSError:  # a socket that the parent's end has reset
        pass
    if grace != 0:
        os.kill(os.getpid(), signal.SIGTERM)
    if grace is not None:
        time.sleep(grace)
        os._exit(1)
