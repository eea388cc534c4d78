"""From C++ source to a loaded library: compiled once, then read from a cache on disk.

The caller imports torch first: the libraries take their OpenMP runtime from the process, and torch brings the one
that the process should have. A source guards what it says about OpenMP with `#ifdef _OPENMP`, does not include
omp.h, and exports its entry points as `extern "C"`; all else in it is static.
"""

import ctypes
import functools
import hashlib
import os
import platform
import shlex
import shutil
import stat
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import product, takewhile
from pathlib import Path

from recurlab.errors import RecurlabError, one_line

FORMAT = "1"  # of the cache; another one makes every entry stale
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
CHECKSUM = hashlib.sha256().digest_size
COMPILE_SECONDS, LOCK_SECONDS, STALE_SECONDS = 600, 120, 86400

_loaded: dict[str, ctypes.CDLL] = {}
_lock = threading.RLock()
_warned = False


if hasattr(os, "register_at_fork"):
    # A fork waits until other threads have compiled: a child born in between would keep their lock for good, and hold
    # the pipes open whose end the parent waits for.
    os.register_at_fork(before=_lock.acquire, after_in_parent=_lock.release, after_in_child=_lock.release)


@dataclass(frozen=True)
class _Toolchain:
    """A compiler that works: its command, its flags, and what tells it from any other compiler."""

    command: tuple[str, ...]
    flags: tuple[str, ...]
    identity: str


def unavailable() -> str | None:
    """Return None if there is a C++ compiler that works, else the reason in a line; found once a process."""
    with _lock:
        found = _toolchain()
    return found if isinstance(found, str) else None


def load(source: str) -> ctypes.CDLL:
    """Return the library compiled from C++ `source`, the same one each time.

    Raises:
        RecurlabError: if there is no compiler, or it can't compile the source.
    """
    if source in _loaded:
        return _loaded[source]
    with _lock:
        if source in _loaded:
            return _loaded[source]
        tool = _toolchain()
        if isinstance(tool, str):
            raise RecurlabError(tool)
        _loaded[source], problem = _obtain(tool, source)
    if problem is not None:
        _warn(problem)
    return _loaded[source]


def _warn(problem: str) -> None:
    global _warned
    if not _warned:
        _warned = True
        text = f"{problem}; each process compiles its own: set RECURLAB_CACHE to a directory to keep them in"
        warnings.warn(text, RuntimeWarning, stacklevel=3)


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
    """Return the compiler with the best flags it can serve, or the reason why it serves none."""
    native = "-march=native" if platform.machine().lower() in ("x86_64", "amd64", "i686") else "-mcpu=native"
    # Apple's driver refuses -fopenmp, its compiler takes it. Without OpenMP a kernel runs in one thread.
    openmp = [("-Xclang", "-fopenmp") if sys.platform == "darwin" else ("-fopenmp",), ()]
    try:
        version = _execute((*command, "--version"), Path(command[0]).parent)
    except RecurlabError as error:
        return f"{shlex.join(command)} --version: {error}"
    reason = ""
    for threads, cpu in product(openmp, [(native,), ()]):
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


def _compile(tool: _Toolchain, source: str, work: Path) -> Path:
    """Return the library in `work`, complete and sealed with its checksum."""
    (work / "kernel.cpp").write_text(source, encoding="utf-8")
    _execute((*tool.command, *tool.flags, "-c", "kernel.cpp", "-o", "kernel.o"), work)
    _execute((*tool.command, *LINK, "kernel.o", "-o", "kernel.so"), work)
    library = work / "kernel.so"
    # A loader passes over what follows the last section, so that one file holds the library and its checksum.
    with library.open("r+b") as file:
        file.write(hashlib.sha256(file.read()).digest())
        file.flush()
        os.fsync(file.fileno())
    return library


def _share_openmp(tool: _Toolchain) -> None:
    """See to it that the process has the OpenMP runtime that the compiler's code calls."""
    if "-fopenmp" not in tool.flags:
        return
    # The two kinds of compilers call runtimes of two kinds; GCC's gives its licence with its version.
    symbol, names = "GOMP_parallel", ["libgomp.so.1"]
    if "Free Software Foundation" not in tool.identity:
        symbol, names = "__kmpc_fork_call", ["libomp.so.5", "libomp.so", "libiomp5.so", "libomp.dylib"]
    for name in names:
        if hasattr(ctypes.CDLL(None), symbol):
            return
        try:
            ctypes.CDLL(name, mode=ctypes.RTLD_GLOBAL)
        except OSError:
            continue


def _obtain(tool: _Toolchain, source: str) -> tuple[ctypes.CDLL, str | None]:
    """Return a source's library, and None or the reason why the cache could not take it."""
    _share_openmp(tool)
    text = "\0".join((FORMAT, source, *tool.command[1:], *tool.flags, *LINK, tool.identity, _cpu()))
    key = hashlib.sha256(text.encode(errors="surrogateescape")).hexdigest()
    try:
        entry = _directory() / f"{key}.so"
        if (library := _cached(entry)) is None:
            with _turn(entry.with_suffix(".lock")):
                library = _cached(entry) or _build(tool, source, entry)
        return library, None
    except (OSError, RuntimeError, RecurlabError) as error:
        problem = f"can't keep compiled kernels in {_root()}: {one_line(error)}"
    try:
        with tempfile.TemporaryDirectory(prefix="recurlab-") as work:
            return ctypes.CDLL(str(_compile(tool, source, Path(work)))), problem
    except (OSError, RecurlabError) as error:
        raise RecurlabError(f"{shlex.join(tool.command)} can't build a kernel: {one_line(error)}") from None


def _cached(entry: Path) -> ctypes.CDLL | None:
    """Return an entry of the cache, or None if it is missing, damaged or not ours."""
    # Checked before it is loaded: a loader that is given a truncated library kills the process.
    try:
        status = entry.stat()
        if not stat.S_ISREG(status.st_mode) or status.st_uid not in (os.geteuid(), 0):
            return None
        content = entry.read_bytes()
        if hashlib.sha256(content[:-CHECKSUM]).digest() != content[-CHECKSUM:]:
            return None
        return ctypes.CDLL(str(entry))
    except OSError:
        return None


def _build(tool: _Toolchain, source: str, entry: Path) -> ctypes.CDLL:
    """Compile into the cache: an entry appears there whole, and only if it can be loaded."""
    _sweep(entry.parent)
    with tempfile.TemporaryDirectory(prefix="tmp-", dir=entry.parent, ignore_cleanup_errors=True) as work:
        path = _compile(tool, source, Path(work))
        library = ctypes.CDLL(str(path))
        if entry.is_dir():
            shutil.rmtree(entry)
        path.replace(entry)
        with suppress(OSError):  # there for the curious only
            path.with_suffix(".cpp").replace(entry.with_suffix(".cpp"))
    return library


def _sweep(directory: Path) -> None:
    """Remove what processes that were killed have left behind."""
    for path in [*directory.glob("tmp-*"), *directory.glob("*.lock")]:
        with suppress(OSError):
            if time.time() - path.lstat().st_mtime > STALE_SECONDS:
                shutil.rmtree(path) if path.is_dir() else path.unlink()


def _root() -> str:
    base = os.environ.get("XDG_CACHE_HOME", "")
    return os.environ.get("RECURLAB_CACHE") or f"{base if base.startswith('/') else '~/.cache'}/recurlab"


def _directory() -> Path:
    """Return the directory of the cache, made if need be; raise OSError or RuntimeError if it can't be used."""
    root = Path(_root()).expanduser().absolute()
    directory = root / "kernels"
    if not directory.is_dir():
        root.mkdir(mode=0o700, parents=True, exist_ok=True)
        directory.mkdir(mode=0o700, exist_ok=True)
    status = directory.stat()
    # What lies there is run: nobody else may have put it there.
    if status.st_uid not in (os.geteuid(), 0) or status.st_mode & stat.S_IWOTH:
        raise PermissionError(f"{directory} belongs to another user or can be written by everyone")
    return directory


@contextmanager
def _turn(path: Path) -> Iterator[None]:
    """Wait while another process compiles the same source; only to save work, so that a timeout does no harm."""
    import fcntl  # not on every platform

    deadline = time.monotonic() + LOCK_SECONDS
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        while time.monotonic() < deadline:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                time.sleep(0.02)
            except OSError:
                break  # a file system without locks
        yield
    finally:
        with suppress(OSError):
            path.unlink()
        os.close(descriptor)


@functools.cache
def _cpu() -> str:
    """Return what tells this CPU from one that could not run the same code."""
    names = ("vendor_id", "cpu family", "model", "model name", "flags", "Features", "CPU implementer", "CPU part")
    try:
        with Path("/proc/cpuinfo").open() as file:
            # The first core's: to read on is slow on a machine with many.
            lines = list(takewhile(str.strip, file))
    except OSError:
        # Nothing tells it but the host that it is in.
        lines = [f"model: {platform.node()}"]
    told = [one_line(line) for line in lines if line.partition(":")[0].strip() in names]
    return "\n".join((platform.machine(), platform.processor(), *told))
