"""Files that hold all of the old or all of the new, whoever is killed while they are written."""

import fcntl
import os
import platform
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import BufferedRandom
from pathlib import Path

# A file that is being written. It is locked by its writer, so that one whose writer is gone can be told; but not
# every file system shows a machine the locks of another one, hence its name.
MINE = f".new-{platform.node()[:64].replace('/', '_')}-"


def write_text(path: Path, text: str) -> None:
    """Write a file in UTF-8 so that at any time it holds all of the old text or all of the new."""
    write_bytes(path, text.encode())


def write_bytes(path: Path, content: bytes | memoryview, durable: bool = False) -> None:
    """Write a file so that at any time it holds all of the old bytes or all of the new; see `replacing`."""
    with replacing(path, durable) as file:
        file.write(content)


@contextmanager
def replacing(path: Path, durable: bool = False) -> Iterator[BufferedRandom]:
    """Give an empty file, to be written and read, which takes the place of `path` once the block has ended well.

    What writers of this machine that were killed have left in the folder is removed.

    Args:
        path: of the file.
        durable: whether it is to be on the disk on return, for a machine that may lose its power.
    """
    _sweep(path.parent)
    new, file = _begin(path.parent)
    with file:
        try:
            yield file
            file.flush()
            if durable:
                os.fsync(file.fileno())
            new.replace(path)
        except BaseException:
            new.unlink(missing_ok=True)
            raise
    if durable:
        sync(path.parent)


def sync(path: Path) -> None:
    """Have the content of a file, or the names in a folder, on the disk on return."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _begin(folder: Path) -> tuple[Path, BufferedRandom]:
    while True:
        path = folder / f"{MINE}{secrets.token_hex(8)}"
        file = path.open("x+b")
        with suppress(OSError):  # a file system without locks
            fcntl.flock(file, fcntl.LOCK_EX)
        if os.fstat(file.fileno()).st_nlink:
            return path, file
        file.close()  # it was swept away before it was locked


def _sweep(folder: Path) -> None:
    """Remove the files whose writers are gone."""
    with suppress(OSError):
        for path in [path for path in folder.iterdir() if path.name.startswith(MINE) and path.is_file()]:
            with suppress(OSError), path.open("r+b") as file:  # its writer lives, or it is gone meanwhile
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                path.unlink()
