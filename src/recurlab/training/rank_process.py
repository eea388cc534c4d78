"""The program of each process that `recurlab.training.processes` starts, with a run directory and a pipe."""

import os
import sys
import time
from contextlib import suppress

from recurlab.errors import Preempted, RecurlabError, one_line
from recurlab.imports import importing
from recurlab.parents import die_with_parent, end_with
from recurlab.training.processes import FAILED, STEP


def be_rank(path: str, pipe: int) -> int:
    """Be one of the processes; tell through a pipe of each part of a step, and why it has failed if it does.

    Args:
        path: of the run directory.
        pipe: its file descriptor.

    Returns:
        The exit code.
    """
    die_with_parent()
    end_with(0)
    os.set_blocking(pipe, False)

    def tell() -> None:
        with suppress(OSError):  # nobody has listened for a while
            os.write(pipe, STEP)

    try:
        with importing():
            from recurlab.training.execute import follow  # here, so that what fails in it is told too

        follow(path, int(os.environ["LOCAL_RANK"]), tell)
    except Preempted as stop:
        return 128 + stop.signum
    except BaseException as error:
        known = isinstance(error, RecurlabError)  # as having lost another process is not
        text = one_line(error) if known else f"{type(error).__name__}: {one_line(error)}"
        os.set_blocking(pipe, True)
        with suppress(OSError):
            os.write(pipe, FAILED + f"{int(not known)} {time.monotonic_ns()} {text}".encode())
        return 1
    return 0


if __name__ == "__main__":
    code = be_rank(sys.argv[1], int(sys.argv[2]))
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # a process group whose other end is gone would be waited for
