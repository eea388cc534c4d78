"""The products of a scan that torch does: for a GPU, and where the projection has another precision than the loop."""

from functools import cache

import torch
from torch import Tensor

from recurlab.fuse.arguments import Arguments
from recurlab.fuse.kernel import Kernel, Work
from recurlab.fuse.memory import aligned, empty

Entered = tuple[slice, Tensor]  # steps, and values (..., H)
Names = tuple[str, ...]


def project(given: Arguments, x: Tensor) -> None:
    """Set x (T, B, D*G*H), which lies in memory as the input does, to the projected input."""
    inputs = aligned(given.input)
    if given.batch_first:
        x, inputs = x.transpose(0, 1), inputs.transpose(0, 1)
    _multiply(x.flatten(0, 1), inputs.flatten(0, 1), given.weight_ih.t())


def of_input(given: Arguments, d_x: Tensor, input_grad: bool) -> tuple[Tensor | None, Tensor]:
    """Return the gradients of the input, if it is asked for, and of its weight, from d_x (T, B, D*G*H)."""
    flat = d_x.flatten(0, 1).to(given.input.dtype)
    d_weight = torch.mm(flat.t(), aligned(given.input).flatten(0, 1))
    if not input_grad:
        return None, d_weight
    d_input = empty(given.input, *given.input.shape)
    torch.mm(flat, given.weight_ih, out=d_input.flatten(0, 1))
    return d_input, d_weight


def of_recurrence(made: Kernel, call: Work) -> None:
    """Set `d_weight` of a dense kernel's call, the gradient of the recurrent weight, from d_x and d_recur."""
    assert call.d_weight is not None
    phases, units, gates = made.cell.phases, call.units, len(made.cell.gates)
    runs = _runs(made.cell.gates, phases, made.own_gates)
    for d, result in enumerate(call.d_weight.view(call.directions, -1, call.width)):
        for k in range(len(phases)):
            entered = _entered(call, d, k - len(phases))
            for first, last, column, own in runs[k]:
                source = call.d_recur[d] if own and call.d_recur is not None else call.d_x
                assert source is not None
                at = (column if own else column + d * gates) * units
                gradient = source[..., at : at + (last - first) * units]
                rows = result[first * units : last * units]
                for i, (steps, operand) in enumerate(entered):
                    _add(rows, gradient[steps], operand, add=i > 0)


@cache
def _runs(gates: Names, phases: tuple[Names, ...], own: Names) -> list[list[tuple[int, int, int, bool]]]:
    """Return, for each phase, its gates that lie side by side in the weight and in a gradient.

    Of each run: the first gate, the one after the last, the first one's index in the gradient, and
    whether that is d_recur, not d_x.
    """
    found: list[list[tuple[int, int, int, bool]]] = []
    for phase in phases:
        runs: list[tuple[int, int, int, bool]] = []
        for gate in phase:
            row, apart = gates.index(gate), gate in own
            column = own.index(gate) if apart else row
            first, last, begin, kind = runs[-1] if runs else (0, -1, 0, apart)
            if (row, column, apart) == (last, begin + last - first, kind):
                runs[-1] = first, row + 1, begin, apart
            else:
                runs.append((row, row + 1, column, apart))
        found.append(runs)
    return found


def _entered(call: Work, d: int, k: int) -> list[Entered]:
    """Return what entered phase k, counted from behind."""
    if call.entering is not None and -k <= call.entering.shape[1]:
        return [(slice(None), call.entering[d, k])]
    # It was the state itself: the output of the step before.
    output = call.output[..., d * call.units : (d + 1) * call.units]
    start = call.start[0][d].unsqueeze(0)
    if d == 1:
        first, later, before = slice(-1, None), slice(0, -1), output[1:]
    else:
        first, later, before = slice(0, 1), slice(1, None), output[:-1]
    return [(later, before), (first, start)] if len(output) > 1 else [(first, start)]


def _add(result: Tensor, gradient: Tensor, entered: Tensor, *, add: bool) -> None:
    """Set result (n*H, width) to the sum over steps and samples of gradient (..., n*H) times entered, or add it."""
    left, right = gradient.flatten(0, -2), entered.flatten(0, -2).to(gradient.dtype)
    width, units = result.shape[1], right.shape[1]
    if width == units:
        _multiply(result, left.t(), right, add=add)
        return
    heads, gates = units // width, len(result) // units
    by_head = left.view(-1, gates, heads, width).permute(2, 1, 3, 0).flatten(1, 2)
    product = torch.bmm(by_head, right.view(-1, heads, width).transpose(0, 1))
    product = product.view(heads, gates, width, width).transpose(0, 1).reshape(-1, width)
    result.copy_(result + product if add else product)


def _multiply(out: Tensor, left: Tensor, right: Tensor, *, add: bool = False) -> None:
    """Set a matrix to the product of two others, or add it."""
    if left.dtype != out.dtype:
        product = torch.mm(left, right)
        out.copy_(out + product if add else product)
    elif add:
        out.addmm_(left, right)
    else:
        torch.mm(left, right, out=out)
