"""Compiled kernels on disk: made once, and read back only if they are complete and this user's own."""

import hashlib
import os
import shutil
import tempfile
import threading
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from itertools import count
from pathlib import Path
from typing import BinaryIO, TypeVar

from recurlab.caches import Folder, Untrusted, cache_root, opened
from recurlab.errors import RecurlabError, one_line
from recurlab.locks import acquire

FORMAT = "1"  # of the cache; another one makes every entry stale
CHECKSUM = hashlib.sha256().digest_size
LOCK_SECONDS, STALE_SECONDS = 120, 86400

T = TypeVar("T")

# Held while a kernel is obtained, by one thread of the process at a time.
lock = threading.RLock()
_warned = False
_spellings = count(1)

if hasattr(os, "register_at_fork"):
    # A fork waits until no thread compiles. A child forked in between would inherit a lock that nobody releases, and
    # the pipes of the compiler, whose end its parent waits for.
    os.register_at_fork(before=lock.acquire, after_in_parent=lock.release, after_in_child=lock.release)


def obtain(
    source: str,
    identity: Iterable[str],
    suffixes: tuple[str, str],
    build: Callable[[Path], None],
    load: Callable[[bytes, str], T],
) -> tuple[T, str | None]:
    """Return what `load` makes of a source's kernel, and None or the reason why the cache could not take it.

    Args:
        source: the text of the kernel.
        identity: all else that the compiled kernel depends on: the compiler, its flags, the
            machine.
        suffixes: of the source and of the compiled kernel, e.g. ``(".cpp", ".so")``.
        build: is given a directory where ``kernel.cpp`` lies, and makes ``kernel.so`` there.
        load: is given the content of a kernel that is whole and ours, and a path that leads to the
            very file which was read, with its checksum behind its last byte; an OSError of it says
            that the kernel can't be used.

    Raises:
        OSError, RecurlabError: those of `build` and `load`, if the kernel can't be made outside the
            cache either.
    """
    entry = _entry(source, identity, suffixes)
    try:
        with _folder() as folder:
            if (kernel := _cached(folder, entry, load)) is None:
                with _turn(folder, f"{entry.partition('.')[0]}.lock"):
                    if (kernel := _cached(folder, entry, load)) is None:
                        kernel = _build(source, suffixes, build, load, folder, entry)
        return kernel, None
    except (OSError, RuntimeError, RecurlabError) as error:
        problem = f"can't keep compiled kernels in {cache_root()}: {one_line(error)}"
    # Whoever can swap the folder while the compiler runs there can choose what is compiled.
    try:
        with tempfile.TemporaryDirectory(prefix="recurlab-") as work, opened(Path(work)) as folder:
            return _read(folder, _made(source, suffixes, build, folder.path), load), problem
    except Untrusted as error:
        raise RecurlabError(f"{problem}, nor make them in TMPDIR: {error}") from None


def holds(source: str, identity: Iterable[str], suffixes: tuple[str, str]) -> bool:
    """Return whether a source's kernel is in the cache, whole and ours; the arguments are those of `obtain`."""
    try:
        with _folder() as folder:
            return _cached(folder, _entry(source, identity, suffixes), lambda content, path: content) is not None
    except (OSError, RuntimeError):
        return False


def warn(problem: str) -> None:
    """Warn once a process that kernels can't be kept; the warning points at the caller's caller."""
    global _warned
    if not _warned:
        _warned = True
        text = f"{problem}; each process compiles its own: set RECURLAB_CACHE to a directory to keep them in"
        warnings.warn(text, RuntimeWarning, stacklevel=3)


def _entry(source: str, identity: Iterable[str], suffixes: tuple[str, str]) -> str:
    """Return the name of a kernel's file in the cache."""
    key = hashlib.sha256("\0".join((FORMAT, source, *identity)).encode(errors="surrogateescape")).hexdigest()
    return f"{key}{suffixes[1]}"


def _folder() -> AbstractContextManager[Folder]:
    """Open the folder of the cache; raise RuntimeError if its path begins with the home of an unknown user."""
    return opened(Path(cache_root()).expanduser() / "kernels")


def _read(folder: Folder, name: str, load: Callable[[bytes, str], T]) -> T:
    """Return what `load` makes of a kernel; raise OSError if it is missing, damaged or not ours."""
    # Opened once, so that the file which is checked is the one that is loaded. Checked before: a loader that is given a
    # truncated library kills the process.
    with folder.open(name) as file:
        sealed = file.read()
        if hashlib.sha256(sealed[:-CHECKSUM]).digest() != sealed[-CHECKSUM:]:
            raise OSError(f"{folder.path / name} is damaged")
        return load(sealed[:-CHECKSUM], _path_of(file, folder.path / name))


def _path_of(file: BinaryIO, path: Path) -> str:
    """Return a path to an open file that stays right even if its own path now leads to another file.

    The dynamic loader recognises libraries by their paths, and file descriptors are used again. So
    each call spells the path anew: "/" and "/." in it are the digits of a number that counts up.
    """
    spelling = f"{next(_spellings):b}".replace("0", "/").replace("1", "/.")
    found = f"/proc/self/fd{spelling}/{file.fileno()}"
    try:
        there = os.stat(found)  # noqa: PTH116  a Path would shorten the spelling
        return found if os.path.samestat(there, os.fstat(file.fileno())) else str(path)
    except OSError:  # only Linux has them; elsewhere only this user can have changed the file
        return str(path)


def _cached(folder: Folder, name: str, load: Callable[[bytes, str], T]) -> T | None:
    """Return an entry of the cache, or None if it can't be used."""
    try:
        return _read(folder, name, load)
    except OSError:
        return None


def _made(source: str, suffixes: tuple[str, str], build: Callable[[Path], None], work: Path) -> str:
    """Return the name of the kernel made in `work`, complete and sealed with its checksum."""
    text, kernel = (work / f"kernel{suffix}" for suffix in suffixes)
    text.write_text(source, encoding="utf-8")
    build(work)
    # A loader ignores what follows the last section, so one file holds both the kernel and its checksum.
    with kernel.open("r+b") as file:
        file.write(hashlib.sha256(file.read()).digest())
        file.flush()
        os.fsync(file.fileno())
    kernel.chmod(kernel.stat().st_mode & ~0o022)  # the umask may have let others write it
    return kernel.name


def _build(
    source: str, suffixes: tuple[str, str], build: Callable[[Path], None], load: Callable[[bytes, str], T],
    folder: Folder, entry: str,
) -> T:  # fmt: skip
    """Compile into the cache: an entry appears there whole, and only if it can be loaded."""
    _sweep(folder.path)
    with tempfile.TemporaryDirectory(prefix="tmp-", dir=folder.path, ignore_cleanup_errors=True) as work:
        made = _made(source, suffixes, build, Path(work))
        inner = Path(work).name
        kernel = _read(folder, f"{inner}/{made}", load)
        if (folder.path / entry).is_dir():
            shutil.rmtree(folder.path / entry)
        os.replace(f"{inner}/{made}", entry, src_dir_fd=folder.descriptor, dst_dir_fd=folder.descriptor)
        with suppress(OSError):  # only for people to read
            (Path(work) / f"kernel{suffixes[0]}").replace((folder.path / entry).with_suffix(suffixes[0]))
    return kernel


def _sweep(directory: Path) -> None:
    """Remove what processes that were killed have left behind."""
    for path in [*directory.glob("tmp-*"), *directory.glob("*.lock")]:
        with suppress(OSError):
            if time.time() - path.lstat().st_mtime > STALE_SECONDS:
                shutil.rmtree(path) if path.is_dir() else path.unlink()


@contextmanager
def _turn(folder: Folder, name: str) -> Iterator[None]:
    """Wait while another process compiles the same source; only to save work, so that a timeout does no harm."""
    descriptor = os.open(name, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600, dir_fd=folder.descriptor)
    try:
        with suppress(OSError):  # a file system without locks
            acquire(descriptor, LOCK_SECONDS)
        yield
    finally:
        with suppress(OSError):
            os.unlink(name, dir_fd=folder.descriptor)
        os.close(descriptor)
