"""Cell arrays of matrices in MATLAB files of version 5, the format of the piano rolls.

The format is that of "MAT-File Format" (The MathWorks). SciPy reads it too, but its compiled reader
can be brought down by a damaged file, and the process with it.
"""

import math
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from recurlab.errors import RecurlabError
from recurlab.foreign import content_of, most_of

HEADER = 128  # bytes
NUMBERS = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}
MATRIX, COMPRESSED = 14, 15
CELL, NUMERIC, COMPLEX = 1, range(6, 16), 0x800


def read_cells(path: Path, variable: str) -> list[NDArray[np.generic]]:
    """Return the matrices of a cell array, in MATLAB's order; nothing but numbers is read from the file.

    Raises:
        RecurlabError: if the file is damaged or of another version, or the variable missing or no
            cell array.
    """
    try:
        raw = memoryview(content_of(path))
        order = {b"\x00\x01IM": "<", b"\x01\x00MI": ">"}.get(bytes(raw[HEADER - 4 : HEADER]))
        if order is None:
            raise RecurlabError(f"{path}: not a MATLAB file of version 5, as save -v7 writes")
        return _cells(str(path), variable, _matrices(raw[HEADER:], order), order)
    except RecurlabError:
        raise
    except (OSError, ValueError, struct.error, zlib.error) as error:
        raise RecurlabError(f"{path}: damaged ({error})") from error


def _cells(path: str, variable: str, matrices: Iterator[memoryview], order: str) -> list[NDArray[np.generic]]:
    names = []
    for content in matrices:
        array_class, shape, name, parts = _matrix(content, order)
        names.append(name)
        if name == variable:
            if array_class != CELL or math.prod(shape) != len(parts):
                raise RecurlabError(f"{path}: {variable} must be a cell array of matrices")
            return [_numbers(f"{path}: {variable}{{{n}}}", part, order) for n, part in enumerate(parts, 1)]
    raise RecurlabError(f"{path}: has no variable {variable!r}, only {', '.join(names) or 'none'}")


def _numbers(where: str, part: tuple[int, memoryview], order: str) -> NDArray[np.generic]:
    """Return a matrix of real numbers."""
    array_class, shape, _, parts = _matrix(part[1], order) if part[0] == MATRIX and len(part[1]) else (0, (), "", [])
    if array_class not in NUMERIC or len(shape) != 2 or len(parts) != 1 or parts[0][0] not in NUMBERS:
        raise RecurlabError(f"{where}: must be a matrix of real numbers")
    return np.frombuffer(parts[0][1], order + NUMBERS[parts[0][0]]).reshape(shape, order="F")


def _matrix(content: memoryview, order: str) -> tuple[int, tuple[int, ...], str, list[tuple[int, memoryview]]]:
    """Return the class of an array, its shape, its name and its parts: numbers, or the arrays of a cell array."""
    (_, flags), (_, shape), (_, name), *parts = _elements(content, order)
    array_class = struct.unpack_from(f"{order}I", flags)[0]
    sizes = struct.unpack(f"{order}{len(shape) // 4}i", shape)
    if min(sizes, default=0) < 0:
        raise ValueError("an array of a negative size")
    text = bytes(name).decode("ascii")
    if text and not text.isidentifier():
        raise ValueError("an array whose name is none")
    return (0 if array_class & COMPLEX else array_class & 0xFF), sizes, text[:63], parts


def _matrices(data: memoryview, order: str) -> Iterator[memoryview]:
    for data_type, content in _elements(data, order):
        if data_type == COMPRESSED:
            [(data_type, content)] = _elements(memoryview(_unfolded(content)), order)
        if data_type == MATRIX:
            yield content


def _unfolded(content: memoryview) -> bytes:
    """Return a decompressed element; one that would be unreasonably large is an error."""
    stream = zlib.decompressobj()
    found = stream.decompress(content, most_of(len(content)))
    if not stream.eof:
        raise ValueError("a compressed element is cut off, or too large")
    return found


def _elements(data: memoryview, order: str) -> Iterator[tuple[int, memoryview]]:
    """Yield the type and the contents of each element, one after another."""
    offset = 0
    while offset < len(data):
        data_type, size = struct.unpack_from(f"{order}II", data, offset)
        start, end = offset + 8, offset + 8 + size
        if data_type >> 16:  # a small one: type and size share four bytes, the contents are the next four
            data_type, size = data_type & 0xFFFF, data_type >> 16
            start, end = offset + 4, offset + 4 + size
            if size > 4:
                raise ValueError(f"an element of {size} bytes where 4 fit")
        if end > len(data):
            raise ValueError(f"an element ends {end - len(data)} bytes after the data")
        yield data_type, data[start:end]
        offset = end if data_type == COMPRESSED else end + (offset - end) % 8  # padded to eight bytes
