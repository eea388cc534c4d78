"""The fused scan: ``recurlab::scan`` and its gradient as operators of PyTorch, and the same without their dispatch.

An operator is what compilers and others who look at each call of torch understand, but its dispatch
costs as much as a short sequence. Where nobody looks, the same functions are called directly.
"""

from dataclasses import fields, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx
from torch.utils._python_dispatch import is_in_torch_dispatch_mode

from recurlab.cells.cell import cell_of
from recurlab.errors import RecurlabError
from recurlab.fuse.arguments import SCHEMA, Arguments, Results, allocate, work
from recurlab.fuse.gradients import gradients
from recurlab.fuse.kernel import Kernel
from recurlab.fuse.memory import aligned
from recurlab.fuse.observers import observed
from recurlab.fuse.registry import kernel, storage_of

NAMES = tuple(field.name for field in fields(Arguments))
TENSORS = tuple(field.name for field in fields(Arguments) if "Tensor" in str(field.type))
# Those that may have a gradient.
LEAVES = ("input", "weight_ih", "weight_hh", "bias_ih", "bias_hh", "start", "gain_ih", "gain_hh")
GIVEN, FILLED = len(NAMES), len(fields(Results))
RESULTS = ", ".join(f"Tensor {field.name}" for field in fields(Results))
GRADIENTS = f"({', '.join('Tensor' for _ in LEAVES)})"
PLAIN = (Tensor, nn.Parameter)


def scan(given: Arguments) -> tuple[Tensor, Tensor]:
    """Run a cell over a sequence; return the output (T, B, D*H) and the states after it (D, S, B, H)."""
    tensors = _tensors_of(given)
    if _seen(tensors):
        output, end, *_ = _operator(*_values_of(given))
    elif given.grad:
        output, end = _Scan.apply(given, *tensors)  # type: ignore[no-untyped-call]
    else:
        results = _run(_kernel_of(given), given, keep=False)
        output, end = results.output, results.end
    return output, end


def _seen(tensors: tuple[Tensor | None, ...]) -> bool:
    """Return whether a compiler, tracer, mode or class of tensors looks at each call; they know operators only."""
    return observed() or any(tensor is not None and type(tensor) not in PLAIN for tensor in tensors)


def _kernel_of(given: Arguments) -> Kernel:
    device = given.input.device
    storage = storage_of(given.input.dtype, device)
    return kernel(given.cell, given.kind, storage, device, given.norm)


def _run(made: Kernel, given: Arguments, *, keep: bool = True) -> Results:
    """Run a cell over a sequence, some steps at a time; unless told to keep it, x holds no more than these."""
    steps = given.input.shape[0]
    whole = made.kind != "dense" or (given.batch_first and given.places is None)
    size = steps if whole else made.steps_at_a_time(given.start, steps)
    results = allocate(made, given, steps if keep else size)
    part, inputs = work(given, results), aligned(given.input)
    weight = given.weight_ih.t()
    for start in range(0, steps, size):
        until = min(start + size, steps)
        part.steps, part.x_from = (start, until), 0 if keep else start
        here = given.part(start, until)
        x = given.some(results.x, here if keep else slice(0, here.stop - here.start))
        if given.places is None:
            made.multiply(given.matrix(x), given.matrix(given.some(inputs, here)), weight)
        else:
            made.multiply(x, given.matrix(inputs), weight, left_rows=given.some(given.places, here))
        made.forward(part)
        part.start = results.end
    return results


def _values_of(record: Arguments | Results) -> tuple[Any, ...]:
    return tuple(getattr(record, field.name) for field in fields(record))


def _tensors_of(given: Arguments) -> tuple[Tensor | None, ...]:
    return tuple(getattr(given, name) for name in TENSORS)


# ---- what both ways have in common: what is kept for the gradient, and the gradient ---------------------------


def _keep(ctx: Any, given: Arguments, results: Results) -> None:
    ctx.set_materialize_grads(False)
    none: dict[str, Any] = dict.fromkeys(TENSORS)
    ctx.given = replace(given, **none)
    ctx.alive = cell_of(given.cell)  # even where the layer is not when the gradient is computed
    ctx.watch, kept = _watched(results.output)
    # The caller may change the states after the sequence in place too; the gradient does not need their values.
    ctx.save_for_backward(*_tensors_of(given), kept, results.end.data, *_values_of(results)[2:])


def _watched(output: Tensor) -> tuple[Tensor, Tensor]:
    """Return a tensor whose version counts in-place changes of an output, and the output as it is to be saved."""
    watch = output.detach()
    if type(output) is Tensor and not is_in_torch_dispatch_mode():  # others may look at each call of torch
        watch.data = watch.new_empty(0)  # the count is shared, the memory is not held
    return watch, output.data


def _kept(ctx: Any) -> tuple[Arguments, Results]:
    tensors = ctx.saved_tensors  # read once: checkpointing computes them anew when asked
    count = len(TENSORS)
    given = replace(ctx.given, **dict(zip(TENSORS, tensors[:count], strict=True)))
    results = Results(*tensors[count:])
    if ctx.watch._version > 0:  # the caller has changed the output in place
        with torch.no_grad():
            results.output = scan(given)[0]
    return given, results


# ---- directly -------------------------------------------------------------------------------------------------


class _Scan(torch.autograd.Function):
    @staticmethod
    def forward(ctx: FunctionCtx, given: Arguments, *_: Tensor | None) -> tuple[Tensor, Tensor]:
        results = _run(_kernel_of(given), given)
        _keep(ctx, given, results)
        return results.output, results.end

    @staticmethod
    def backward(ctx: Any, d_output: Tensor | None, d_end: Tensor | None) -> tuple[Tensor | None, ...]:
        given, results = _kept(ctx)
        input_grad = ctx.needs_input_grad[1]
        if torch.is_grad_enabled():  # the operator refuses a second derivative
            found = _gradient_operator(*_values_of(given), *_filled(results, given), d_output, d_end, input_grad)
        else:
            found = gradients(_kernel_of(given), given, results, d_output, d_end, input_grad)
        by_name = dict(zip(LEAVES, found, strict=True))
        needed = ctx.needs_input_grad[1:]
        return None, *(by_name.get(name) if need else None for name, need in zip(TENSORS, needed, strict=True))


# ---- as operators ---------------------------------------------------------------------------------------------


@torch.library.custom_op("recurlab::scan", mutates_args=(), schema=f"({SCHEMA}) -> ({RESULTS})")
def _operator(*args: Any) -> tuple[Tensor, ...]:
    """Run a cell over a sequence; takes the `Arguments`, gives the `Results`, (0,) for None."""
    given = Arguments(*args)
    return _filled(_run(_kernel_of(given), given), given)


@_operator.register_fake
def _(*args: Any) -> tuple[Tensor, ...]:
    given = Arguments(*args)
    return _filled(allocate(_kernel_of(given), given, given.input.shape[0]), given)


def _filled(results: Results, given: Arguments) -> tuple[Tensor, ...]:
    """Return the results with an empty tensor for each that is None: an operator's results are all tensors."""
    return tuple(given.start.new_empty(0) if value is None else value for value in _values_of(results))


def _read(tensors: tuple[Tensor, ...]) -> Results:
    output, end, x, *others = tensors
    return Results(output, end, x, *(other if other.numel() else None for other in others))


@torch.library.custom_op(
    "recurlab::scan_backward",
    mutates_args=(),
    schema=f"({SCHEMA}, {RESULTS}, Tensor? d_output, Tensor? d_end, bool input_grad) -> {GRADIENTS}",
)
def _gradient_operator(*args: Any) -> tuple[Tensor, ...]:
    """Return the gradients of what a scan was given, from all that, its results and their gradients."""
    given, results = Arguments(*args[:GIVEN]), _read(args[GIVEN : GIVEN + FILLED])
    found = gradients(_kernel_of(given), given, results, *args[GIVEN + FILLED :])
    # An operator's results are tensors that share no memory.
    return tuple(given.start.new_empty(0) if each is None else each.clone() for each in found)


@_gradient_operator.register_fake
def _(*args: Any) -> tuple[Tensor, ...]:
    given = Arguments(*args[:GIVEN])
    leaves = {name: getattr(given, name) for name in LEAVES}
    if not args[-1]:
        leaves["input"] = None
    return tuple(given.start.new_empty(0) if leaf is None else torch.empty_like(leaf) for leaf in leaves.values())


def _keep_for_operator(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    _keep(ctx, Arguments(*inputs), Results(*output))


def _backward_of_operator(ctx: Any, d_output: Tensor | None, d_end: Tensor | None, *_: Any) -> tuple[Any, ...]:
    given, results = _kept(ctx)
    needed = dict(zip(NAMES, ctx.needs_input_grad, strict=True))
    found = _gradient_operator(*_values_of(given), *_values_of(results), d_output, d_end, needed["input"])
    by_name = dict(zip(LEAVES, found, strict=True))
    return tuple(by_name.get(name) if needed[name] else None for name in NAMES)


def _refuse(ctx: Any, *_: Any) -> None:
    raise RecurlabError("backend='fused': it has no second derivative; backend='eager' has")


_operator.register_autograd(_backward_of_operator, setup_context=_keep_for_operator)
_gradient_operator.register_autograd(_refuse)
