"""How long work takes on a device."""

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from statistics import median
from typing import TypeVar

import torch

T = TypeVar("T")
CYCLES = 10_000_000  # 5 ms of a GPU, enough for Python to launch both directions with noise


class TimeUp(BaseException):  # no error, and nothing that catches errors is to catch it
    """What a program does takes longer than it may."""


@contextmanager
def ended_after(limit: float) -> Iterator[None]:
    """Raise TimeUp in the block after `limit` seconds, at the next line of Python; 0: never.

    Only a process's main thread can be told; in another one nothing ends the block.
    """
    if not limit or threading.current_thread() is not threading.main_thread():
        yield
        return

    def end(number: int, frame: object) -> None:
        raise TimeUp

    before = signal.signal(signal.SIGALRM, end)
    signal.setitimer(signal.ITIMER_REAL, limit)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def elapsed(work: Callable[[], T], device: torch.device, *, queued: bool = False) -> tuple[float, T]:
    """Return the seconds until all that `work` started on the device has ended, and its result.

    With `queued` a GPU is kept busy until `work` has been called, so that the time is the GPU's
    alone: without the Python code and the launches before it, which a training step hides in the
    same way.
    """
    if device.type != "cuda":
        start = time.perf_counter()
        result = work()
        return time.perf_counter() - start, result
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
    torch.cuda.synchronize(device)
    if queued:
        torch.cuda._sleep(CYCLES)  # type: ignore[no-untyped-call]
    begin.record()
    result = work()
    end.record()
    end.synchronize()
    return begin.elapsed_time(end) / 1000, result


def copy_bandwidth(device: torch.device, size: int = 2**30, repeats: int = 15) -> float:
    """Return the bytes per second that a copy of `size` bytes reads and writes; caches hold less.

    It is the most that a kernel that only moves data can be held to: the speed on the data sheet is
    never reached.
    """
    source = torch.ones(size // 4, device=device)
    target = torch.empty_like(source)
    for _ in range(3):
        target.copy_(source)
    times = [elapsed(lambda: target.copy_(source), device, queued=True)[0] for _ in range(repeats)]
    return 2 * size / median(times)
