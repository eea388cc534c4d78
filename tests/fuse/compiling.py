"""Kernels for other CPUs, and processes of their own that ask for one and what they leave in the cache."""

import ctypes
import functools
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from recurlab.fuse import registry
from recurlab.fuse.cpu import compiler

COMPILER = next((path for name in ("c++", "g++", "clang++") if (path := shutil.which(name))), None)
needs_compiler = pytest.mark.skipif(COMPILER is None, reason="no C++ compiler on this machine")

ANSWER = 'extern "C" int answer() { return 42; }\n'
ASK = f"from recurlab.fuse.cpu import compiler\nassert compiler.load({ANSWER!r}).answer() == 42\n"
# Marks every compilation of a kernel, the probe's aside, and may be told to be slow or to fail in some directory.
WRAPPER = """#!/bin/sh
case "$*" in *-c\\ kernel.cpp*) if grep -q answer kernel.cpp; then
    echo $$ >> "{log}"; {extra}
fi;; esac
exec "{compiler}" "$@"
"""

# What each width and each set of instructions is compiled by, beside the native ones.
MARCHES = {"haswell": ("AVX2", "AVX512"), "sandybridge": ("AVX2", "AVX512"), "x86-64": ("DEFAULT", "AVX2", "AVX512")}


def for_march(source: str, march: str, directory: Path) -> ctypes.CDLL:
    """Return the library of a source, for the instructions of a CPU; skip the test where this one can't run it."""
    if (reason := compiler.unavailable()) is not None:
        pytest.skip(reason)
    if march == "native":
        return compiler.load(source)
    if platform.machine() != "x86_64" or torch.backends.cpu.get_cpu_capability() not in MARCHES[march]:
        pytest.skip(f"this machine can't run {march}")
    if COMPILER is None:
        pytest.skip("no compiler under its usual names")
    (directory / "shim.cpp").write_text(source)
    flags = [*compiler.FLAGS, f"-march={march}", "-shared"]
    subprocess.run([COMPILER, *flags, "shim.cpp", "-o", "shim.so", "-lm"], cwd=directory, check=True)
    return ctypes.CDLL(str(directory / "shim.so"))


def start(code: str = ASK) -> subprocess.Popen[str]:
    command = [sys.executable, "-W", "always", "-c", code]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


_toolchains = {}


@contextmanager
def compiled_with(level: str) -> Iterator[None]:
    """Let kernels be compiled with another level of optimisation, e.g. -O0; those made before are left aside."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(compiler, "FLAGS", tuple(level if flag == "-O3" else flag for flag in compiler.FLAGS))
        toolchain, loaded = _toolchains.setdefault(level, (functools.cache(compiler._toolchain.__wrapped__), {}))
        patch.setattr(compiler, "_toolchain", toolchain)
        patch.setattr(compiler, "_loaded", loaded)
        patch.setattr(registry, "_kernels", {})
        yield


def run(code: str = ASK, *, seconds: float = 60) -> tuple[str, str]:
    """Run code in a process of its own, which must succeed; return its output and its warnings."""
    process = start(code)
    output, errors = process.communicate(timeout=seconds)
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
