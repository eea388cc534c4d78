"""A double of torch's products on a CPU, whose last bits depend on what no promise may rest on.

On some processors (AMD's, with MKL) the sum of a product comes in another order where an operand lies elsewhere in
memory or is transposed, where there are more rows beside it or before it, or on more threads. On others it does not,
and a test of a promise would pass by luck. The double splits each sum in two at a place that depends on all of these;
sums that are exact stay so.
"""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor


def _matmul(a: Tensor, b: Tensor) -> Tensor:
    """Return a @ b for matrices, or batches of them."""
    dtype = torch.float32 if a.dtype in (torch.float16, torch.bfloat16) else a.dtype
    x, y = (t.detach().to(dtype).numpy() for t in (a, b))
    rows, terms = x.shape[-2:]
    place = sum(t.data_ptr() // 4 % 16 + 3 * (t.stride(-1) == 1) for t in (a, b)) + rows + 5 * torch.get_num_threads()
    product = np.empty((*x.shape[:-1], y.shape[-1]), x.dtype)
    with np.errstate(all="ignore"):  # torch does not warn of infinities either
        for first in range(min(rows, 2)):
            split = 1 + (place + first) % (terms - 1) if terms > 1 else terms
            some = x[..., first::2, :]
            product[..., first::2, :] = some[..., :split] @ y[..., :split, :]
            if split < terms:
                product[..., first::2, :] += some[..., split:] @ y[..., split:, :]
    return torch.from_numpy(product).to(a.dtype)


def _sum(c: Tensor, a: Tensor, b: Tensor, beta: float, alpha: float) -> Tensor:
    product = _matmul(a, b) if alpha == 1 else alpha * _matmul(a, b)
    return product if beta == 0 else product + (c if beta == 1 else beta * c)


def _mm_out(a, b, *, out):
    return out.copy_(_matmul(a, b))


def _addmm(c, a, b, *, beta=1, alpha=1):
    return _sum(c, a, b, beta, alpha).contiguous()


def _addmm_in_place(c, a, b, *, beta=1, alpha=1):
    return c.copy_(_sum(c, a, b, beta, alpha))


def _addmm_out(c, a, b, *, beta=1, alpha=1, out):
    return out.copy_(_sum(c, a, b, beta, alpha))


KERNELS = {
    "mm": _matmul, "mm.out": _mm_out, "bmm": _matmul, "bmm.out": _mm_out,
    "addmm": _addmm, "addmm.out": _addmm_out, "addmm_": _addmm_in_place,
    "baddbmm": _addmm, "baddbmm.out": _addmm_out, "baddbmm_": _addmm_in_place,
}  # fmt: skip


@contextmanager
def unsteady() -> Iterator[None]:
    """Let the double take the place of torch's products, in this process and those forked from it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that kernels of torch are replaced
        library = torch.library.Library("aten", "IMPL")
        for name, kernel in KERNELS.items():
            library.impl(name, kernel, "CPU")
    try:
        yield
    finally:
        library._destroy()
