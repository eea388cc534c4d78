"""Where all that is kept between runs has its folder, and how a folder is opened that nobody else can change."""

import os
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO


class Untrusted(PermissionError):  # noqa: N818  as OSErrors are named
    """A folder or a file that somebody else could have written."""


def cache_root() -> str:
    """Return ``$RECURLAB_CACHE``, or the folder recurlab of the user's caches, where ``~`` may stand for the home."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    return os.environ.get("RECURLAB_CACHE") or f"{base if base.startswith('/') else '~/.cache'}/recurlab"


@dataclass(frozen=True)
class Folder:
    """A folder that is open, in which nobody but this user and root could have put anything.

    Attributes:
        path: of the folder, without symbolic links.
        descriptor: of the folder, for the functions of `os` that take a `dir_fd`.
    """

    path: Path
    descriptor: int

    def open(self, name: str) -> BinaryIO:
        """Open a file of the folder for reading; raise OSError for what is no file or could be written by others."""
        path = self.path / name
        # A pipe in its place would let the opening wait for a writer.
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        file = os.fdopen(os.open(name, flags, dir_fd=self.descriptor), "rb")
        try:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise OSError(f"{path} is no file")
            _check(status, path)
        except BaseException:
            file.close()
            raise
        return file


@contextmanager
def opened(path: Path) -> Iterator[Folder]:
    """Open a folder, made if need be, for this user alone.

    It and each folder on the way to it, from the home or else from the root of the file system on, has to belong to
    this user or to root, and must not be writable by others: who can rename a folder can put another one in its place.
    Above it a sticky folder, as /tmp, may be: what lies there is renamed by its owner alone.

    Raises:
        Untrusted: naming the first folder that others can write.
        OSError: if it can't be opened or made.
    """
    if os.name != "posix":
        raise OSError(f"platform={sys.platform!r}: must be linux or darwin for a cache")
    path, home = Path(os.path.realpath(path)), Path(os.path.realpath(os.path.expanduser("~")))  # noqa: PTH111
    place = home if path.is_relative_to(home) and home.is_dir() else Path(path.anchor)
    # A folder that can't be listed can be passed through.
    flags = os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC | getattr(os, "O_PATH", os.O_RDONLY)
    descriptor = os.open(place, flags)
    try:
        for name in path.relative_to(place).parts:
            _check(os.fstat(descriptor), place, passed=True)
            place /= name
            child = _child(name, place, flags, descriptor)
            os.close(descriptor)
            descriptor = child
        _check(os.fstat(descriptor), place)
        yield Folder(path, descriptor)
    finally:
        os.close(descriptor)


def _child(name: str, place: Path, flags: int, parent: int) -> int:
    """Open a folder within an open one, made if need be; `place` is its path, for the errors."""
    try:
        try:
            return os.open(name, flags, dir_fd=parent)
        except FileNotFoundError:
            with suppress(FileExistsError):
                os.mkdir(name, 0o700, dir_fd=parent)
            return os.open(name, flags, dir_fd=parent)
    except OSError as error:
        raise type(error)(error.errno, error.strerror, str(place)) from None


def _check(status: os.stat_result, path: Path, *, passed: bool = False) -> None:
    """Raise Untrusted if others could have written a file or a folder, or one that is only passed through."""
    if status.st_uid not in (os.geteuid(), 0):
        raise Untrusted(f"{path} belongs to another user")
    if passed and status.st_mode & stat.S_ISVTX:
        return
    if status.st_mode & stat.S_IWOTH:
        raise Untrusted(f"{path} can be written by everyone")
    if status.st_mode & stat.S_IWGRP and not _is_alone(status.st_uid, status.st_gid):
        raise Untrusted(f"{path} can be written by its group")


def _is_alone(user: int, group: int) -> bool:
    """Return whether a group is the one of a user's own name, as many systems give to each, with nobody else in it."""
    import grp  # not on every platform
    import pwd

    try:
        name, found = pwd.getpwuid(user).pw_name, grp.getgrgid(group)
    except KeyError:
        return False
    return found.gr_name == name and set(found.gr_mem) <= {name}
