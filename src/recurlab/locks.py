"""Locks on open files, which the system releases when their holder ends, however it ends.

There is one function for all of them, on a file that the caller has opened. `filelock` opens lock
files by their path, which fits none of ours: a study's definition is locked itself (versions that
torch and datasets admit would truncate it), a new file before it has its name, a kernel's turn in a
folder that is opened by its descriptor, and a run without the processes that are forked from its
trainer. Locks of earlier versions of recurlab and of this one exclude each other, so the system
call for a path must not change.
"""

import math
import time
from typing import IO

PAUSE = 0.02  # seconds between two tries


def acquire(file: IO[bytes] | IO[str] | int, patience: float = math.inf, inherited: bool = True) -> bool:
    """Lock an open file exclusively; the lock ends when the file is closed, by `close` or by the end of the process.

    Args:
        file: open for writing, as NFS wants it; or its descriptor.
        patience: seconds to wait for another holder; 0 tries once.
        inherited: whether processes forked from this one hold the lock as well (flock). If not,
            this process alone holds it (lockf), but loses it as soon as it closes any file that it
            has opened on the same path.

    Returns:
        Whether the file is locked now; False if another holder kept it for all of `patience`.

    Raises:
        OSError: if the file system has no locks.
    """
    import fcntl  # not on every platform

    lock = fcntl.flock if inherited else fcntl.lockf
    if patience == math.inf:
        lock(file, fcntl.LOCK_EX)
        return True
    deadline = time.monotonic() + patience
    while True:
        try:
            lock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except (BlockingIOError, PermissionError):  # lockf may say either
            if time.monotonic() >= deadline:
                return False
            time.sleep(PAUSE)
