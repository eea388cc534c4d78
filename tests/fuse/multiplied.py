"""Products of matrices by the compiled function, of tensors however they lie in memory."""

import struct

import torch
from torch import Tensor

from recurlab.fuse.abi import address
from recurlab.fuse.cpu.product import compiled

# The struct `Product` of matrices.h: six addresses, eight sizes and strides, whether to add, and the threads.
PRODUCT = struct.Struct("6P8l2i")


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
    rows, terms = left.shape
    columns = right.shape[1]
    if left_rows is not None:
        rows = left_rows.shape[0]
    by_row, (left_row, left_term), (right_term, right_column) = out.stride(), left.stride(), right.stride()
    assert by_row[1] == 1 or columns == 1
    if left_row != 1 and left_term != 1:
        left = _one_side_by_side(left)
        left_row, left_term = _strides(left)
    if right_term != 1 and right_column != 1:
        right = _one_side_by_side(right)
        right_term, right_column = _strides(right)
    call = PRODUCT.pack(
        out.data_ptr(), left.data_ptr(), right.data_ptr(), address(out_rows), address(left_rows), address(right_rows),
        rows, terms, columns, by_row[0], left_row, left_term, right_term, right_column, add, torch.get_num_threads(),
    )  # fmt: skip
    compiled(out.dtype)(call)


def _one_side_by_side(matrix: Tensor) -> Tensor:
    """Return a matrix whose rows' numbers, or whose columns', lie side by side."""
    return matrix if 1 in _strides(matrix) else matrix.contiguous()


def _strides(matrix: Tensor) -> tuple[int, int]:
    """Return the strides of a matrix; that of a single row or column is free, and taken for 1."""
    rows, columns = matrix.shape
    down, along = matrix.stride()
    return (down, 1) if columns == 1 else (1, along) if rows == 1 else (down, along)
