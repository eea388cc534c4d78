"""Where the files of a data set are, and whether they are the original ones."""

import hashlib
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPException
from io import BufferedReader
from pathlib import Path
from typing import ClassVar

from recurlab.data.cache import cache_folder
from recurlab.data.data import Data, below
from recurlab.errors import RecurlabError, did_you_mean, one_line, path_of
from recurlab.files import replacing
from recurlab.foreign import check_size, open_file


@dataclass(frozen=True)
class Files(Data):
    """A mixin for a data set that reads files.

    Attributes:
        dir: folder of the files; without one, the folder `FOLDER` of ``$RECURLAB_DATA``.
        verify: whether a file whose original sha256 is known must have it.
        FOLDER: name of the folder under ``$RECURLAB_DATA``.
        SHA256: of the original files, by their names.
    """

    dir: str | None = None
    verify: bool = True

    FOLDER: ClassVar[str]
    SHA256: ClassVar[Mapping[str, str]] = {}

    @property
    def shared(self) -> str:
        """The name of the folder under ``$RECURLAB_DATA``: `FOLDER`, unless an option names another."""
        return self.FOLDER

    @property
    def originals(self) -> Mapping[str, str]:
        """The sha256 of the original files: `SHA256`, unless an option gives others."""
        return self.SHA256

    @property
    def reads(self) -> tuple[str, ...]:
        """The names of the files; () where they are not known, and all files in the folder are read."""
        return ()

    def sources(self) -> Mapping[str, Path]:
        """Return the files of `reads`; one whose original sha256 is known may be missing."""
        folder = self.folder()
        if not self.reads:
            return {} if folder is None else below(folder)
        found = {}
        for name in self.reads:
            if folder is not None and (folder / name).is_file():
                found[name] = folder / name
            elif name not in self.originals:
                self.file(name)  # raises an error that names the missing file
        return found

    def folder(self) -> Path | None:
        """Return the folder of the files; None if neither `dir` nor the environment names one."""
        if self.dir is not None:
            return path_of("data.dir", self.dir)
        shared = os.environ.get("RECURLAB_DATA")
        if shared and (folder := path_of("data.corpus", str(Path(shared) / self.shared))).is_dir():
            return folder
        return None

    def file(self, name: str) -> Path:
        """Return the path of a file that exists and, where its sha256 is known, is the original.

        Raises:
            RecurlabError: naming the file and the sha256 of the original.
        """
        folder = self.folder()
        known = self.originals.get(name)
        wanted = f"; the original has sha256 {known}" if known else ""
        if folder is None:
            raise RecurlabError(
                f"data.dir=None: must be the folder of {name}, or RECURLAB_DATA that above {self.shared}"
            )
        path = folder / name
        try:
            there = path.is_file()
        except OSError as error:
            raise unreadable(path, error) from error
        if not there:
            raise RecurlabError(f"data.dir={str(folder)!r}: {name} is missing{wanted}{_hint(folder, name)}")
        if known and self.verify:
            found = sha256_of(path)
            if found != known:
                raise RecurlabError(f"{path}: sha256 {found}{wanted}; data.verify=false takes it all the same")
        return path


def _hint(folder: Path, name: str) -> str:
    """Return a hint at the file that may have been meant by a missing one."""
    try:
        return did_you_mean(name, [path.name for path in folder.iterdir() if path.is_file()], cutoff=0.6)
    except OSError as error:
        return f"; {folder}: {error.strerror}"


def fetched(key: str, url: str, sha256: str, timeout: float = 30) -> Path:
    """Return the path in the cache of a file, which is downloaded if it is not there yet.

    Args:
        key: of the config, whose value is the address.
        url: address of the file.
        sha256: of the file.
        timeout: seconds to wait for an answer.

    Raises:
        RecurlabError: if the download fails, has another sha256, or is forbidden by
            ``HF_HUB_OFFLINE``.
    """
    local = "; for a local file set data.dir or RECURLAB_DATA"
    try:
        path = cache_folder("files") / sha256
        if path.is_file() and sha256_of(path) == sha256:
            return path
        if os.environ.get("HF_HUB_OFFLINE", "0") not in ("", "0"):
            raise RecurlabError(f"{key}={url!r}: not fetched, for HF_HUB_OFFLINE is set{local}")
        from urllib.request import urlopen

        with urlopen(url, timeout=timeout) as source, replacing(path) as target:
            shutil.copyfileobj(source, target)
            target.seek(0)
            if (found := hashlib.file_digest(target, "sha256").hexdigest()) != sha256:
                raise RecurlabError(f"{key}={url!r}: sha256 {found}; the original has sha256 {sha256}{local}")
        return path
    except RecurlabError:
        raise
    except (OSError, RuntimeError, ValueError, HTTPException) as error:
        raise RecurlabError(f"{key}={url!r}: can't be fetched ({one_line(error)}){local}") from error


@contextmanager
def readable(path: Path) -> Iterator[BufferedReader]:
    """Open a file; raise RecurlabError unless it is regular and fits into this machine's memory."""
    try:
        with open_file(path) as file:
            check_size(file)
            yield file
    except OSError as error:
        raise unreadable(path, error) from error


def sha256_of(path: Path) -> str:
    """Return the sha256 of a file, in hexadecimal."""
    with readable(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def bytes_of(path: Path) -> bytes:
    """Return the content of a file."""
    with readable(path) as file:
        return file.read()


def text_of(path: Path, content: bytes | None = None) -> str:
    """Return the text of a file without a byte order mark; line ends stay as they are.

    Args:
        path: of the file.
        content: of the file, if it has been read already.

    Raises:
        RecurlabError: for a file that is not UTF-8, with the number of the wrong byte.
    """
    try:
        return (bytes_of(path) if content is None else content).decode().removeprefix("\N{ZERO WIDTH NO-BREAK SPACE}")
    except UnicodeDecodeError as error:
        raise RecurlabError(f"{path}: not UTF-8: byte {error.start} is 0x{error.object[error.start]:02x}") from error


def unreadable(path: Path, error: OSError) -> RecurlabError:
    """Return the error for a file that the operating system refuses to read."""
    return RecurlabError(f"{path}: can't be read: {error.strerror}")
