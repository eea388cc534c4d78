"""A fingerprint of the content of a data set's files, whatever their paths and times."""

import hashlib
import json
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from recurlab.data.cache import cached
from recurlab.data.data import Data
from recurlab.data.files import sha256_of, unreadable

LARGE = 8 << 20  # bytes from which a sha256 is cached; that of a smaller file takes some milliseconds
RECENT = 2.0  # seconds within which a file system's clock may not tell two changes apart


def fingerprint(data: Data) -> str:
    """Return 12 letters and digits that are the same for files of the same content.

    "" where the config alone settles the content: generated data, data of the hub, and original
    files.

    Raises:
        RecurlabError: for a file that is missing or can't be read.
    """
    return of_files(data.sources(), data.originals)


def of_files(files: Mapping[str, Path], known: Mapping[str, str] | None = None) -> str:
    """Return the fingerprint of files by their names; those with a known sha256 are left out."""
    found = [(name, _sha256(path)) for name, path in sorted(files.items())]
    others = [(name, content) for name, content in found if (known or {}).get(name) != content]
    return hashlib.sha256(json.dumps(others).encode()).hexdigest()[:12] if others else ""


def _sha256(path: Path) -> str:
    """Return the sha256 of a file; that of a large one is cached until the file system reports a change."""
    try:
        about = path.stat()
    except OSError as error:
        raise unreadable(path, error) from error
    changed = max(about.st_mtime, about.st_ctime)  # the time of modification can be set, but ctime can't
    if about.st_size < LARGE or time.time() - changed < RECENT:
        return sha256_of(path)
    file = (str(path.absolute()), about.st_dev, about.st_ino, about.st_size, about.st_mtime_ns, about.st_ctime_ns)
    kept = cached(f"sha256 {file}", lambda: {"sha256": np.frombuffer(bytes.fromhex(sha256_of(path)), np.uint8)})
    return kept["sha256"].tobytes().hex()
