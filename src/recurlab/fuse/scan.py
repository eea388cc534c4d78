"""The fused scan as operators of PyTorch: ``recurlab::scan`` and its gradient ``recurlab::scan_backward``."""

import os
import threading
from collections.abc import Callable, Hashable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields
from typing import Any
from weakref import ReferenceType

import torch
from torch import Tensor
from torch.utils._python_dispatch import is_in_torch_dispatch_mode

from recurlab.cells.cell import Cell, cell_of
from recurlab.errors import RecurlabError
from recurlab.fuse.arguments import SCHEMA, Arguments, Results, allocate, passes, work
from recurlab.fuse.cpu.kernel import CpuKernel
from recurlab.fuse.cuda import kernel as cuda
from recurlab.fuse.gradients import gradients
from recurlab.fuse.kernel import Kernel
from recurlab.fuse.memory import aligned

# The types of the sequences in memory, by device type; on a GPU half precision is stored, never computed in.
STORAGES = {"cpu": (torch.float32, torch.float64), "cuda": tuple(cuda.STORAGES)}
MAKERS: dict[str, Callable[[Cell, str, torch.dtype, torch.device], Kernel]] = {
    "cpu": lambda cell, loop, storage, device: CpuKernel(cell, loop, storage),
    "cuda": cuda.CudaKernel,
}
NAMES = tuple(field.name for field in fields(Arguments))
GIVEN, FILLED = len(NAMES), len(fields(Results))
RESULTS = ", ".join(f"Tensor {field.name}" for field in fields(Results))
GRADIENTS = "(Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)"  # of input, weights, biases and start

_lock = threading.RLock()
Made = Kernel | RecurlabError
_kernels: dict[tuple[Hashable, str, torch.dtype, torch.device], Made | ReferenceType[Made]] = {}


# Kernels are made in one thread for all callers: hooks and modes that a caller has set for its thread have no effect.
_maker = ThreadPoolExecutor(1, "recurlab-kernels")


def _start_anew() -> None:
    global _lock, _maker
    _lock, _maker = threading.RLock(), ThreadPoolExecutor(1, "recurlab-kernels")


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_start_anew)  # a child lacks its parent's threads, which may hold the lock


def storage_of(projected: torch.dtype, device: torch.device) -> torch.dtype:
    """Return the type of the sequences in a kernel's memory, by that of the projection."""
    half = projected in (torch.float16, torch.bfloat16)
    return torch.float32 if half and projected not in STORAGES[device.type] else projected


def kernel(token: str, kind: str, storage: torch.dtype, device: torch.device) -> Kernel:
    """Return the kernels of a cell known by its token, for sequences of a type on a device; made at first use.

    Raises:
        RecurlabError: if the step can't be written as a kernel, or there is no compiler.
    """
    cell, loop = cell_of(token), "diagonal" if kind == "diagonal" else "dense"
    # Equal cells share their kernels; a cell that can't be compared has its own, and takes them with it.
    key = (cell if cell.comparable else token, loop, storage, device)
    with _lock:  # tracing is not for several threads at once
        made = _kernels.get(key)
        if isinstance(made, ReferenceType):
            made = made()
        if made is None:
            made = _made(cell, loop, storage, device)
            if cell.comparable:
                _kernels[key] = made
            else:
                cell.kernels.append(made)
                _kernels[key] = ReferenceType(made, lambda _: _kernels.pop(key, None))
    if isinstance(made, RecurlabError):
        raise made
    return made


def _made(cell: Cell, loop: str, storage: torch.dtype, device: torch.device) -> Kernel | RecurlabError:
    try:
        return _maker.submit(MAKERS[device.type], cell, loop, storage, device).result()
    except RecurlabError as error:  # so that a step without a kernel is not traced anew in every call
        return error


def _read(args: tuple[Any, ...]) -> tuple[Kernel, Arguments]:
    given = Arguments(*args)
    return kernel(given.cell, given.kind, storage_of(given.input.dtype, given.input.device), given.input.device), given


def _tensors(results: Results) -> tuple[Tensor, ...]:
    return tuple(getattr(results, field.name) for field in fields(results))


@torch.library.custom_op("recurlab::scan", mutates_args=(), schema=f"({SCHEMA}) -> ({RESULTS})")
def scan(*args: Any) -> tuple[Tensor, ...]:
    """Run a cell over a sequence; takes the `Arguments`, gives the `Results`."""
    made, given = _read(args)
    results = allocate(made, given)
    rows, projected = given.matrix(aligned(given.input)), given.matrix(results.x)
    if rows.dtype == projected.dtype:
        torch.mm(rows, given.weight_ih.t(), out=projected)
    else:
        projected.copy_(torch.mm(rows, given.weight_ih.t()))
    made.forward(work(given, passes(made, given, results)))
    return _tensors(results)


@scan.register_fake
def _(*args: Any) -> tuple[Tensor, ...]:
    made, given = _read(args)
    return _tensors(allocate(made, given))


@torch.library.custom_op(
    "recurlab::scan_backward",
    mutates_args=(),
    schema=f"({SCHEMA}, {RESULTS}, Tensor? d_output, Tensor? d_end, bool input_grad) -> {GRADIENTS}",
)
def scan_backward(*args: Any) -> tuple[Tensor, ...]:
    """Return the gradients of what a scan was given, from all that, its results and their gradients."""
    made, given = _read(args[:GIVEN])
    return gradients(made, given, Results(*args[GIVEN : GIVEN + FILLED]), *args[GIVEN + FILLED :])


@scan_backward.register_fake
def _(*args: Any) -> tuple[Tensor, ...]:
    _, given = _read(args[:GIVEN])
    bias = given.start.new_empty(given.start.shape[0], given.weight_ih.shape[0] // given.start.shape[0])
    d_input = given.input.new_empty(given.input.shape if args[-1] else 0)
    weights = torch.empty_like(given.weight_ih), torch.empty_like(given.weight_hh)
    return d_input, *weights, bias, torch.empty_like(bias), torch.empty_like(given.start)


def _keep_for_backward(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    ctx.set_materialize_grads(False)
    # Tensors are saved by name, all else as it is.
    named = dict(zip(NAMES, inputs, strict=True))
    ctx.others = {name: value for name, value in named.items() if not isinstance(value, Tensor)}
    ctx.names = [name for name, value in named.items() if isinstance(value, Tensor)]
    ctx.cell = cell_of(named["cell"])  # alive, even where the layer is not when the gradient is computed
    ctx.watch, kept = _watched(output[0])
    ctx.save_for_backward(*(named[name] for name in ctx.names), kept, *output[1:])


def _watched(output: Tensor) -> tuple[Tensor, Tensor]:
    """Return a tensor whose version counts in-place changes of an output, and the output as it is to be saved."""
    watch = output.detach()
    if type(output) is Tensor and not is_in_torch_dispatch_mode():  # others may look at each call of torch
        watch.data = watch.new_empty(0)  # the count is shared, the memory is not held
    return watch, output.data


def _backward(ctx: Any, d_output: Tensor | None, d_end: Tensor | None, *_: Any) -> tuple[Any, ...]:
    tensors = ctx.saved_tensors  # read once: checkpointing computes them anew when asked
    saved, results = dict(zip(ctx.names, tensors, strict=False)), tensors[len(ctx.names) :]
    by_field = saved | ctx.others
    args = [by_field[name] for name in NAMES]
    if ctx.watch._version > 0:  # the caller has changed the output in place
        with torch.no_grad():
            results = (scan(*args)[0], *results[1:])
    found = scan_backward(*args, *results, d_output, d_end, ctx.needs_input_grad[2])
    names = ("input", "weight_ih", "weight_hh", "bias_ih", "bias_hh", "start")
    by_name = {name: gradient for name, gradient in zip(names, found, strict=True) if name in saved}
    if not ctx.needs_input_grad[2]:
        del by_name["input"]
    return tuple(by_name.get(name) for name in NAMES)


def _refuse(ctx: Any, *_: Any) -> None:
    raise RecurlabError("backend='fused': it has no second derivative; backend='eager' has")


scan.register_autograd(_backward, setup_context=_keep_for_backward)
scan_backward.register_autograd(_refuse)
