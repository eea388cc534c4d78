"""What a command starts, the processes of a run's devices or a sweep's workers, forked from it: torch is imported."""

import math
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from types import SimpleNamespace

import torch

from recurlab.sweep import run as sweep
from recurlab.training import processes, rank_process
from recurlab.training.signals import HEARD

_started = []


def fork():
    """Let this process fork from now on what it would start anew."""
    processes.subprocess = sweep.subprocess = SimpleNamespace(**{**vars(subprocess), "Popen": Forked})


class Forked:
    """Stands for the `subprocess.Popen` of such a process: its end of the pipe tells it that this one is gone."""

    def __init__(self, command, *, stdin, start_new_session, env=None, stdout=None, stderr=None, pass_fds=()):
        assert (stdin, stderr, start_new_session) == (subprocess.PIPE, stdout, True)
        self.returncode = None
        theirs, ours = os.pipe()
        self.stdin = os.fdopen(ours, "wb")
        _started.append(self)
        self.pid = os.fork()
        if self.pid == 0:
            os.setsid()
            os.dup2(theirs, 0)
            for process in _started:  # whose pipes are to end with the process that forks, not with this one
                process.stdin.close()
            _be(command, env or os.environ, stdout)
        os.close(theirs)

    def poll(self):
        with suppress(ChildProcessError):  # a handler of a signal has looked meanwhile
            if self.returncode is None and (found := os.waitpid(self.pid, os.WNOHANG))[0]:
                self.returncode = os.waitstatus_to_exitcode(found[1])
        return self.returncode

    def wait(self, timeout=math.inf):
        deadline = time.monotonic() + timeout
        while self.poll() is None:
            if time.monotonic() > deadline:
                raise subprocess.TimeoutExpired("a forked process", timeout)
            time.sleep(0.01)

    def send_signal(self, number):
        os.kill(self.pid, number)

    def terminate(self):
        self.send_signal(signal.SIGTERM)

    def kill(self):
        self.send_signal(signal.SIGKILL)


def _be(command, environment, stdout):
    """Be the process of `python -m recurlab.training.rank_process <path> <pipe>`, or of a worker of a sweep."""
    for number in HEARD:
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
    sys.stdin = open(0)  # noqa: SIM115
    if stdout == subprocess.DEVNULL:
        nothing = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nothing, 1)
        os.dup2(nothing, 2)
    os.environ.update(environment)
    torch.set_num_threads(int(environment.get("OMP_NUM_THREADS", 1)))
    _, kind, what, *words = command
    assert (kind, what) in (("-m", processes.PROGRAM), ("-c", sweep.WORKER))
    code = sweep.run_worker(words) if kind == "-c" else rank_process.be_rank(words[0], int(words[1]))
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
