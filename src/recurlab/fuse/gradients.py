"""The gradients of a scan: the kernels' backward, and the products that give those of the weights."""

import torch
from torch import Tensor

from recurlab.fuse.arguments import Arguments, Results, work
from recurlab.fuse.kernel import Kernel, Work
from recurlab.fuse.memory import aligned, empty, reused

Entered = tuple[slice, Tensor, Tensor | None]  # steps, or rows of a packed batch; values (..., H); which rows of these


def gradients(
    made: Kernel, given: Arguments, results: Results, d_output: Tensor | None, d_end: Tensor | None, input_grad: bool
) -> tuple[Tensor | None, ...]:
    """Return the gradients of input, weight_ih, weight_hh, bias_ih, bias_hh, start and gains; some may share memory.

    Args:
        made: the kernels.
        given, results: the scan.
        d_output, d_end: the gradients of the output and of the states after the sequence; None
            where there is none.
        input_grad: whether the gradient of the input is asked for; if not, it is None.
    """
    if d_output is not None and d_output.stride(2) != 1:
        d_output = d_output.contiguous()
    # The states' gradient starts as that of the last ones and ends as that of the first.
    d_state = torch.zeros_like(given.start) if d_end is None else d_end.clone(memory_format=torch.contiguous_format)
    whole = work(given, results)
    whole.d_output, whole.d_start, whole.d_end = d_output, d_state, d_state
    sums = _prepare_sums(made, whole)
    d_input, d_weight, d_recurrent = _run(made, given, whole, input_grad)
    d_bias_ih, d_bias_hh, *rest = sums.sum(2).unbind(0)
    units = whole.units
    rows = len(made.cell.gates) * units
    d_bias_ih = d_bias_ih[:, :rows]
    for first, last in made.same:
        d_bias_hh[:, first * units : last * units] = d_bias_ih[:, first * units : last * units]
    if made.kind == "diagonal" and made.cell.phases:
        d_recurrent = rest[-1][:, :rows].reshape(given.weight_hh.shape)

    def shaped(gradient: Tensor, like: Tensor | None) -> Tensor | None:
        return None if like is None else gradient.reshape(like.shape)

    d_biases = shaped(d_bias_ih, given.bias_ih), shaped(d_bias_hh, given.bias_hh)
    if not made.normalized:
        return d_input, d_weight, d_recurrent, *d_biases, d_state, None, None
    d_gains = shaped(rest[0][:, :rows], given.gain_ih), shaped(rest[1], given.gain_hh)
    return d_input, d_weight, d_recurrent, *d_biases, d_state, *d_gains


def _prepare_sums(made: Kernel, whole: Work) -> Tensor:
    """Give a call the sums over time that its backward adds to, and return them: (2 to 5, D, parts, results * H).

    They are the gradients of the biases, the gains if there are any, and a diagonal weight.
    """
    batch, diagonal = whole.output.shape[1], made.kind == "diagonal"
    parts = made.parts(whole), made.results * whole.units
    count = 2 + 2 * made.normalized + int(diagonal and bool(made.cell.phases))
    sums = whole.start.new_zeros(count, whole.directions, *parts)
    whole.d_bias_ih, whole.d_bias_hh, *rest = sums.unbind(0)
    if made.normalized:
        whole.d_gain_ih, whole.d_gain_hh, *rest = rest
    if diagonal:
        whole.d_weight = rest[0] if rest else whole.start.new_zeros(whole.directions, *parts)
    whole.d_held = whole.start.new_zeros(whole.directions, batch, whole.units) if whole.hold else None
    return sums


def _run(made: Kernel, given: Arguments, whole: Work, input_grad: bool) -> tuple[Tensor | None, Tensor, Tensor]:
    """Run the backward of the kernels; return the gradients of the input, its weight and a recurrent matrix."""
    steps, rows = len(whole.output), whole.x.shape[-1]
    dense, size = made.kind == "dense", made.steps_at_a_time(whole.start, steps)
    d_input = _empty_gradient(given) if input_grad else None
    d_weight = given.weight_ih.new_empty(given.weight_ih.shape)
    recurrent = sum(map(len, made.cell.phases)) == len(made.cell.gates)  # each gate: all of the gradient is set below
    weight_hh = given.weight_hh
    d_recurrent = weight_hh.new_empty(weight_hh.shape) if recurrent else weight_hh.new_zeros(weight_hh.shape)
    by_direction = d_recurrent.view(whole.directions, -1, whole.width) if dense else ()
    inputs = aligned(given.input)
    d_x = reused(whole.x, *given.between(size), rows)
    own = len(made.own_gates) * whole.units if dense else 0
    d_recur = reused(whole.x, whole.directions, *given.between(size), own) if own else None
    for until in range(steps, 0, -size):
        start = max(0, until - size)
        part = given.part(start, until)
        whole.steps, whole.d_x = (start, until), given.some(d_x, slice(0, part.stop - part.start))
        whole.d_recur = d_recur
        if d_recur is not None and whole.d_x is not d_x:
            whole.d_recur = d_recur[:, : part.stop - part.start]
        made.backward(whole)
        flat, add = whole.d_x.flatten(0, -2).to(given.input.dtype), until < steps
        if given.places is None:
            made.multiply(d_weight, flat.t(), given.some(inputs, part).flatten(0, 1), add=add)
            if d_input is not None:
                made.multiply(given.some(d_input, part).flatten(0, 1), flat, given.weight_ih)
        else:
            places = given.some(given.places, part)
            made.multiply(d_weight, flat.t(), given.matrix(inputs), add=add, right_rows=places)
            if d_input is not None:
                made.multiply(given.matrix(d_input), flat, given.weight_ih, out_rows=places)
        for d, result in enumerate(by_direction):
            _add_recurrent(made, given, whole, d, result, add=add)
    return d_input, d_weight, d_recurrent


def _empty_gradient(given: Arguments) -> Tensor:
    """Return a tensor for the gradient of the input; what no row of a packed batch sets is 0."""
    if given.places is None:
        return empty(given.input, *given.input.shape)
    steps, _, features = given.input.shape
    return given.empty(features, given.input.dtype, steps).zero_()


def _add_recurrent(made: Kernel, given: Arguments, whole: Work, d: int, result: Tensor, *, add: bool) -> None:
    """Set the gradient of one direction's recurrent weight (G*H, width) to that of some steps, or add it."""
    phases, units = made.cell.phases, whole.units
    for k in range(len(phases)):
        entered = _entered(given, whole, d, k - len(phases))
        for first, last, column, own in made.runs[k]:
            if own:
                assert whole.d_recur is not None
                source = whole.d_recur[d]
            else:
                assert whole.d_x is not None
                source, column = whole.d_x, column + d * len(made.cell.gates)
            gradient, rows = source, result
            if last - first < len(made.cell.gates) or whole.directions > 1:
                gradient = source[..., column * units : (column + last - first) * units]
                rows = result[first * units : last * units]
            for i, (steps, operand, picked) in enumerate(entered):
                _multiply(made, rows, gradient[steps], operand, picked, add=add or i > 0)


def _entered(given: Arguments, whole: Work, d: int, k: int) -> list[Entered]:
    """Return what entered phase k, counted from behind, in the steps of this call."""
    start, until = whole.steps
    part = given.part(start, until)
    if whole.entering is not None and -k <= whole.entering.shape[1]:
        return [(slice(None), whole.entering[d, k, part], None)]
    # It was the state itself: the output of the step before.
    output = whole.output
    if whole.directions > 1:
        output = output[..., d * whole.units : (d + 1) * whole.units]
    if given.places is not None:
        return _entered_packed(given, whole, part)
    if d == 1:
        first, later, before = slice(-1, None), slice(0, -1), slice(start + 1, until)
        earlier = output[until : until + 1]
    else:
        first, later, before = slice(0, 1), slice(1, None), slice(start, until - 1)
        earlier = output[start - 1 : start] if start else output[:0]
    begin: list[Entered] = [(first, earlier if earlier.shape[0] else whole.start[d, :1], None)]
    return [(later, output[before], None), *begin] if until - start > 1 else begin


def _entered_packed(given: Arguments, whole: Work, part: slice) -> list[Entered]:
    """Return the same of a packed batch of one direction, where it was the state."""
    assert given.places is not None
    assert given.order is not None
    batch = given.input.shape[1]
    first = batch if part.start == 0 else 0  # all samples have the first step
    before = given.places[part][first:] - (1 if given.batch_first else batch)
    later = (slice(first, None), given.matrix(whole.output), before)
    if not first:
        return [later]
    starts = (slice(0, first), whole.start[0, 0].index_select(0, given.order), None)
    return [later, starts] if len(before) else [starts]


def _multiply(
    made: Kernel, result: Tensor, gradient: Tensor, entered: Tensor, picked: Tensor | None, *, add: bool
) -> None:
    """Set result (n*H, width) to the sum over steps and samples of gradient (..., n*H) times entered, or add it."""
    left, right = gradient.flatten(0, -2), entered.flatten(0, -2).to(gradient.dtype)
    width, units = result.shape[1], right.shape[1]
    if width == units:
        made.multiply(result, left.t(), right, add=add, right_rows=picked)
        return
    right = right if picked is None else right.index_select(0, picked)
    heads, gates = units // width, len(result) // units
    by_head = left.view(-1, gates, heads, width).permute(2, 1, 3, 0).flatten(1, 2)
    product = torch.bmm(by_head, right.view(-1, heads, width).transpose(0, 1))
    product = product.view(heads, gates, width, width).transpose(0, 1).reshape(-1, width)
    result.copy_(result + product if add else product)
