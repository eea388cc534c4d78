"""One holder at a time, across processes and versions; one that is killed holds nothing."""

import errno
import fcntl
import os
import signal
import subprocess
import sys
import time

import pytest

from recurlab.locks import acquire

# Holds a lock without this package, as an older version of it does.
HOLDER = """
import fcntl, signal, sys
file = open(sys.argv[1], "ab")
getattr(fcntl, sys.argv[2])(file, fcntl.LOCK_EX)
print("held", flush=True)
signal.pause()
"""
# Holds a lock and ends, but leaves a process that it has forked, as workers that load data are.
LEAVER = """
import os, signal, sys
from recurlab.locks import acquire
file = open(sys.argv[1], "ab")
assert acquire(file, inherited=sys.argv[2] == "True")
child = os.fork()
if child == 0:
    os.close(1)
    signal.pause()
print(child, flush=True)
os._exit(0)
"""


@pytest.mark.parametrize(("call", "inherited"), [("flock", True), ("lockf", False)])
def test_a_lock_excludes_an_older_version_until_that_is_killed(tmp_path, call, inherited):
    path = tmp_path / "file"
    command = [sys.executable, "-c", HOLDER, str(path), call]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as holder, path.open("ab") as file:
        assert holder.stdout.readline() == "held\n"
        assert not acquire(file, 0, inherited)
        started = time.monotonic()
        assert not acquire(file.fileno(), 0.1, inherited)
        assert time.monotonic() - started >= 0.1
        holder.send_signal(signal.SIGKILL)
        assert acquire(file, 30, inherited)


@pytest.mark.parametrize("inherited", [True, False])
def test_a_forked_process_that_is_left_holds_an_inherited_lock_alone(tmp_path, inherited):
    path = tmp_path / "file"
    command = [sys.executable, "-c", LEAVER, str(path), str(inherited)]
    child = int(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout)
    with path.open("ab") as file:
        try:
            assert acquire(file, 0, inherited) is not inherited
        finally:
            os.kill(child, signal.SIGKILL)
        assert acquire(file, 30, inherited)


def test_closing_the_file_gives_the_lock_back(tmp_path):
    with (tmp_path / "file").open("w") as first, (tmp_path / "file").open("w") as second:
        assert acquire(first)
        assert not acquire(second, 0)
        first.close()
        assert acquire(second, 0)


@pytest.mark.parametrize("call", ["flock", "lockf"])
def test_a_file_system_without_locks_is_an_error(tmp_path, call, monkeypatch):
    def refuse(file, how):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, call, refuse)
    with (tmp_path / "file").open("w") as file, pytest.raises(OSError, match="No locks"):
        acquire(file, 0, inherited=call == "flock")
