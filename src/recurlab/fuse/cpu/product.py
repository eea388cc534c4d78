"""Products of matrices on a CPU: compiled for it like the kernels, since torch's are slow on some processors."""

import ctypes
import functools

import torch
from torch import Tensor

from recurlab.fuse.abi import address
from recurlab.fuse.cpu.compiler import load
from recurlab.fuse.cpu.source import REALS, product_source

POINTERS = ("out", "left", "right", "out_rows", "left_rows", "right_rows")
SIZES = ("rows", "terms", "columns", "out_row", "left_row", "left_term", "right_term", "right_column")


class Product(ctypes.Structure):
    """What the compiled function is called with, see `product.h`."""

    _fields_ = [
        *((name, ctypes.c_void_p) for name in POINTERS),
        *((name, ctypes.c_long) for name in SIZES),
        ("add", ctypes.c_int),
        ("threads", ctypes.c_int),
    ]


@functools.cache
def library(dtype: torch.dtype) -> ctypes.CDLL:
    """Return the compiled function, `product`."""
    return load(product_source(dtype))


def multiply(
    out: Tensor,
    left: Tensor,
    right: Tensor,
    *,
    add: bool = False,
    out_rows: Tensor | None = None,
    left_rows: Tensor | None = None,
    right_rows: Tensor | None = None,
) -> None:
    """Set `out` to the product of two matrices, or add it; the bits are the same on any number of threads.

    Args:
        out: (M, N), the numbers of a row side by side.
        left: (M, K).
        right: (K, N).
        add: whether the product is added to what `out` holds.
        out_rows, left_rows, right_rows: int64, (M,), (M,) and (K,), which rows of a larger matrix
            are meant; None for all. Those of left and right have their numbers side by side then.
    """
    assert out.dtype == left.dtype == right.dtype
    assert out.dtype in REALS
    assert out.stride(1) == 1 or out.shape[1] == 1
    if not left.numel() or not right.numel():
        if not add:
            out.zero_()
        return
    left, right = _one_side_by_side(left), _one_side_by_side(right)
    rows = len(left if left_rows is None else left_rows)
    call = Product(
        out.data_ptr(), left.data_ptr(), right.data_ptr(), address(out_rows), address(left_rows), address(right_rows),
        rows, left.shape[1], right.shape[1], out.stride(0),
        *_strides(left), *_strides(right), add, torch.get_num_threads(),
    )  # fmt: skip
    library(out.dtype).product(ctypes.byref(call))


def _one_side_by_side(matrix: Tensor) -> Tensor:
    """Return a matrix whose rows' numbers, or whose columns', lie side by side."""
    return matrix if 1 in _strides(matrix) else matrix.contiguous()


def _strides(matrix: Tensor) -> tuple[int, int]:
    """Return the strides of a matrix; that of a single row or column is free, and taken for 1."""
    rows, columns = matrix.shape
    down, along = matrix.stride()
    return (down, 1) if columns == 1 else (1, along) if rows == 1 else (down, along)
