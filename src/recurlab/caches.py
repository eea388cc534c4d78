"""The cache folder, and opening folders that nobody else can change."""

import os
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO


class Untrusted(PermissionError):  # noqa: N818  as OSErrors are named
    """A folder or a file that somebody else can write."""


def cache_root() -> str:
    """Return ``$RECURLAB_CACHE``, or ``recurlab`` in the user's caches; may begin with ``~``."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    return os.environ.get("RECURLAB_CACHE") or f"{base if base.startswith('/') else '~/.cache'}/recurlab"


@dataclass(frozen=True)
class Folder:
    """An open folder to which only this user and root can add files.

    Attributes:
        path: of the folder, without symbolic links.
        descriptor: of the folder, for the functions of `os` that take a `dir_fd`.
    """

    path: Path
    descriptor: int

    def open(self, name: str) -> BinaryIO:
        """Open a file for reading; raise OSError if it is irregular or others can write it."""
        path = self.path / name
        # O_NONBLOCK: opening a pipe would wait for a writer.
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
    """Open a folder that only this user can change, created if it is missing.

    It and each folder on the way to it, from the home or else from the root of the file system,
    must belong to this user or to root and must not be writable by others: whoever can rename a
    folder can replace it. On the way a sticky folder such as /tmp is allowed, since only the owner
    can rename what lies in it.

    Raises:
        Untrusted: naming the first folder that others can write.
        OSError: if it can't be opened or made.
    """
    if os.name != "posix":
        raise OSError(f"platform={sys.platform!r}: must be linux or darwin for a cache")
    path, home = Path(os.path.realpath(path)), Path(os.path.realpath(os.path.expanduser("~")))  # noqa: PTH111
    reached = home if path.is_relative_to(home) and home.is_dir() else Path(path.anchor)
    # O_PATH: a folder that can't be listed may be on the way.
    flags = os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC | getattr(os, "O_PATH", os.O_RDONLY)
    descriptor = os.open(reached, flags)
    try:
        for name in path.relative_to(reached).parts:
            _check(os.fstat(descriptor), reached, passed=True)
            reached /= name
            child = _child(name, reached, flags, descriptor)
            os.close(descriptor)
            descriptor = child
        _check(os.fstat(descriptor), reached)
        yield Folder(path, descriptor)
    finally:
        os.close(descriptor)


def _child(name: str, path: Path, flags: int, parent: int) -> int:
    """Open a folder within an open one, created if it is missing; `path` is for the errors."""
    try:
        try:
            return os.open(name, flags, dir_fd=parent)
        except FileNotFoundError:
            with suppress(FileExistsError):
                os.mkdir(name, 0o700, dir_fd=parent)
            return os.open(name, flags, dir_fd=parent)
    except OSError as error:
        raise type(error)(error.errno, error.strerror, str(path)) from None


def _check(status: os.stat_result, path: Path, *, passed: bool = False) -> None:
    """Raise Untrusted if others can write `path`; `passed`: it is only on the way to a folder."""
    if status.st_uid not in (os.geteuid(), 0):
        raise Untrusted(f"{path} belongs to another user")
    if passed and status.st_mode & stat.S_ISVTX:
        return
    if status.st_mode & stat.S_IWOTH:
        raise Untrusted(f"{path} can be written by everyone")
    if status.st_mode & stat.S_IWGRP and not _is_alone(status.st_uid, status.st_gid):
        raise Untrusted(f"{path} can be written by its group")


def _is_alone(user: int, group: int) -> bool:
    """Return whether a group is a user's private one: named as the user, no other member."""
    import grp  # not on every platform
    import pwd

    try:
        name, found = pwd.getpwuid(user).pw_name, grp.getgrgid(group)
    except KeyError:
        return False
    return found.gr_name == name and set(found.gr_mem) <= {name}
