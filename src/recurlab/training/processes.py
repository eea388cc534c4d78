"""A process for each device of a run.

Lightning's own launcher runs the command line once more for each device, which under a grid would be all of its jobs.
Here each process is given the run directory, whose config is resolved.
"""

import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from functools import partial
from pathlib import Path

import torch

from recurlab.errors import Preempted, RecurlabError, one_line
from recurlab.training.run_dir import RunDir, write_text
from recurlab.training.signals import HEARD, Signals

GRACE = 5.0  # seconds that a process has to end when it is told to
TOLD = [128 + number for number in HEARD]  # how one ends that was told to, and has saved


def run(run: RunDir, count: int, signals: Signals) -> None:
    """Run a training in `count` processes and wait for it.

    Raises:
        RecurlabError: with the reason of the process that failed first; the others are stopped.
        Preempted: if `signals` hears that they are to end, which they are told.
    """
    threads = str(max(1, torch.get_num_threads() // count))
    shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(_free_port()), "NODE_RANK": "0"}
    with tempfile.TemporaryDirectory(prefix="recurlab-") as folder:
        reasons = [Path(folder) / f"{rank}" for rank in range(count)]
        started = [
            subprocess.Popen(
                [sys.executable, "-m", __name__, str(run.path), str(reasons[rank])],
                env={"OMP_NUM_THREADS": threads, **os.environ, **shared, "LOCAL_RANK": str(rank)},
                stdin=subprocess.PIPE,  # its end tells a process that this one is gone
                stdout=None if rank == 0 else subprocess.DEVNULL,
                stderr=None if rank == 0 else subprocess.DEVNULL,
                start_new_session=True,  # an interrupt of the terminal comes to this process alone, which stops them
            )
            for rank in range(count)
        ]
        try:
            signals.on_signal = partial(_tell, started)
            _wait(started, reasons, signals)
        finally:
            _stop(started)


def _tell(started: list[subprocess.Popen[bytes]], number: int) -> None:
    for process in started:
        if process.poll() is None:
            process.send_signal(number)


def _wait(started: list[subprocess.Popen[bytes]], reasons: list[Path], signals: Signals) -> None:
    waiting = set(range(len(started)))
    while waiting:
        for rank in sorted(waiting):
            code = started[rank].poll()
            if code == 0:
                waiting.remove(rank)
            elif code is not None and (signals.received or code in TOLD):
                raise Preempted(signals.received or code - 128, "with its last checkpoint in place")
            elif code is not None:
                raise RecurlabError(_reason(started, reasons))
        time.sleep(0.05)


def _reason(started: list[subprocess.Popen[bytes]], reasons: list[Path]) -> str:
    """Return why the first process failed: others soon fail as well, by having lost it."""
    silent = [rank for rank, process in enumerate(started) if process.poll() and not reasons[rank].is_file()]
    told = [path.read_text().partition("\n") for path in reasons if path.is_file()]
    # One that was killed could say nothing; but gloo aborts a process that has lost another.
    killed = [rank for rank in silent if started[rank].returncode != -signal.SIGABRT or not told]
    if killed:
        return f"process {killed[0]} of {len(started)} ended with code {started[killed[0]].returncode}"
    first = min(told, key=lambda part: [int(word) for word in part[0].split()])
    return first[2]


def _stop(started: list[subprocess.Popen[bytes]]) -> None:
    for process in started:
        if process.poll() is None:
            process.terminate()
    deadline = time.monotonic() + GRACE
    for process in started:
        try:
            process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if process.stdin is not None:
            process.stdin.close()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _end_with_parent() -> None:
    sys.stdin.buffer.read()
    os._exit(1)


def _main(path: str, reason: Path) -> int:
    """Be one of the processes; on an error write its line into the file `reason`."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        from recurlab.training.run import follow

        follow(path, int(os.environ["LOCAL_RANK"]))
    except Preempted as stop:
        return 128 + stop.signum
    except BaseException as error:
        known = isinstance(error, RecurlabError)  # as having lost another process is not
        text = one_line(error) if known else f"{type(error).__name__}: {one_line(error)}"
        write_text(reason, f"{int(not known)} {time.monotonic_ns()}\n{text}")
        return 1
    return 0


if __name__ == "__main__":
    code = _main(sys.argv[1], Path(sys.argv[2]))
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # a process group whose other end is gone would be waited for
