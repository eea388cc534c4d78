"""One holder at a time, across processes and versions; one that is killed holds nothing."""

import errno
import fcntl
import os
import signal
import subprocess
import sys
import time

import pytest

from recurlab.errors import RecurlabError
from recurlab.locks import acquire
from recurlab.training.run_dir import RunDir

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


@pytest.fixture
def hold(tmp_path):
    """Return a function that starts a process which holds a file of `tmp_path` by a call of fcntl; all are killed."""
    started = []

    def hold(name, call):
        command = [sys.executable, "-c", HOLDER, str(tmp_path / name), call]
        started.append(subprocess.Popen(command, stdout=subprocess.PIPE, text=True))
        assert started[-1].stdout.readline() == "held\n"
        return started[-1]

    yield hold
    for process in started:
        process.kill()
        process.communicate()


@pytest.mark.parametrize(("call", "inherited"), [("flock", True), ("lockf", False)])
def test_a_lock_excludes_an_older_version_until_that_is_killed(tmp_path, hold, call, inherited):
    holder = hold("file", call)
    with (tmp_path / "file").open("ab") as file:
        assert not acquire(file, 0, inherited)
        started = time.monotonic()
        assert not acquire(file.fileno(), 0.1, inherited)
        assert time.monotonic() - started >= 0.1
        holder.send_signal(signal.SIGKILL)
        assert acquire(file, 30, inherited)


def test_a_run_that_an_older_version_trains_is_not_trained_beside_it(tmp_path, hold):
    holder = hold(".lock", "lockf")
    with pytest.raises(RecurlabError, match=r"^run='.*': another process is training it$"), RunDir(tmp_path).held(0):
        pass
    holder.kill()
    with RunDir(tmp_path).held(30):
        pass


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
