"""What the operators of a scan take, the tensors that they fill, and how both are handed to the kernels."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from recurlab.fuse.kernel import Kernel, Work
from recurlab.fuse.memory import empty, reused

SCHEMA = (
    "str cell, str kind, Tensor input, Tensor weight_ih, Tensor weight_hh, Tensor? bias_ih, Tensor? bias_hh, "
    "Tensor start, Tensor? dropout, Tensor? seed, Tensor? mask, Tensor? rows, Tensor? order, Tensor? places, "
    "Tensor? cuts, float[] zoneout, bool hold, bool training, bool grad, str norm, Tensor? gain_ih, Tensor? gain_hh"
)


@dataclass(slots=True)
class Arguments:
    """A cell over a sequence: T steps, B samples, D directions, I features, G gates, S states, H units.

    Attributes:
        cell: the cell's token.
        kind: of the recurrence: dense, diagonal or block.
        input: (T, B, I), in the precision of the projection.
        weight_ih: (D*G*H, I), in the same.
        weight_hh: (D, ...) with the recurrence's weight shape, float32 or float64 as all numbers
            below; this tensor, the biases and `dropout` are without D where there is one direction.
        bias_ih, bias_hh: (D, G*H) or None.
        start: (D, S, B, H), the states before the sequence.
        dropout: (D, B, H), a factor on what enters the recurrence, or None.
        seed: int64, (D,), from which zoneout's random numbers are computed; None where it draws
            none.
        mask: boolean (T, B), True where a step counts, or None.
        rows, order, places: of a batch that is to be packed, see `Packing`, else None: the first row
            of each step, the samples by their lengths, and of each row its place in the matrix of
            the input.
        cuts: boolean (D, T, B), True where a step is taken from a zero state, or None.
        zoneout: S probabilities.
        hold: whether a masked step repeats the last output instead of giving 0.
        training: whether zoneout uses random numbers, or the expectation.
        grad: whether to keep what the gradient needs.
        norm: the kind of layer normalisation, see `LayerNorm`; empty without it.
        gain_ih: (D, G*H), of layer normalisation: of the projected input; None without it.
        gain_hh: (D, N*H), of the recurrences, the G gates first; where the step normalises a state,
            N is G + 1, and the last H gains are that state's. `bias_hh` then has that shape too.
            None if they are not normalised.
    """

    cell: str
    kind: str
    input: Tensor
    weight_ih: Tensor
    weight_hh: Tensor
    bias_ih: Tensor | None
    bias_hh: Tensor | None
    start: Tensor
    dropout: Tensor | None
    seed: Tensor | None
    mask: Tensor | None
    rows: Tensor | None
    order: Tensor | None
    places: Tensor | None
    cuts: Tensor | None
    zoneout: Sequence[float]
    hold: bool
    training: bool
    grad: bool
    norm: str
    gain_ih: Tensor | None
    gain_hh: Tensor | None

    @property
    def batch_first(self) -> bool:
        """Whether the input lies in memory as (B, T, I); what is computed from it then does too."""
        return self.input.stride(1) > self.input.stride(0)

    def part(self, start: int, until: int) -> slice:
        """Return where the steps from `start` to `until` - 1 lie in what is between input and output."""
        return slice(start, until) if self.rows is None else slice(int(self.rows[start]), int(self.rows[until]))

    def some(self, tensor: Tensor, part: slice) -> Tensor:
        """Return a part of the rows of a tensor: the tensor itself, which takes no time, where they are all."""
        return tensor if part.start == 0 and part.stop == tensor.shape[0] else tensor[part]

    def between(self, steps: int) -> tuple[int, ...]:
        """Return the shape, but its features, of so many steps between input and output: (T, B), or (N,) at most."""
        batch = self.input.shape[1]
        return (steps, batch) if self.places is None else (min(steps * batch, self.places.shape[0]),)

    def matrix(self, tensor: Tensor) -> Tensor:
        """Return a tensor (T, B, F) that lies in memory as the input does as a matrix (T*B, F), in that order."""
        if self.batch_first:
            tensor = tensor.transpose(0, 1)
        return tensor.flatten(0, 1)

    def empty(self, features: int, dtype: torch.dtype, steps: int) -> Tensor:
        """Return an empty tensor (steps, B, features) in the memory order of the input."""
        return empty(self.start, steps, self.input.shape[1], features, dtype=dtype, swapped=self.batch_first)


@dataclass(slots=True)
class Results:
    """What a scan returns, and what its gradient needs; all but `end` and `origin` in the kernel's storage type.

    Where a batch is packed, x, saved, recur and entering have one dimension N instead of T, B.

    Attributes:
        output: (T, B, D*H).
        end: (D, S, B, H), the states after the sequence.
        x: (T, B, D*G*H), the projected input, or what the gradient needs in its place.
        saved: (D, S-1, T, B, H), the other states after each step, or None.
        recur: (D, T, B, n*H), R h of the gates that use W x and R h separately, or None.
        entering: (D, n, T, B, H), what entered the phases whose operand is not simply the last
            output, or None.
        origin: int32, (D, T, B), where the state before each step came from, see `Origin` in
            cuda/templates/problem.h; None for kernels that need none, and where nothing is masked
            or cut.
        moments: (D, T, B, n), of layer normalisation: mean and scale of the n / 2 rows of each
            step, or None.
    """

    output: Tensor
    end: Tensor
    x: Tensor
    saved: Tensor | None
    recur: Tensor | None
    entering: Tensor | None
    origin: Tensor | None
    moments: Tensor | None


def allocate(made: Kernel, given: Arguments, x_steps: int) -> Results:
    """Return the empty tensors that a scan fills; x is for so many steps."""
    directions, states, batch, units = given.start.shape
    steps, gates, shape = given.input.shape[0], directions * len(made.cell.gates) * units, given.between(x_steps)
    cell, storage = made.cell, made.storage
    output = given.empty(directions * units, storage, steps)
    x = reused(given.start, *shape, gates, dtype=storage, swapped=given.batch_first and len(shape) > 1)
    shape = given.between(steps)
    results = Results(output, torch.empty_like(given.start), x, None, None, None, None, None)
    if not given.grad:
        return results
    whole = given.mask is None and given.cuts is None and (given.rows is None or directions == 1)
    if states > 1:
        results.saved = reused(given.start, directions, states - 1, *shape, units, dtype=storage)
    if made.kind == "dense":
        if made.kept_gates:
            kept = len(made.kept_gates) * units
            results.recur = reused(given.start, directions, *shape, kept, dtype=storage)
        plain = made.operand_is_state and given.dropout is None and whole
        phases = len(cell.phases) - int(plain)
        if phases > 0:
            results.entering = reused(given.start, directions, phases, *shape, units, dtype=storage)
    if made.normalized:
        results.moments = reused(given.start, directions, *shape, made.moments, dtype=storage)
    if made.keeps_origins and not whole:
        results.origin = given.start.new_empty(directions, steps, batch, dtype=torch.int32)
    return results


def work(given: Arguments, results: Results) -> Work:
    """Return the call of a kernel's forward."""
    return Work(
        x=results.x,
        weight=given.weight_hh,
        output=results.output,
        start=given.start,
        end=results.end,
        steps=(0, given.input.shape[0]),
        width=1 if given.kind == "diagonal" else given.weight_hh.shape[-1],
        mask=given.mask,
        rows=given.rows,
        order=given.order,
        zoneout=given.zoneout,
        hold=given.hold,
        training=given.training,
        grad=given.grad,
        bias_ih=given.bias_ih,
        bias_hh=given.bias_hh,
        dropout=given.dropout,
        cuts=given.cuts,
        seed=given.seed,
        saved=results.saved,
        recur=results.recur,
        entering=results.entering,
        origin=results.origin,
        gain_ih=given.gain_ih,
        gain_hh=given.gain_hh,
        moments=results.moments,
    )
