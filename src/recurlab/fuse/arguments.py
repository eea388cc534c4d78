"""What the operators of a scan take, the tensors that they fill, and how both are handed to the kernels."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from recurlab.fuse.kernel import Kernel, Pass, Work
from recurlab.fuse.memory import empty

SCHEMA = (
    "str cell, str kind, Tensor input, Tensor weight_ih, Tensor weight_hh, Tensor? bias_ih, Tensor? bias_hh, "
    "Tensor start, Tensor? dropout, Tensor? seed, Tensor? mask, Tensor? cuts, float[] zoneout, bool hold, "
    "bool training, bool grad"
)


@dataclass(frozen=True)
class Arguments:
    """A cell over a sequence: T steps, B samples, D directions, I features, G gates, S states, H units.

    Attributes:
        cell: the cell's token.
        kind: of the recurrence: dense, diagonal or block.
        input: (T, B, I), in the precision of the projection.
        weight_ih: (D*G*H, I), in the same.
        weight_hh: (D, ...) with the recurrence's weight shape, float32 or float64 as all numbers
            below.
        bias_ih, bias_hh: (D, G*H) or None.
        start: (D, S, B, H), the states before the sequence.
        dropout: (D, B, H), a factor on what enters the recurrence, or None.
        seed: int64, (D,), from which zoneout's random numbers are computed; None where it draws
            none.
        mask: boolean (T, B), True where a step counts, or None.
        cuts: boolean (D, T, B), True where a step is taken from a zero state, or None.
        zoneout: S probabilities.
        hold: whether a masked step repeats the last output instead of giving 0.
        training: whether zoneout uses random numbers, or the expectation.
        grad: whether to keep what the gradient needs.
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
    cuts: Tensor | None
    zoneout: Sequence[float]
    hold: bool
    training: bool
    grad: bool

    @property
    def batch_first(self) -> bool:
        """Whether the input lies in memory as (B, T, I); what is computed from it then does too."""
        return self.input.stride(1) > self.input.stride(0)

    def matrix(self, tensor: Tensor) -> Tensor:
        """Return a tensor (T, B, F) that lies in memory as the input does as a matrix (T*B, F), in that order."""
        return (tensor.transpose(0, 1) if self.batch_first else tensor).flatten(0, 1)

    def empty(self, features: int, dtype: torch.dtype) -> Tensor:
        """Return an empty tensor (T, B, features) in the memory order of the input."""
        return empty(self.start, *self.input.shape[:2], features, dtype=dtype, swapped=self.batch_first)


@dataclass(frozen=True)
class Results:
    """What a scan returns, and what its gradient needs; all but `end` and `origin` in the kernel's storage type.

    Attributes:
        output: (T, B, D*H).
        end: (D, S, B, H), the states after the sequence.
        x: (T, B, D*G*H), the projected input, or what the gradient needs in its place.
        saved: (D, S-1, T, B, H), the other states after each step.
        recur: (D, T, B, n*H), R h of the gates that use W x and R h separately.
        entering: (D, n, T, B, H), what entered the phases whose operand is not simply the last
            output.
        origin: int32, (D, T, B), where the state before each step came from, see `Origin` in
            cuda/templates/problem.h; (0,) for kernels that need none, and where nothing is masked
            or cut.
    """

    output: Tensor
    end: Tensor
    x: Tensor
    saved: Tensor
    recur: Tensor
    entering: Tensor
    origin: Tensor


def allocate(made: Kernel, given: Arguments) -> Results:
    """Return the empty tensors that a scan fills."""
    steps, batch = given.input.shape[:2]
    directions, states, _, units = given.start.shape
    cell, products = made.cell, given.grad and made.kind == "dense"
    whole = given.mask is None and given.cuts is None
    plain = made.operand_is_state and given.dropout is None and whole
    phases = (len(cell.phases) - int(plain and bool(cell.phases))) if products else 0
    kept, recur = states - 1 if given.grad else 0, len(made.kept_gates) * units if products else 0
    origins = (directions, steps, batch) if given.grad and made.keeps_origins and not whole else 0
    return Results(
        given.empty(directions * units, made.storage),
        torch.empty_like(given.start),
        given.empty(directions * len(cell.gates) * units, made.storage),
        empty(given.start, directions, kept, steps, batch, units, dtype=made.storage),
        empty(given.start, directions, steps, batch, recur, dtype=made.storage),
        empty(given.start, directions, phases, steps, batch, units, dtype=made.storage),
        given.start.new_empty(origins, dtype=torch.int32),
    )


def passes(made: Kernel, given: Arguments, results: Results) -> list[Pass]:
    """Return one pass of the kernels for each direction."""
    directions, states, _, units = given.start.shape
    phases, rows = len(made.cell.phases), len(made.cell.gates) * units

    def of(d: int, tensor: Tensor | None) -> Tensor | None:
        return None if tensor is None else tensor[d]

    def all_of(d: int, tensor: Tensor) -> list[Tensor]:
        return [*tensor[d].unbind(0)]  # faster than iterating over a tensor

    return [
        Pass(
            x=results.x[..., d * rows : (d + 1) * rows],
            weight=given.weight_hh[d],
            output=results.output[..., d * units : (d + 1) * units],
            start=all_of(d, given.start),
            end=all_of(d, results.end),
            reverse=d == 1,
            bias_ih=of(d, given.bias_ih),
            bias_hh=of(d, given.bias_hh),
            dropout=of(d, given.dropout),
            cuts=of(d, given.cuts),
            seed=of(d, given.seed),
            saved=[*[None] * (states - results.saved.shape[1]), *all_of(d, results.saved)],
            recur=results.recur[d] if results.recur.numel() else None,
            entering=[*[None] * (phases - results.entering.shape[1]), *all_of(d, results.entering)],
            origin=results.origin[d] if results.origin.numel() else None,
        )
        for d in range(directions)
    ]


def work(given: Arguments, directions: list[Pass]) -> Work:
    """Return the call of a kernel."""
    width = given.weight_hh.shape[2] if given.weight_hh.dim() == 3 else 1
    return Work(
        directions, (0, len(given.input)), width, given.mask, given.zoneout, given.hold, given.training, given.grad
    )  # fmt: skip
