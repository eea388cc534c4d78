"""A process ends with the one that started it, even if that one is killed or it hangs itself."""

import os
import select
import signal
import subprocess
import sys
from contextlib import suppress

import pytest

CHILD = """
import signal
from recurlab.parents import end_with
signal.signal(signal.SIGTERM, lambda *_: print("told", flush=True))
end_with(0, {grace})
print("ready", flush=True)
signal.pause()
{then}
"""
# A process and its child, which is in a call that lets no other thread of Python run.
PARENT = """
import subprocess, sys
with subprocess.Popen([sys.executable, "-c", sys.argv[1]], stdin=subprocess.PIPE) as child:
    child.wait()
"""
HANGS = """
import ctypes, os
from recurlab.parents import die_with_parent, end_with
die_with_parent()
end_with(0)
print(os.getpid(), flush=True)
ctypes.PyDLL(None).pause()
"""


@pytest.mark.parametrize(
    ("grace", "then", "said", "code"),
    [(0, "", "", 1), (None, "print('saved')", "told\nsaved\n", 0), (30, "print('saved')", "told\nsaved\n", 0),
     (0.1, "while True: signal.pause()", "told\n", 1)],
)  # fmt: skip
def test_a_process_ends_when_the_pipe_is_closed(grace, then, said, code):
    command, pipe = [sys.executable, "-c", CHILD.format(grace=grace, then=then)], subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as process:
        try:
            assert process.stdout.readline() == "ready\n"
            process.stdin.write("what is written is not the end")
            process.stdin.flush()
            with pytest.raises(subprocess.TimeoutExpired):
                process.wait(0.05)
            process.stdin.close()
            assert (process.stdout.read(), process.wait(30)) == (said, code)
        finally:
            process.kill()


@pytest.mark.skipif(sys.platform != "linux", reason="Linux alone kills a process with its parent")
def test_a_process_that_hangs_is_killed_with_its_parent():
    with subprocess.Popen([sys.executable, "-c", PARENT, HANGS], stdout=subprocess.PIPE, text=True) as parent:
        child = int(parent.stdout.readline())
        parent.kill()
        ended, _, _ = select.select([parent.stdout], [], [], 30)  # at its end once nobody can write to it
        with suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)
        assert ended
