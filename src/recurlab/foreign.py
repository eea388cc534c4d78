"""Reading files that somebody else made: none of them can block, fill the memory or run code."""

import errno
import io
import os
import re
import stat
import warnings
import zipfile
from pathlib import Path
from typing import Any

FREE = 2**26  # bytes that the unpacked content of any compressed file may have
RATIO = 100  # unpacked bytes for each byte of a larger file; trained weights never compress as far as this
OBJECT = re.compile(r"GLOBAL '?([\w.]+)")  # how torch names an object that is not a tensor


def open_file(path: Path) -> io.BufferedReader:
    """Open a file for reading.

    Raises:
        OSError: also for a pipe, which could block forever, a device, or anything else that is not
            a regular file.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "not a regular file", str(path))
    return open(descriptor, "rb")  # noqa: PTH123  a descriptor


def content_of(path: Path, most: int | None = None) -> bytes:
    """Return the bytes of a file.

    Args:
        path: of the file.
        most: bytes that it may have; None: as many as this machine's memory.

    Raises:
        OSError: as `open_file`, and for a larger file, before any of it is read.
    """
    with open_file(path) as file:
        check_size(file, most)
        return file.read()


def check_size(file: io.BufferedReader, most: int | None = None) -> None:
    """Raise OSError for a file of more bytes than `content_of` takes, even if it is sparse and takes no disk space."""
    size = os.fstat(file.fileno()).st_size
    if most is None:
        most = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if size > most:
        raise OSError(errno.EFBIG, f"{size:,} bytes, at most {most:,} are read", str(file.name))


def most_of(size: int) -> int:
    """Return how many bytes a compressed file of `size` bytes may unpack to."""
    return FREE + RATIO * size


def check_unfolded(total: int, size: int) -> None:
    """Raise ValueError for a file of `size` bytes that claims to unpack to more than `most_of` allows."""
    if total > most_of(size):
        raise ValueError(f"{size:,} bytes say that they hold {total:,}, at most {most_of(size):,} are unfolded")


def check_archive(file: io.BufferedReader) -> zipfile.ZipFile:
    """Return a file as a zip archive, if its entries together are not too large.

    Raises:
        ValueError: for entries that are too large.
        zipfile.BadZipFile: for a file that is not an archive.
    """
    archive = zipfile.ZipFile(file)
    check_unfolded(sum(entry.file_size for entry in archive.infolist()), file.seek(0, os.SEEK_END))
    file.seek(0)
    return archive


def load_tensors(path: Path, checked: bool = False) -> Any:
    """Return the tensors and plain values that `torch.save` wrote into a file; no other object is unpickled.

    Args:
        path: of the file.
        checked: whether to verify the checksum of each part, which torch itself does not.

    Raises:
        Exception: of many classes, for a damaged file; torch's advice to load it without this check
            is left out.
    """
    import torch

    with open_file(path) as file, warnings.catch_warnings():
        if checked or zipfile.is_zipfile(file):
            archive = check_archive(file)
            if checked and (damaged := archive.testzip()):
                raise ValueError(f"{damaged} is damaged")
        file.seek(0)
        warnings.simplefilter("ignore")  # about files that are refused anyway
        try:
            return torch.load(file, map_location="cpu", weights_only=True)
        except Exception as error:
            if "weights_only" not in str(error):
                raise
            found = OBJECT.search(str(error))
            what = f"a Python object ({found[1]}), which could run code" if found else "something else, or is damaged"
            raise ValueError(f"must hold only tensors and plain values, but holds {what}") from error
