"""The rows of a packed batch on a CPU, compiled: in Python they would cost as much as a short sequence."""

import ctypes
import functools
import struct

import torch
from torch import Tensor

from recurlab.fuse.abi import address
from recurlab.fuse.cpu.compiler import load
from recurlab.fuse.cpu.source import PACKED_CALLS, packed_source

# The struct `Packed` of packed.h: seven addresses, five sizes and strides, and the threads.
PACKED = struct.Struct("7P5li")


@functools.cache
def compiled() -> ctypes.CDLL:
    """Return the library; its functions take the bytes of their struct."""
    library = load(packed_source())
    for name in PACKED_CALLS:
        function = getattr(library, name)
        function.argtypes, function.restype = [ctypes.c_char_p], None
    return library


def plan(lengths: Tensor, steps: int) -> tuple[Tensor, Tensor]:
    """Return the rows (T + 1,) and the order (B,) of samples of these lengths, see `Packing`."""
    rows, order = torch.empty(steps + 1, dtype=torch.int64), torch.empty_like(lengths)
    compiled().plan(_call(rows, order, lengths=lengths))
    return rows, order


def read(sizes: Tensor, order: Tensor) -> tuple[Tensor, Tensor] | None:
    """Return the rows (T + 1,) and the lengths (B,) of a packed batch, or None if it can't be one.

    Args:
        sizes: int64, (T,), how many samples have each step.
        order: int64, (B,), the samples, the longest first.
    """
    rows, lengths = torch.empty(len(sizes) + 1, dtype=torch.int64), torch.empty_like(order)
    compiled().read(_call(rows, order, lengths=lengths, sizes=sizes))
    return None if int(rows[-1]) < 0 else (rows, lengths)


def places(rows: Tensor, order: Tensor, *, batch_first: bool) -> Tensor:
    """Return where each row lies among the steps of a padded batch (T, B) or (B, T): (N,)."""
    steps, batch = rows.shape[0] - 1, order.shape[0]
    found = torch.empty(int(rows[-1]), dtype=torch.int64)
    strides = (1, steps) if batch_first else (batch, 1)
    compiled().find_places(_call(rows, order, places=found, strides=strides))
    return found


def clear_padding(padded: Tensor, rows: Tensor, order: Tensor) -> None:
    """Set a padded batch (T, B, F), the features of a step side by side in memory, to 0 beyond the valid steps."""
    compiled().clear(_move(padded, None, rows, order))


def pack(padded: Tensor, rows: Tensor, order: Tensor) -> Tensor:
    """Return the rows (N, F) of a padded batch (T, B, F)."""
    if padded.stride(2) != 1:
        padded = padded.contiguous()
    packed = padded.new_empty(int(rows[-1]), padded.shape[2])
    compiled().pack(_move(padded, packed, rows, order))
    return packed


def unpack(packed: Tensor, rows: Tensor, order: Tensor) -> Tensor:
    """Return the padded batch (T, B, F) of these rows (N, F), with zeros as padding."""
    packed = packed.contiguous()
    padded = packed.new_empty(rows.shape[0] - 1, order.shape[0], packed.shape[1])
    compiled().unpack(_move(padded, packed, rows, order))
    return padded


def _move(padded: Tensor, packed: Tensor | None, rows: Tensor, order: Tensor) -> bytes:
    size = padded.element_size()
    by_step, by_sample, _ = padded.stride()
    strides = by_step * size, by_sample * size
    return _call(rows, order, padded=padded, packed=packed, strides=strides, size=padded.shape[2] * size)


def _call(
    rows: Tensor,
    order: Tensor,
    *,
    sizes: Tensor | None = None,
    lengths: Tensor | None = None,
    places: Tensor | None = None,
    padded: Tensor | None = None,
    packed: Tensor | None = None,
    strides: tuple[int, int] = (0, 0),
    size: int = 0,
) -> bytes:
    return PACKED.pack(
        address(sizes), address(lengths), rows.data_ptr(), order.data_ptr(), address(places), address(padded),
        address(packed), *strides, size, rows.shape[0] - 1, order.shape[0], torch.get_num_threads(),
    )  # fmt: skip
