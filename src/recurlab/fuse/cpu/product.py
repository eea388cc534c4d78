"""Products of matrices on a CPU: compiled for it like the kernels, since torch's are slow on some processors."""

import ctypes
import functools
from typing import Any

import torch

from recurlab.fuse.cpu.compiler import load
from recurlab.fuse.cpu.source import product_source


@functools.cache
def compiled(dtype: torch.dtype) -> Any:
    """Return the compiled function; it takes the bytes of a struct `Product`, see matrices.h."""
    function = load(product_source(dtype)).product
    function.argtypes, function.restype = [ctypes.c_char_p], None
    return function
