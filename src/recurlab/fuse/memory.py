"""Memory for the tensors of a scan: large ones, and those whose address decides how a product rounds."""

import ctypes
import math
import mmap
import sys
import weakref
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

HUGE = 2 << 20  # bytes of a huge page
ADVISE_HUGE = 14  # MADV_HUGEPAGE of Linux
PAGE = 4096  # bytes
GIVEN_BACK = 32 << 20  # bytes from which on the C library gives memory back to the system as soon as it is free
LINE = 64  # bytes, at multiples of which torch places what it allocates
_libc = ctypes.CDLL(None) if sys.platform == "linux" else None


def empty(like: Tensor, *shape: int, dtype: torch.dtype | None = None, swapped: bool = False) -> Tensor:
    """Return an empty tensor of `shape`, in huge pages where it is large; its first two dimensions lie `swapped`.

    A tensor of a hundred megabytes is fresh memory each time: taken in small pages, touching it
    first can cost as much as the computation.
    """
    if swapped:  # not by a transposition: a view that leaves an operator can't be changed in place
        rows, _, features = shape
        tensor = like.new_empty_strided(shape, (features, rows * features, 1), dtype=dtype)
    else:
        tensor = like.new_empty(*shape, dtype=dtype)  # a shape in one piece takes half a microsecond more
    # A fake tensor has no memory.
    if type(tensor) is Tensor and tensor.nbytes >= 2 * HUGE and _libc is not None and tensor.is_cpu:
        size = tensor.nbytes
        start = -(-tensor.data_ptr() // HUGE) * HUGE
        end = (tensor.data_ptr() + size) // HUGE * HUGE
        _libc.madvise(ctypes.c_void_p(start), ctypes.c_size_t(end - start), ADVISE_HUGE)
    return tensor


class _Pieces:
    """Memory that tensors have had and others may have again.

    The C library gives large pieces back to the system at once. They are fresh memory the next time,
    which the system clears page by page: up to a fifth of a training step. Here a piece is given back
    when nobody has asked for it in `UNUSED` requests.

    Attributes:
        on: whether there are any; else all memory comes of torch's allocator.
    """

    UNUSED = 64

    def __init__(self) -> None:
        self.on = True
        self._free: list[tuple[int, mmap.mmap]] = []  # each with the number of the request at which it became free
        self._requests = 0

    def take(self, size: int) -> ctypes.Array[ctypes.c_char]:
        """Return a buffer of so many bytes; when it is not used any more, its piece is free again."""
        self._requests += 1
        free, self._free = self._free, []
        fitting = [piece for _, piece in free if size + PAGE <= len(piece) <= size + PAGE + size // 4]
        piece = min(fitting, key=len) if fitting else self._new(size)
        self._free += [each for each in free if each[1] is not piece and each[0] > self._requests - self.UNUSED]
        # Not all at the start of a page: what lies at equal places of pages shares few lines of the first cache.
        buffer = (ctypes.c_char * size).from_buffer(piece, self._requests % 31 * 2 * LINE)
        weakref.finalize(buffer, self._give_back, piece).atexit = False
        return buffer

    def _give_back(self, piece: mmap.mmap) -> None:
        self._free.append((self._requests, piece))

    def _new(self, size: int) -> mmap.mmap:
        # Private: a forked process has a copy.
        piece = mmap.mmap(-1, -(-(size + PAGE) // HUGE) * HUGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        if hasattr(mmap, "MADV_HUGEPAGE"):
            piece.madvise(mmap.MADV_HUGEPAGE)
        return piece


_pieces = _Pieces()


@contextmanager
def visible() -> Iterator[None]:
    """Take all memory of torch's allocator meanwhile, so that a profiler sees it."""
    _pieces.on, before = False, _pieces.on
    try:
        yield
    finally:
        _pieces.on = before


def reused(like: Tensor, *shape: int, dtype: torch.dtype | None = None, swapped: bool = False) -> Tensor:
    """Return an empty tensor as `empty` does, if it is large in memory that an earlier one had.

    It is for what a scan keeps for its gradient or works with; a caller may resize what is his.
    """
    kind = dtype or like.dtype
    size = math.prod(shape) * kind.itemsize
    if size < GIVEN_BACK or not _pieces.on or type(like) not in (Tensor, torch.nn.Parameter) or not like.is_cpu:
        return empty(like, *shape, dtype=dtype, swapped=swapped)
    tensor = torch.frombuffer(_pieces.take(size), dtype=kind)
    return tensor.view(shape[1], shape[0], *shape[2:]).transpose(0, 1) if swapped else tensor.view(shape)


def aligned(tensor: Tensor) -> Tensor:
    """Return the tensor, copied if its address is not aligned as torch aligns what it allocates.

    A product may round differently where its operands are aligned differently, as MKL's does on
    AMD's processors, and the alignment of memory that torch did not allocate, such as NumPy's,
    varies from run to run.
    """
    return tensor.clone() if tensor.data_ptr() % LINE else tensor
