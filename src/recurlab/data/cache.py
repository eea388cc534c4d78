"""A cache on disk for arrays that take long to prepare: Arrow files that are read back memory-mapped."""

import hashlib
import mmap
import warnings
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recurlab.caches import Folder, Untrusted, cache_root, opened
from recurlab.errors import one_line
from recurlab.files import replacing

FORMAT = "2"  # of the format; a new one makes every entry stale
CHECKSUM = hashlib.sha256().digest_size  # bytes behind the end of the Arrow stream, where its readers do not look


def cached(identity: str, make: Callable[[], Mapping[str, NDArray[Any]]]) -> dict[str, NDArray[Any]]:
    """Return the arrays of `make`, or those kept from an earlier call; one-dimensional, not to be written to.

    Processes that start at once may each make them; an entry appears in one piece. A damaged entry
    is made anew. Where the cache can't be written, or others could write to it, the arrays are made
    on each call.

    Args:
        identity: everything that the arrays depend on: contents of files, options, version of the
            code.
        make: called where the cache has no entry.
    """
    key = hashlib.sha256(f"{FORMAT}\0{identity}".encode()).hexdigest()
    name = f"{key}.arrow"
    with ExitStack() as stack:
        folder = _folder(stack)
        if folder and (found := _read(folder, name)) is not None:
            return found
        made = {column: np.asarray(array).view() for column, array in make().items()}
        for array in made.values():
            array.setflags(write=False)
        written = _read(folder, name) if folder and _write(folder.path / name, made) else None
    return made if written is None else written


def _folder(stack: ExitStack) -> Folder | None:
    """Return the open folder of the arrays, None where there can't be one."""
    try:
        return stack.enter_context(opened(Path(cache_root()).expanduser() / "data"))
    except Untrusted as error:  # a model is trained on what is in it
        problem = f"can't keep prepared data in {cache_root()}: {one_line(error)}; they are prepared each time"
        text = f"{problem}: set RECURLAB_CACHE to a directory to keep them in"
        warnings.warn(text, RuntimeWarning, stacklevel=3)
    except (OSError, RuntimeError):
        pass
    return None


def cache_folder(name: str) -> Path:
    """Return a folder of the cache, made if need be.

    Raises:
        OSError, RuntimeError: if there can't be one.
    """
    folder = Path(cache_root()).expanduser().absolute() / name
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return folder


def _read(folder: Folder, name: str) -> dict[str, NDArray[Any]] | None:
    """Return the arrays of an entry, on the memory of its file; None if there is none or it is damaged."""
    import pyarrow as pa  # type: ignore[import-untyped,unused-ignore]

    try:
        with folder.open(name) as file:
            whole = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        # Checked before it is parsed, all of it: Arrow itself does not see a changed number.
        with memoryview(whole) as view, view[:-CHECKSUM] as content:
            if hashlib.sha256(content).digest() != whole[-CHECKSUM:]:
                return None
        batch = pa.ipc.open_stream(pa.py_buffer(whole)).read_next_batch()
        return {
            key: column.values.to_numpy(zero_copy_only=False)
            for key, column in zip(batch.schema.names, batch.columns, strict=True)
        }
    except (OSError, ValueError):  # Arrow's errors are among them, and an empty file
        return None


def _write(entry: Path, arrays: Mapping[str, NDArray[Any]]) -> bool:
    """Write an entry in one piece, over a damaged one if need be; return whether that was possible."""
    import pyarrow as pa

    # One row, in which each array is a list: so one file can hold arrays of different lengths.
    columns = {
        name: pa.LargeListArray.from_arrays(pa.array([0, len(array)], pa.int64()), pa.array(array))
        for name, array in arrays.items()
    }
    batch = pa.RecordBatch.from_pydict(columns)
    try:
        with replacing(entry) as file:
            with pa.ipc.new_stream(file, batch.schema) as writer:
                writer.write_batch(batch)
            file.seek(0)
            file.write(hashlib.file_digest(file, "sha256").digest())
    except OSError:
        return False
    return True
