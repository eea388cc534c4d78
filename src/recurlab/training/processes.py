"""A process for each device of a run.

Lightning's own launcher runs the command line once more for each device, which under a grid would
be all of its jobs. Here each process is given the run directory, whose config is resolved.
"""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial

import torch

from recurlab.errors import Preempted, RecurlabError
from recurlab.training.run_dir import RunDir
from recurlab.training.signals import HEARD, Signals
from recurlab.training.silence import Silence

PROGRAM = "recurlab.training.rank_process"  # what each of the processes runs
GRACE = 5.0  # seconds that a process has to end when it is told to
TOLD = [128 + number for number in HEARD]  # how one ends that was told to, and has saved
STEP, FAILED = b".", b"!"  # what a process tells: each part of a step, and before why it has failed


class _Process:
    """One of the processes, and what it has told through a pipe.

    Attributes:
        steps: how many parts of a step it has done.
    """

    def __init__(self, path: str, rank: int, environment: dict[str, str]) -> None:
        self.steps, self._failure = 0, b""
        self._pipe, theirs = os.pipe()
        os.set_blocking(self._pipe, False)
        try:
            self.popen = subprocess.Popen(
                [sys.executable, "-m", PROGRAM, path, str(theirs)],
                env={**environment, "LOCAL_RANK": str(rank)},
                stdin=subprocess.PIPE,  # its end tells a process that this one is gone
                stdout=None if rank == 0 else subprocess.DEVNULL,
                stderr=None if rank == 0 else subprocess.DEVNULL,
                start_new_session=True,  # an interrupt of the terminal comes to this process alone, which stops them
                pass_fds=(theirs,),
            )
        except BaseException:
            os.close(self._pipe)
            raise
        finally:
            os.close(theirs)

    def listen(self) -> None:
        """Take note of what it has told."""
        with suppress(BlockingIOError):
            while told := os.read(self._pipe, 1 << 16):
                steps, failed, text = (b"", b"", told) if self._failure else told.partition(FAILED)
                self._failure += failed + text
                self.steps += len(steps)

    @property
    def failure(self) -> tuple[bool, int, str] | None:
        """Whether the error was not one of recurlab's, when it came and what it was; None where none was told."""
        self.listen()
        if not self._failure:
            return None
        unknown, when, text = self._failure.removeprefix(FAILED).decode().split(maxsplit=2)
        return unknown == "1", int(when), text

    def close(self) -> None:
        """Close the pipes."""
        os.close(self._pipe)
        if self.popen.stdin is not None:
            self.popen.stdin.close()


def run_ranks(
    run: RunDir, count: int, signals: Signals, patience: float, tell: Callable[[], None] = lambda: None
) -> None:
    """Run a training in `count` processes and wait for it.

    Args:
        run: of the training.
        count: of the processes.
        signals: of this process.
        patience: seconds without a step after which it is said that they hang; those that hang are
            killed where they are told to end.
        tell: is called when one of them has made a step.

    Raises:
        RecurlabError: with the reason of the process that failed first; the others are stopped.
        Preempted: if `signals` hears that they are to end, which they are told.
    """
    threads = str(max(1, torch.get_num_threads() // count))
    shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(_free_port()), "NODE_RANK": "0"}
    environment = {"OMP_NUM_THREADS": threads, **os.environ, **shared}
    started = list[_Process]()
    try:
        for rank in range(count):
            started.append(_Process(str(run.path), rank, environment))
        signals.on_signal = partial(_tell, started)
        if signals.received:  # meanwhile
            _tell(started, signals.received)
        _wait(started, signals, patience, tell)
    finally:
        _stop(started)


def _tell(started: list[_Process], number: int) -> None:
    for process in started:
        if process.popen.poll() is None:
            process.popen.send_signal(number)


def _wait(started: list[_Process], signals: Signals, patience: float, tell: Callable[[], None]) -> None:
    waiting, steps, silence, told = set(range(len(started))), 0, Silence(patience), None
    while waiting:
        for rank in sorted(waiting):
            code = started[rank].popen.poll()
            if code == 0:
                waiting.remove(rank)
            elif code is not None and (signals.received or code in TOLD):
                raise Preempted(signals.received or code - 128, "with its last checkpoint in place")
            elif code is not None:
                raise RecurlabError(_reason(started))
            started[rank].listen()
        before, steps = steps, sum(process.steps for process in started)
        if steps > before:
            silence.heard()
            tell()
        who = _behind(started, waiting)
        silence.tell(who)
        if signals.received:
            told = told or time.monotonic()
            if silence.seconds > patience and time.monotonic() - told > GRACE:
                _tell(started, signal.SIGKILL)
                raise Preempted(signals.received, f"and then killed: {who} made no step for {silence.seconds:.0f} s")
        time.sleep(0.05)


def _behind(started: list[_Process], waiting: set[int]) -> str:
    """Say which of the processes have come least far: the others wait for them."""
    least = min((started[rank].steps for rank in waiting), default=0)
    ranks = [str(rank) for rank in sorted(waiting) if started[rank].steps == least]
    if len(ranks) == 1:
        return f"process {ranks[0]} of {len(started)} has"
    return f"processes {' and '.join(ranks)} of {len(started)} have"


def _reason(started: list[_Process]) -> str:
    """Return why the first process failed: others soon fail as well, by having lost it."""
    failures = [process.failure for process in started]
    silent = [rank for rank, process in enumerate(started) if process.popen.poll() and failures[rank] is None]
    told = [failure for failure in failures if failure is not None]
    # One that was killed could say nothing; but gloo aborts a process that has lost another.
    killed = [rank for rank in silent if started[rank].popen.returncode != -signal.SIGABRT or not told]
    if killed:
        return f"process {killed[0]} of {len(started)} ended with code {started[killed[0]].popen.returncode}"
    return min(told)[2]


def _stop(started: list[_Process]) -> None:
    _tell(started, signal.SIGTERM)
    deadline = time.monotonic() + GRACE
    for process in started:
        try:
            process.popen.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.popen.kill()
            process.popen.wait()
        process.close()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
