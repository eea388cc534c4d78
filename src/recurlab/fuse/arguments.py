"""What a scan takes, the tensors that it fills, and how both are handed to the kernels."""

from collections.abc import Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from recurlab.fuse.kernel import Kernel, Work
from recurlab.fuse.memory import empty, reused


@dataclass(frozen=True, slots=True)
class Setting:
    """What of a scan is no tensor.

    Attributes:
        cell: the cell's token.
        kind: of the recurrence: dense, diagonal or block.
        zoneout: S probabilities.
        hold: whether a masked step repeats the last output instead of giving 0.
        training: whether zoneout uses random numbers, or the expectation.
        grad: whether to keep what the gradient needs.
        norm: the kind of layer normalisation, see `LayerNorm`; empty without it.
    """

    cell: str
    kind: str
    zoneout: tuple[float, ...]
    hold: bool
    training: bool
    grad: bool
    norm: str = ""


@dataclass(slots=True)
class Arguments:
    """A cell over a sequence: T steps, B samples, D directions, I features, G gates, S states, H units.

    Attributes:
        setting: what is no tensor.
        start: the states before the sequence: S of (D, B, H), float32 or float64 as all numbers here
            but the input and its weight.
        input: (T, B, I), in the precision of the projection.
        weight_ih: (D*G*H, I), in the same.
        weight_hh: (D, ...) with the recurrence's weight shape; this tensor, the biases, the gains
            and `dropout` are without D where there is one direction.
        bias_ih, bias_hh: (D, G*H) or None.
        gain_ih: (D, G*H), of layer normalisation: of the projected input; None without it.
        gain_hh: (D, N*H), of the recurrences, the G gates first; where the step normalises a state,
            N is G + 1, and the last H gains are that state's. `bias_hh` then has that shape too.
            None if they are not normalised.
        dropout: (D, B, H), a factor on what enters the recurrence, or None.
        seed: int64, (D,), from which zoneout's random numbers are computed; None where it draws
            none.
        mask: boolean (T, B), True where a step counts, or None.
        rows, order, places: of a batch that is to be packed, see `Packing`, else None: the first row
            of each step, the samples by their lengths, and of each row its place in the matrix of
            the input.
        cuts: boolean (D, T, B), True where a step is taken from a zero state, or None.
    """

    setting: Setting
    start: Sequence[Tensor]
    input: Tensor
    weight_ih: Tensor
    weight_hh: Tensor
    bias_ih: Tensor | None
    bias_hh: Tensor | None
    gain_ih: Tensor | None = None
    gain_hh: Tensor | None = None
    dropout: Tensor | None = None
    seed: Tensor | None = None
    mask: Tensor | None = None
    rows: Tensor | None = None
    order: Tensor | None = None
    places: Tensor | None = None
    cuts: Tensor | None = None

    @property
    def batch_first(self) -> bool:
        """Whether the input lies in memory as (B, T, I); the output and the input's gradient then do too."""
        return not self.input.is_contiguous() and self.input.stride(1) > self.input.stride(0)

    def between(self, steps: int) -> tuple[int, ...]:
        """Return the shape, but its features, of so many steps between input and output: (T, B), or (N,) at most."""
        batch = self.input.shape[1]
        return (steps, batch) if self.places is None else (min(steps * batch, self.places.shape[0]),)

    def matrix(self) -> Tensor:
        """Return the input as it is, or a copy where its rows don't lie side by side in the order of `batch_first`."""
        if self.input.is_contiguous():
            return self.input
        return self.input.transpose(0, 1).contiguous() if self.batch_first else self.input.contiguous()

    def empty(self, features: int, dtype: torch.dtype) -> Tensor:
        """Return an empty tensor (T, B, features) in the memory order of the input."""
        return empty(self.start[0], *self.input.shape[:2], features, dtype=dtype, swapped=self.batch_first)


TENSORS = tuple(field.name for field in fields(Arguments))[2:]
# Those that may have a gradient, beside the states.
LEAVES = ("input", "weight_ih", "weight_hh", "bias_ih", "bias_hh", "gain_ih", "gain_hh")


@dataclass(slots=True)
class Results:
    """What a scan returns, and what its gradient needs; all in the kernel's storage type but `end`, origins, moments.

    Where a batch is packed, x, saved, recur and entering have one dimension N instead of T, B.

    Attributes:
        end: the states after the sequence: S of (D, B, H).
        output: (T, B, D*H).
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

    end: Sequence[Tensor]
    output: Tensor
    x: Tensor
    saved: Tensor | None = None
    recur: Tensor | None = None
    entering: Tensor | None = None
    origin: Tensor | None = None
    moments: Tensor | None = None


KEPT = tuple(field.name for field in fields(Results))[1:]


def allocate(made: Kernel, given: Arguments, x_steps: int) -> Results:
    """Return the empty tensors that a scan fills; x is for so many steps."""
    like, cell, storage = given.start[0], made.cell, made.storage
    directions, batch, units = like.shape
    shape, swapped = given.between(x_steps), not made.complete(given.input.dtype) and given.batch_first
    results = Results(
        [torch.empty_like(state) for state in given.start],
        given.empty(directions * units, storage),
        reused(like, *shape, directions * len(cell.gates) * units, dtype=storage, swapped=swapped),
    )
    if not given.setting.grad:
        return results
    steps = given.input.shape[0]
    shape = given.between(steps)
    whole = given.mask is None and given.cuts is None and (given.rows is None or directions == 1)
    if len(given.start) > 1:
        results.saved = reused(like, directions, len(given.start) - 1, *shape, units, dtype=storage)
    if made.kind == "dense":
        if made.kept_gates:
            results.recur = reused(like, directions, *shape, len(made.kept_gates) * units, dtype=storage)
        plain = made.operand_is_state and given.dropout is None and whole
        phases = len(cell.phases) - int(plain)
        if phases > 0:
            results.entering = reused(like, directions, phases, *shape, units, dtype=storage)
    if made.normalized:
        results.moments = reused(like, directions, *shape, made.moments)
    if made.keeps_origins and not whole:
        results.origin = like.new_empty(directions, steps, batch, dtype=torch.int32)
    return results


def work(made: Kernel, given: Arguments, results: Results, chunk: int) -> Work:
    """Return the call of a kernel's forward, which takes so many steps at a time where it is complete."""
    setting = given.setting
    call = Work(
        start=given.start,
        end=results.end,
        x=results.x,
        weight=given.weight_hh,
        output=results.output,
        chunk=chunk,
        width=1 if setting.kind == "diagonal" else given.weight_hh.shape[-1],
        zoneout=setting.zoneout,
        hold=setting.hold,
        training=setting.training,
        grad=setting.grad,
        mask=given.mask,
        rows=given.rows,
        order=given.order,
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
    if made.complete(given.input.dtype):
        call.input, call.weight_ih, call.places = given.matrix(), given.weight_ih.contiguous(), given.places
        call.by_sample = given.batch_first
    return call
