"""The gradients of a scan: the kernels' backward, and the products that give those of the weights."""

from dataclasses import replace

import torch
from torch import Tensor

from recurlab.fuse.arguments import Arguments, Results, passes, work
from recurlab.fuse.kernel import Kernel, Pass
from recurlab.fuse.memory import aligned, empty


def gradients(
    made: Kernel, given: Arguments, results: Results, d_output: Tensor | None, d_end: Tensor | None, input_grad: bool
) -> tuple[Tensor, ...]:
    """Return the gradients of input, weight_ih, weight_hh, bias_ih, bias_hh and start.

    Args:
        made: the kernels.
        given, results: the scan.
        d_output, d_end: the gradients of the output and of the states after the sequence; None
            where there is none.
        input_grad: whether the gradient of the input is asked for; if not, an empty tensor is
            returned for it.
    """
    if d_output is not None and d_output.stride(2) != 1:
        d_output = d_output.contiguous()
    # The states' gradient starts as that of the last ones and ends as that of the first.
    d_state = torch.zeros_like(given.start) if d_end is None else d_end.clone(memory_format=torch.contiguous_format)
    directions = passes(made, given, results)
    whole = work(given, directions)
    for d, one in enumerate(directions):
        _add_gradients(made, given, one, d, d_state, d_output, made.parts(whole))

    d_input = empty(given.input, *given.input.shape) if input_grad else given.input.new_empty(0)
    # Transposed: the product with the long side first in both is the faster one.
    d_weight = given.weight_ih.new_zeros(given.weight_ih.shape[::-1])
    steps, batch, rows = results.x.shape
    inputs = aligned(given.input)
    size = made.steps_at_a_time(whole)
    d_x = empty(results.x, size, batch, rows)
    for until in range(steps, 0, -size):
        start = max(0, until - size)
        for d, one in enumerate(directions):
            one.d_x = d_x[: until - start, :, d * rows // len(directions) : (d + 1) * rows // len(directions)]
        made.backward(replace(whole, steps=(start, until)))
        flat = d_x[: until - start].flatten(0, 1).to(given.input.dtype)
        part = inputs[start:until]
        d_weight.addmm_(part.flatten(0, 1).t(), flat)
        if input_grad:
            torch.mm(flat, given.weight_ih, out=d_input[start:until].flatten(0, 1))
    found = [_recurrent_gradients(made, one, given.weight_hh[d]) for d, one in enumerate(directions)]
    return d_input, d_weight.t().contiguous(), *(torch.stack(each) for each in zip(*found, strict=True)), d_state


def _add_gradients(
    made: Kernel, given: Arguments, one: Pass, d: int, d_state: Tensor, d_output: Tensor | None, parts: int
) -> None:
    """Give a pass the tensors that the backward reads and fills, except the gradient of the projected input."""
    steps, batch, rows = one.x.shape
    units = one.output.shape[2]
    one.d_output = None if d_output is None else d_output[..., d * units : (d + 1) * units]
    one.d_start, one.d_end = list(d_state[d]), list(d_state[d])
    one.d_bias_ih, one.d_bias_hh = (d_state.new_zeros(parts, rows) for _ in range(2))
    if made.kind == "dense":
        one.d_recur = empty(one.x, steps, batch, len(made.own_gates) * units)
    else:
        one.d_weight = d_state.new_zeros(parts, rows)
        one.d_held = d_state.new_zeros(batch, units) if given.hold else None


def _recurrent_gradients(made: Kernel, one: Pass, weight: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of one direction's recurrent weight, input bias and recurrent bias."""
    assert one.d_bias_ih is not None
    assert one.d_bias_hh is not None
    d_ih, d_hh = one.d_bias_ih.sum(0), one.d_bias_hh.sum(0)
    gates, units = made.cell.gates, one.output.shape[2]
    for gate in (gate for phase in made.cell.phases for gate in phase):
        if gate not in made.own_gates:
            rows = slice(gates.index(gate) * units, (gates.index(gate) + 1) * units)
            d_hh[rows] = d_ih[rows]
    if made.kind == "diagonal" and made.cell.phases:
        assert one.d_weight is not None
        return one.d_weight.sum(0).view_as(weight), d_ih, d_hh
    result = weight.new_zeros(weight.shape[::-1])
    for k, phase in enumerate(made.cell.phases):
        for first, last, gradient in _runs(made, one, phase):
            _multiply(result[:, first * units : last * units], gradient, one, k)
    return result.t().contiguous(), d_ih, d_hh


def _runs(made: Kernel, one: Pass, phase: tuple[str, ...]) -> list[tuple[int, int, Tensor]]:
    """Return the gates of a phase that lie side by side: first, last + 1, and their gradient (T, B, n*H)."""
    assert one.d_x is not None
    assert one.d_recur is not None
    units, runs = one.output.shape[2], []
    for own in (False, True):
        source, names = (one.d_recur, made.own_gates) if own else (one.d_x, made.cell.gates)
        pairs = [(made.cell.gates.index(g), names.index(g)) for g in phase if (g in made.own_gates) == own]
        while pairs:
            row, column = pairs[0]
            count = 1
            while count < len(pairs) and pairs[count] == (row + count, column + count):
                count += 1
            runs.append((row, row + count, source[..., column * units : (column + count) * units]))
            pairs = pairs[count:]
    return runs


def _entered(one: Pass, k: int) -> list[tuple[slice, Tensor]]:
    """Return what entered phase k, as pairs of steps and values (steps, B, H)."""
    kept = one.entering[k]
    if kept is not None:
        return [(slice(None), kept)]
    # It was the state itself: the output of the step before.
    steps = one.output.shape[0]
    first, later, before = slice(0, 1), slice(1, None), slice(0, -1)
    if one.reverse:
        first, later, before = slice(steps - 1, None), slice(0, -1), slice(1, None)
    pairs = [(first, one.start[0].unsqueeze(0)), (later, one.output[before])]
    return pairs if steps > 1 else pairs[:1]


def _multiply(result: Tensor, gradient: Tensor, one: Pass, k: int) -> None:
    """Add the sum over steps and samples of what entered times the gradient (T, B, n*H), to result (width, n*H)."""
    width, units = result.shape[0], one.output.shape[2]
    for steps, entered in _entered(one, k):
        left, right = gradient[steps].flatten(0, 1), entered.flatten(0, 1).to(gradient.dtype)
        if width == units:
            if result.dtype == left.dtype:
                result.addmm_(right.t(), left)
            else:
                result += torch.mm(right.t(), left)
            continue
        heads, gates = units // width, result.shape[1] // units
        by_head = left.view(-1, gates, heads, width).permute(2, 1, 3, 0).flatten(1, 2)
        product = torch.bmm(by_head, right.view(-1, heads, width).transpose(0, 1))
        result += product.view(heads, gates, width, width).transpose(0, 1).reshape(-1, width).t()
