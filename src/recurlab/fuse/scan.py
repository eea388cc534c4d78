"""The fused scan: ``recurlab::scan`` and its gradient as operators of PyTorch, and the same without their dispatch.

An operator is what compilers and others who look at each call of torch understand, but its dispatch
costs as much as a short sequence. Where nobody looks, the same functions are called directly.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx
from torch.utils._python_dispatch import is_in_torch_dispatch_mode

from recurlab.cells.cell import State, cell_of
from recurlab.errors import RecurlabError
from recurlab.fuse import products
from recurlab.fuse.arguments import KEPT, LEAVES, TENSORS, Arguments, Results, Setting, allocate, work
from recurlab.fuse.gradients import gradients
from recurlab.fuse.kernel import Kernel
from recurlab.fuse.observers import observed
from recurlab.fuse.registry import kernel, storage_of

SETTING = {
    "cell": "str", "kind": "str", "zoneout": "float[]", "hold": "bool", "training": "bool", "grad": "bool",
    "norm": "str",
}  # fmt: skip
REQUIRED = ("start", "input", "weight_ih", "weight_hh")
NAMES = (*SETTING, "start", *TENSORS)  # of what the operators take; the states are one tensor, (S, D, B, H)
SCHEMA = ", ".join(
    [f"{kind} {name}" for name, kind in SETTING.items()]
    + [f"Tensor{'' if name in REQUIRED else '?'} {name}" for name in NAMES[len(SETTING) :]]
)
RESULTS = ", ".join(f"Tensor {name}" for name in KEPT)
GRADIENTS = f"({', '.join('Tensor' for _ in ('start', *LEAVES))})"
PLAIN = (Tensor, nn.Parameter)


def scan(given: Arguments) -> tuple[Tensor, State]:
    """Run a cell over a sequence; return the output (T, B, D*H) and the states after it, (D, B, H) each."""
    if _seen(given):
        end, output, *_ = _operator(*_values_of(given))
        return output, end.unbind()
    return scan_unseen(_kernel_of(given), given)


def scan_unseen(made: Kernel, given: Arguments) -> tuple[Tensor, State]:
    """Do the same where the kernel is known, and that nobody looks at each call of torch."""
    if given.setting.grad:
        leaves = [getattr(given, name) for name in LEAVES]
        output, *end = _Scan.apply(made, given, *leaves, *given.start)  # type: ignore[no-untyped-call]
        return output, tuple(end)
    results = _run(made, given, keep=False)
    return results.output, tuple(results.end)


def _seen(given: Arguments) -> bool:
    """Return whether a compiler, tracer, mode or class of tensors looks at each call; they know operators only."""
    tensors = (*given.start, *_tensors_of(given))
    return observed() or any(tensor is not None and type(tensor) not in PLAIN for tensor in tensors)


def _kernel_of(given: Arguments) -> Kernel:
    setting, device = given.setting, given.input.device
    return kernel(setting.cell, setting.kind, storage_of(given.input.dtype, device), device, setting.norm)


def _run(made: Kernel, given: Arguments, *, keep: bool = True) -> Results:
    """Run a cell over a sequence; unless told to keep it, x holds no more of its steps than are needed at a time."""
    steps, dtype = given.input.shape[0], given.input.dtype
    chunk = made.chunk(dtype, given.start[0], steps, back=False)
    results = allocate(made, given, steps if keep else chunk)
    if not made.complete(dtype):
        products.project(given, results.x)
    made.forward(work(made, given, results, chunk))
    return results


def _tensors_of(given: Arguments) -> list[Tensor | None]:
    return [getattr(given, name) for name in TENSORS]


def _kept_of(results: Results) -> list[Tensor | None]:
    return [getattr(results, name) for name in KEPT]


# ---- what both ways have in common: what is kept for the gradient, and that the caller may change ---------------


def _keep(ctx: Any, given: Arguments, results: Results) -> None:
    ctx.set_materialize_grads(False)
    ctx.setting = given.setting
    ctx.watch, kept = _watched(results.output)
    ctx.save_for_backward(*given.start, *_tensors_of(given), kept, *_kept_of(results)[1:])


def _watched(output: Tensor) -> tuple[Tensor, Tensor]:
    """Return a tensor whose version counts in-place changes of an output, and the output as it is to be saved."""
    watch = output.detach()
    if type(output) is Tensor and not is_in_torch_dispatch_mode():  # others may look at each call of torch
        watch.data = watch.new_empty(0)  # the count is shared, the memory is not held
    return watch, output.data


def _kept(ctx: Any) -> tuple[Arguments, Results]:
    tensors = ctx.saved_tensors  # read once: checkpointing computes them anew when asked
    states, count = len(ctx.setting.zoneout), len(ctx.setting.zoneout) + len(TENSORS)
    given = Arguments(ctx.setting, tensors[:states], *tensors[states:count])
    results = Results((), *tensors[count:])
    if ctx.watch._version > 0:  # the caller has changed the output in place
        with torch.no_grad():
            results.output = scan(given)[0]
    return given, results


# ---- directly -------------------------------------------------------------------------------------------------


class _Scan(torch.autograd.Function):
    @staticmethod
    def forward(ctx: FunctionCtx, made: Kernel, given: Arguments, *_: Tensor | None) -> tuple[Tensor, ...]:
        results = _run(made, given)
        ctx.made = made  # type: ignore[attr-defined]  # alive even where the layer is not when the gradient is computed
        _keep(ctx, given, results)
        return results.output, *results.end

    @staticmethod
    def backward(ctx: Any, d_output: Tensor | None, *d_end: Tensor | None) -> tuple[Tensor | None, ...]:
        given, results = _kept(ctx)
        needed = ctx.needs_input_grad[2:]
        if torch.is_grad_enabled():  # the operator refuses a second derivative
            end = _stacked(d_end, given.start)
            start, *found = _gradient_operator(*_values_of(given), *_filled(results, given), d_output, end, needed[0])
            d_start = start.unbind()
        else:
            d_start, found = gradients(ctx.made, given, results, d_output, d_end, needed[0])
        return None, None, *(each if need else None for each, need in zip((*found, *d_start), needed, strict=True))


def _stacked(gradients: Sequence[Tensor | None], like: Sequence[Tensor]) -> Tensor | None:
    if all(each is None for each in gradients):
        return None
    return torch.stack([torch.zeros_like(s) if g is None else g for g, s in zip(gradients, like, strict=True)])


# ---- as operators ---------------------------------------------------------------------------------------------


def _values_of(given: Arguments) -> tuple[Any, ...]:
    setting = (getattr(given.setting, name) for name in SETTING)
    return *setting, torch.stack(list(given.start)), *_tensors_of(given)


def _given(args: Sequence[Any]) -> Arguments:
    cell, kind, zoneout, *others = args[: len(SETTING)]
    setting = Setting(cell, kind, tuple(zoneout), *others)
    start, *tensors = args[len(SETTING) : len(NAMES)]
    return Arguments(setting, start.unbind(), *tensors)


@torch.library.custom_op("recurlab::scan", mutates_args=(), schema=f"({SCHEMA}) -> (Tensor end, {RESULTS})")
def _operator(*args: Any) -> tuple[Tensor, ...]:
    """Run a cell over a sequence; takes the `Arguments`, gives the `Results`, (0,) for None."""
    given = _given(args)
    results = _run(_kernel_of(given), given)
    return torch.stack(list(results.end)), *_filled(results, given)


@_operator.register_fake
def _(*args: Any) -> tuple[Tensor, ...]:
    given = _given(args)
    results = allocate(_kernel_of(given), given, given.input.shape[0])
    return torch.stack(list(results.end)), *_filled(results, given)


def _filled(results: Results, given: Arguments) -> tuple[Tensor, ...]:
    """Return what is kept, with an empty tensor for each that is None: an operator's results are all tensors."""
    return tuple(given.start[0].new_empty(0) if each is None else each for each in _kept_of(results))


def _read(tensors: Sequence[Tensor]) -> Results:
    output, x, *others = tensors
    return Results((), output, x, *(other if other.numel() else None for other in others))


@torch.library.custom_op(
    "recurlab::scan_backward",
    mutates_args=(),
    schema=f"({SCHEMA}, {RESULTS}, Tensor? d_output, Tensor? d_end, bool input_grad) -> {GRADIENTS}",
)
def _gradient_operator(*args: Any) -> tuple[Tensor, ...]:
    """Return the gradients of the states before a scan and of its `LEAVES`, from all that and their gradients."""
    given, results = _given(args), _read(args[len(NAMES) : -3])
    d_output, d_end, input_grad = args[-3:]
    ends = [None] * len(given.start) if d_end is None else d_end.unbind()
    d_start, found = gradients(_kernel_of(given), given, results, d_output, ends, input_grad)
    return torch.stack(d_start), *(given.start[0].new_empty(0) if each is None else each for each in found)


@_gradient_operator.register_fake
def _(*args: Any) -> tuple[Tensor, ...]:
    given = _given(args)
    leaves = {name: getattr(given, name) for name in LEAVES}
    if not args[-1]:
        leaves["input"] = None
    found = (given.start[0].new_empty(0) if leaf is None else torch.empty_like(leaf) for leaf in leaves.values())
    return torch.stack([torch.empty_like(state) for state in given.start]), *found


def _keep_for_operator(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    given = _given(inputs)
    ctx.alive = cell_of(given.setting.cell)  # even where the layer is not when the gradient is computed
    _, *kept = output
    _keep(ctx, given, Results((), *kept))


def _backward_of_operator(ctx: Any, d_end: Tensor | None, d_output: Tensor | None, *_: Any) -> tuple[Any, ...]:
    given, results = _kept(ctx)
    needed = dict(zip(NAMES, ctx.needs_input_grad, strict=True))
    found = _gradient_operator(*_values_of(given), *_kept_of(results), d_output, d_end, needed["input"])
    by_name = dict(zip(("start", *LEAVES), found, strict=True))
    return tuple(by_name.get(name) if needed[name] else None for name in NAMES)


def _refuse(ctx: Any, *_: Any) -> None:
    raise RecurlabError("backend='fused': it has no second derivative; backend='eager' has")


_operator.register_autograd(_backward_of_operator, setup_context=_keep_for_operator)
_gradient_operator.register_autograd(_refuse)
