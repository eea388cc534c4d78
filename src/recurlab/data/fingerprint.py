"""What a data set reads, told by the content of its files: neither by where they are nor by when they were written."""

import hashlib
import json
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from recurlab.data.cache import cached
from recurlab.data.data import Data
from recurlab.data.files import sha256_of, unreadable

LARGE = 8 << 20  # bytes, of a file whose sha256 is kept; to take that of a smaller one costs some milliseconds
RECENT = 2.0  # seconds within which the coarsest clocks of file systems tell no two changes apart


def fingerprint(data: Data) -> str:
    """Return 12 letters and digits that all files of the same content share.

    "" is for what the config alone says: data that are generated, or of the hub, or are the original files.

    Raises:
        RecurlabError: for a file that is missing or can't be read.
    """
    return of_files(data.sources(), data.originals)


def of_files(files: Mapping[str, Path], known: Mapping[str, str] | None = None) -> str:
    """Return the fingerprint of files by their names, but for those of a sha256 that is known."""
    found = [(name, _sha256(path)) for name, path in sorted(files.items())]
    others = [(name, content) for name, content in found if (known or {}).get(name) != content]
    return hashlib.sha256(json.dumps(others).encode()).hexdigest()[:12] if others else ""


def _sha256(path: Path) -> str:
    """Return the sha256 of a file; that of a large one is kept until the file system says that the file is another."""
    try:
        about = path.stat()
    except OSError as error:
        raise unreadable(path, error) from error
    changed = max(about.st_mtime, about.st_ctime)  # times can be set, but the one of the change of a file can't
    if about.st_size < LARGE or time.time() - changed < RECENT:
        return sha256_of(path)
    place = (str(path.absolute()), about.st_dev, about.st_ino, about.st_size, about.st_mtime_ns, about.st_ctime_ns)
    kept = cached(f"sha256 {place}", lambda: {"sha256": np.frombuffer(bytes.fromhex(sha256_of(path)), np.uint8)})
    return kept["sha256"].tobytes().hex()
