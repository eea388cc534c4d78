"""From C++ source to a loaded library: compiled once, then read from a cache on disk.

The caller imports torch first: the libraries take their OpenMP runtime from the process, and torch
brings the one that the process should have. A source guards what it says about OpenMP with `#ifdef
_OPENMP`, does not include omp.h, and exports its entry points as `extern "C"`; all else in it is
static.
"""

import ctypes
import functools
import os
import platform
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass
from itertools import product, takewhile
from pathlib import Path

from recurlab.errors import RecurlabError, one_line
from recurlab.fuse import cache
from recurlab.fuse.cpu import openmp

# Not -ffast-math: GCC before 13 then links code that turns denormals off for the whole process.
FLAGS = ("-std=c++17", "-O3", "-fPIC", "-fno-math-errno", "-fno-trapping-math")
# Without -fopenmp: the OpenMP symbols stay open, and the runtime that torch has loaded fills them. A library linked to
# a second runtime would bring a second pool of threads. A kernel's own symbols are bound to itself.
LINK = ("-shared", "-Wl,-undefined,dynamic_lookup" if sys.platform == "darwin" else "-Wl,-Bsymbolic")
INSTALL = "install g++ (Debian, Ubuntu), gcc-c++ (Fedora) or run xcode-select --install (macOS)"
PROBE = """#include <cmath>
extern "C" void probe(float *x, int n) {
#pragma omp parallel for
    for (int i = 0; i < n; ++i) x[i] = std::exp(x[i]) * x[i] + 1.0f;
}
"""
COMPILE_SECONDS = 600

_loaded: dict[str, ctypes.CDLL] = {}


@dataclass(frozen=True)
class _Toolchain:
    """A compiler that works: its command, its flags, and what distinguishes it from any other compiler."""

    command: tuple[str, ...]
    flags: tuple[str, ...]
    identity: str


def unavailable() -> str | None:
    """Return None if there is a C++ compiler that works, else the reason in a line; found once a process."""
    with cache.lock:
        found = _toolchain()
    return found if isinstance(found, str) else None


def load(source: str) -> ctypes.CDLL:
    """Return the library compiled from C++ `source`, the same one each time.

    Raises:
        RecurlabError: if there is no compiler, or it can't compile the source.
    """
    if source in _loaded:
        return _loaded[source]
    with cache.lock:
        if source in _loaded:
            return _loaded[source]
        tool = _toolchain()
        if isinstance(tool, str):
            raise RecurlabError(tool)
        _loaded[source], problem = _obtain(tool, source)
    if problem is not None:
        cache.warn(problem)
    return _loaded[source]


@functools.cache
def _toolchain() -> _Toolchain | str:
    """Return the first compiler that works, or the reason why none does."""
    if os.name != "posix":
        return f"platform={sys.platform!r}: must be linux or darwin for compiled kernels"
    try:
        chosen = shlex.split(os.environ.get("CXX", ""))
    except ValueError as error:
        return f"CXX={os.environ['CXX']!r}: {one_line(error)}; must be a C++ compiler, e.g. g++"
    reasons = []
    for command in [chosen] if chosen else [["c++"], ["g++"], ["clang++"]]:
        if (path := shutil.which(command[0])) is None:
            continue
        # The compiler runs in another directory, where a relative path would lead nowhere.
        found = _first_working((str(Path(path).absolute()), *command[1:]))
        if isinstance(found, _Toolchain):
            return found
        reasons.append(found)
    if chosen:
        why = reasons[0] if reasons else "not found"
        return f"CXX={shlex.join(chosen)!r}: no C++ compiler that works ({why}); {INSTALL}, or unset CXX"
    why = f"no C++ compiler that works ({reasons[0]})" if reasons else "no C++ compiler found"
    return f"{why}; {INSTALL}, or set CXX to one"


def _first_working(command: tuple[str, ...]) -> _Toolchain | str:
    """Return the compiler with the best flags it can serve, or the reason why it serves none.

    For this machine's own instructions, unless the command names others, as in
    CXX="g++ -march=x86-64-v3".
    """
    native = "-march=native" if platform.machine().lower() in ("x86_64", "amd64", "i686") else "-mcpu=native"
    # Apple's driver refuses -fopenmp, but its compiler accepts it. Without OpenMP a kernel runs in one thread.
    openmp = [("-Xclang", "-fopenmp") if sys.platform == "darwin" else ("-fopenmp",), ()]
    try:
        version = _execute((*command, "--version"), Path(command[0]).parent)
    except RecurlabError as error:
        return f"{shlex.join(command)} --version: {error}"
    reason = ""
    named = any(word.startswith(("-march=", "-mcpu=")) for word in command)
    for threads, cpu in product(openmp, [()] if named else [(native,), ()]):
        tool = _Toolchain(command, (*FLAGS, *threads, *cpu), f"{Path(command[0]).resolve()} {version}")
        try:
            _obtain(tool, PROBE)
            return tool
        except RecurlabError as error:
            reason = str(error)
    return reason


def _execute(command: tuple[str, ...], work: Path) -> str:
    """Run a compiler and return its output."""
    # Its own temporary files go where they are cleaned up; its messages are read below, hence in English.
    environment = {**os.environ, "TMPDIR": str(work), "LC_ALL": "C"}
    try:
        done = subprocess.run(
            command, cwd=work, env=environment, timeout=COMPILE_SECONDS, check=False,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired) as error:
        raise RecurlabError(f"can't be run: {one_line(error)}") from None
    output = done.stdout.decode(errors="replace")
    if done.returncode != 0:
        # The last lines of a failed link only say that it failed.
        lines = [line for line in output.splitlines() if line.strip() and "linker command" not in line]
        lines = [line for line in lines if not line.startswith("collect2:")] or [f"exit status {done.returncode}"]
        raise RecurlabError(one_line(next((line for line in lines if "error:" in line), lines[-1])))
    return output


def _compile(tool: _Toolchain, work: Path) -> None:
    """Make kernel.so of kernel.cpp in `work`."""
    _execute((*tool.command, *tool.flags, "-c", "kernel.cpp", "-o", "kernel.o"), work)
    _execute((*tool.command, *LINK, "kernel.o", "-o", "kernel.so"), work)


def _obtain(tool: _Toolchain, source: str) -> tuple[ctypes.CDLL, str | None]:
    """Return a source's library, and None or the reason why the cache could not take it."""
    if "-fopenmp" in tool.flags:
        openmp.load_runtime(tool.identity)
    identity = (*tool.command[1:], *tool.flags, *LINK, tool.identity, _cpu())
    try:
        return cache.obtain(
            source, identity, (".cpp", ".so"), lambda work: _compile(tool, work), lambda _, path: ctypes.CDLL(path)
        )
    except (OSError, RecurlabError) as error:
        raise RecurlabError(f"{shlex.join(tool.command)} can't build a kernel: {one_line(error)}") from None


def first_core() -> list[str]:
    """Return what Linux says of the first core, one "key : value" a line; [] elsewhere. Reading all cores is slow."""
    try:
        with Path("/proc/cpuinfo").open() as file:
            return list(takewhile(str.strip, file))
    except OSError:
        return []


@functools.cache
def _cpu() -> str:
    """Return what distinguishes this CPU from one that could not run the same code."""
    names = ("vendor_id", "cpu family", "model", "model name", "flags", "Features", "CPU implementer", "CPU part")
    # Without Linux's description the name of the host is all that distinguishes it.
    lines = first_core() or [f"model: {platform.node()}"]
    known = [one_line(line) for line in lines if line.partition(":")[0].strip() in names]
    return "\n".join((platform.machine(), platform.processor(), *known))
