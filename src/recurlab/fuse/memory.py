"""Memory for the tensors of a scan: large ones, and those whose address decides how a product rounds."""

import ctypes
import sys

import torch
from torch import Tensor

HUGE = 2 << 20  # bytes of a huge page
ADVISE_HUGE = 14  # MADV_HUGEPAGE of Linux
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
        tensor = like.new_empty(shape, dtype=dtype)
    size = tensor.numel() * tensor.element_size()
    # A fake tensor has no memory.
    if _libc is not None and size >= 2 * HUGE and type(tensor) is Tensor and tensor.device.type == "cpu":
        start = -(-tensor.data_ptr() // HUGE) * HUGE
        end = (tensor.data_ptr() + size) // HUGE * HUGE
        _libc.madvise(ctypes.c_void_p(start), ctypes.c_size_t(end - start), ADVISE_HUGE)
    return tensor


def aligned(tensor: Tensor) -> Tensor:
    """Return the tensor, copied if its address is not aligned as torch aligns what it allocates.

    A product may round differently where its operands are aligned differently, as MKL's does on
    AMD's processors, and the alignment of memory that torch did not allocate, such as NumPy's,
    varies from run to run.
    """
    return tensor.clone() if tensor.data_ptr() % LINE else tensor
