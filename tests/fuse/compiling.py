"""Processes of their own that ask for a kernel, and what they leave in the cache."""

import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

COMPILER = next((path for name in ("c++", "g++", "clang++") if (path := shutil.which(name))), None)
needs_compiler = pytest.mark.skipif(COMPILER is None, reason="no C++ compiler on this machine")

ANSWER = 'extern "C" int answer() { return 42; }\n'
ASK = f"from recurlab.fuse import compiler\nassert compiler.load({ANSWER!r}).answer() == 42\n"
# Marks every compilation of a kernel, the probe's aside, and may be told to be slow or to fail in some directory.
WRAPPER = """#!/bin/sh
case "$*" in *-c\\ kernel.cpp*) if grep -q answer kernel.cpp; then
    echo $$ >> "{log}"; {extra}
fi;; esac
exec "{compiler}" "$@"
"""


def start(code: str = ASK) -> subprocess.Popen[str]:
    command = [sys.executable, "-W", "always", "-c", code]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def run(code: str = ASK) -> tuple[str, str]:
    """Run code in a process of its own, which must succeed; return its output and its warnings."""
    process = start(code)
    output, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    return output, errors


def wait_for(condition) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def entry(cache: Path) -> Path:
    (source,) = (path for path in cache.glob("*.cpp") if path.read_text() == ANSWER)
    return source.with_suffix(".so")


def leftovers(cache: Path) -> list[str]:
    return [path.name for path in cache.iterdir() if path.suffix not in (".so", ".cpp")]
