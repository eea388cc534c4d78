"""Compiled kernels on disk: made once, and read back only if they are whole and ours."""

import hashlib
import os
import shutil
import stat
import tempfile
import threading
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar

from recurlab.caches import cache_root
from recurlab.errors import RecurlabError, one_line

FORMAT = "1"  # of the cache; another one makes every entry stale
CHECKSUM = hashlib.sha256().digest_size
LOCK_SECONDS, STALE_SECONDS = 120, 86400

T = TypeVar("T")

# Held while a kernel is obtained, by one thread of the process at a time.
lock = threading.RLock()
_warned = False

if hasattr(os, "register_at_fork"):
    # A fork waits until other threads have compiled: a child born in between would keep their lock for good, and hold
    # the pipes open whose end the parent waits for.
    os.register_at_fork(before=lock.acquire, after_in_parent=lock.release, after_in_child=lock.release)


def obtain(
    source: str,
    identity: Iterable[str],
    suffixes: tuple[str, str],
    build: Callable[[Path], None],
    load: Callable[[Path], T],
) -> tuple[T, str | None]:
    """Return what `load` makes of a source's kernel, and None or the reason why the cache could not take it.

    Args:
        source: the text of the kernel.
        identity: all else that the kernel depends on: the compiler, its flags, the machine.
        suffixes: of the source and of the compiled kernel, e.g. ``(".cpp", ".so")``.
        build: is given a directory where ``kernel.cpp`` lies, and makes ``kernel.so`` there.
        load: is given the path of a kernel that is whole, its checksum behind its last byte; an OSError of it says
            that the kernel can't be used.

    Raises:
        OSError, RecurlabError: those of `build` and `load`, if the kernel can't be made outside the cache either.
    """
    try:
        entry = _entry(source, identity, suffixes)
        if (kernel := _cached(entry, load)) is None:
            with _turn(entry.with_suffix(".lock")):
                if (kernel := _cached(entry, load)) is None:
                    kernel = _build(source, suffixes, build, load, entry)
        return kernel, None
    except (OSError, RuntimeError, RecurlabError) as error:
        problem = f"can't keep compiled kernels in {cache_root()}: {one_line(error)}"
    with tempfile.TemporaryDirectory(prefix="recurlab-") as work:
        return load(_made(source, suffixes, build, Path(work))), problem


def holds(source: str, identity: Iterable[str], suffixes: tuple[str, str]) -> bool:
    """Return whether a source's kernel is in the cache, whole and ours; the arguments are those of `obtain`."""
    try:
        return _cached(_entry(source, identity, suffixes), content) is not None
    except (OSError, RuntimeError):
        return False


def warn(problem: str) -> None:
    """Warn, in the name of the caller's caller and once a process, that kernels can't be kept."""
    global _warned
    if not _warned:
        _warned = True
        text = f"{problem}; each process compiles its own: set RECURLAB_CACHE to a directory to keep them in"
        warnings.warn(text, RuntimeWarning, stacklevel=3)


def content(path: Path) -> bytes:
    """Return a kernel without its checksum; raise OSError if it is missing, damaged or not ours."""
    status = path.stat()
    if not stat.S_ISREG(status.st_mode) or status.st_uid not in (os.geteuid(), 0):
        raise OSError(f"{path} is no file of this user")
    sealed = path.read_bytes()
    if hashlib.sha256(sealed[:-CHECKSUM]).digest() != sealed[-CHECKSUM:]:
        raise OSError(f"{path} is damaged")
    return sealed[:-CHECKSUM]


def _entry(source: str, identity: Iterable[str], suffixes: tuple[str, str]) -> Path:
    """Return the path of a kernel in the cache; raise OSError or RuntimeError if there can be none."""
    key = hashlib.sha256("\0".join((FORMAT, source, *identity)).encode(errors="surrogateescape")).hexdigest()
    return _directory() / f"{key}{suffixes[1]}"


def _cached(entry: Path, load: Callable[[Path], T]) -> T | None:
    """Return an entry of the cache, or None if it can't be used."""
    try:
        content(entry)  # checked before it is loaded: a loader that is given a truncated library kills the process
        return load(entry)
    except OSError:
        return None


def _made(source: str, suffixes: tuple[str, str], build: Callable[[Path], None], work: Path) -> Path:
    """Return the kernel made in `work`, complete and sealed with its checksum."""
    text, kernel = (work / f"kernel{suffix}" for suffix in suffixes)
    text.write_text(source, encoding="utf-8")
    build(work)
    # A loader passes over what follows the last section, so that one file holds the kernel and its checksum.
    with kernel.open("r+b") as file:
        file.write(hashlib.sha256(file.read()).digest())
        file.flush()
        os.fsync(file.fileno())
    return kernel


def _build(
    source: str, suffixes: tuple[str, str], build: Callable[[Path], None], load: Callable[[Path], T], entry: Path
) -> T:
    """Compile into the cache: an entry appears there whole, and only if it can be loaded."""
    _sweep(entry.parent)
    with tempfile.TemporaryDirectory(prefix="tmp-", dir=entry.parent, ignore_cleanup_errors=True) as work:
        path = _made(source, suffixes, build, Path(work))
        kernel = load(path)
        if entry.is_dir():
            shutil.rmtree(entry)
        path.replace(entry)
        with suppress(OSError):  # there for the curious only
            path.with_suffix(suffixes[0]).replace(entry.with_suffix(suffixes[0]))
    return kernel


def _sweep(directory: Path) -> None:
    """Remove what processes that were killed have left behind."""
    for path in [*directory.glob("tmp-*"), *directory.glob("*.lock")]:
        with suppress(OSError):
            if time.time() - path.lstat().st_mtime > STALE_SECONDS:
                shutil.rmtree(path) if path.is_dir() else path.unlink()


def _directory() -> Path:
    """Return the directory of the cache, made if need be; raise OSError or RuntimeError if it can't be used."""
    root = Path(cache_root()).expanduser().absolute()
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
