"""The gradients of a scan."""

from collections.abc import Sequence

import torch
from torch import Tensor

from recurlab.fuse import products
from recurlab.fuse.arguments import Arguments, Results, work
from recurlab.fuse.cpu import packed
from recurlab.fuse.kernel import Kernel
from recurlab.fuse.memory import reused

Gradients = tuple[list[Tensor], list[Tensor | None]]


def gradients(
    made: Kernel,
    given: Arguments,
    results: Results,
    d_output: Tensor | None,
    d_end: Sequence[Tensor | None],
    input_grad: bool,
) -> Gradients:
    """Return the gradients of the states before the sequence, (D, B, H) each, and of the `LEAVES`, None for None.

    Args:
        made: the kernels.
        given, results: the scan.
        d_output, d_end: the gradients of the output and of the states after the sequence; None
            where there is none.
        input_grad: whether the gradient of the input is asked for; if not, it is None.
    """
    like, dtype = given.start[0], given.input.dtype
    chunk = made.chunk(dtype, like, given.input.shape[0], back=True)
    call = work(made, given, results, chunk)
    directions, units = like.shape[0], like.shape[2]
    gates, dense = len(made.cell.gates), made.kind == "dense"
    call.d_output = d_output if d_output is None or d_output.stride(2) == 1 else d_output.contiguous()
    call.d_end = [each if each is None else each.contiguous() for each in d_end]
    call.d_start = [torch.empty_like(state) for state in given.start]
    shape = given.between(chunk)
    call.d_x = reused(results.x, *shape, directions * gates * units)
    if dense and made.own_gates:
        call.d_recur = reused(results.x, directions, *shape, len(made.own_gates) * units)
    # Of gates without a recurrence nothing is set below.
    covered = sum(map(len, made.cell.phases)) == gates
    recurrent = torch.empty_like(given.weight_hh) if covered else torch.zeros_like(given.weight_hh)
    optional = (given.bias_ih, given.bias_hh, given.gain_ih, given.gain_hh)
    others = [None if each is None else torch.empty_like(each) for each in optional]
    call.d_weight, call.d_bias_ih, call.d_bias_hh, call.d_gain_ih, call.d_gain_hh = recurrent, *others
    d_input: Tensor | None = None
    if complete := made.complete(dtype):
        d_weight = given.weight_ih.new_empty(given.weight_ih.shape)
        if input_grad:
            d_input = given.empty(given.input.shape[2], dtype)
            if given.rows is not None and given.order is not None:
                packed.clear_padding(d_input, given.rows, given.order)
        call.d_input, call.d_weight_ih = d_input, d_weight
    made.backward(call)
    if not complete:
        d_input, d_weight = products.of_input(given, call.d_x, input_grad)
    return call.d_start, [d_input, d_weight, recurrent, *others]
