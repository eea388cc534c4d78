"""Writing files so that a reader finds all of the old or all of the new, even if the writer is killed."""

import os
import platform
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import BufferedRandom
from pathlib import Path

from recurlab.locks import acquire

# Prefix of a file that is being written. Its writer locks it, so a file whose writer is gone can be
# recognised. Not every file system shows a machine the locks of other machines, so the prefix holds
# the machine's name.
PREFIX = f".new-{platform.node()[:64].replace('/', '_')}-"


def write_text(path: Path, text: str) -> None:
    """Replace a file by one that holds `text` in UTF-8; see `replacing`."""
    write_bytes(path, text.encode())


def write_bytes(path: Path, content: bytes | memoryview, durable: bool = False) -> None:
    """Replace a file by one that holds `content`; see `replacing`."""
    with replacing(path, durable) as file:
        file.write(content)


@contextmanager
def replacing(path: Path, durable: bool = False) -> Iterator[BufferedRandom]:
    """Give an empty file to write and read, which replaces `path` when the block ends without an error.

    At any time `path` holds all of the old content or all of the new. Files that killed writers of
    this machine have left in the folder are removed.

    Args:
        path: of the file.
        durable: whether file and folder are synced to the disk, so that a power failure does not
            lose them.
    """
    _sweep(path.parent)
    new, file = _create(path.parent)
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


def write_link(path: Path, target: Path) -> None:
    """Make `path` a symbolic link to `target`, in one step if it was another link or file before."""
    if not path.is_symlink() or path.readlink() != target:
        new = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
        new.symlink_to(target)
        new.replace(path)


def sync(path: Path) -> None:
    """Sync the content of a file, or the names in a folder, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _create(folder: Path) -> tuple[Path, BufferedRandom]:
    """Create a locked file with a new name."""
    while True:
        path = folder / f"{PREFIX}{secrets.token_hex(8)}"
        file = path.open("x+b")
        with suppress(OSError):  # a file system without locks
            acquire(file)
        if os.fstat(file.fileno()).st_nlink:
            return path, file
        file.close()  # another process removed it before it was locked


def _sweep(folder: Path) -> None:
    """Remove the files whose writers are gone."""
    with suppress(OSError):
        for path in [path for path in folder.iterdir() if path.name.startswith(PREFIX) and path.is_file()]:
            with suppress(OSError), path.open("r+b") as file:  # it may be gone by now
                if acquire(file, patience=0):
                    path.unlink()
