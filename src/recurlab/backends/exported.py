"""The loop over time in an exported graph: a scan of the reference's step, or an operator of ONNX.

The graph runs where this package is not installed, so it can't contain a backend; T and B stay open
in it.
"""

from collections.abc import Callable
from dataclasses import fields, replace
from typing import Any

import torch
from torch import Tensor

from recurlab.backends.call import Call, Direction
from recurlab.backends.scan import Tensors, scan
from recurlab.cells.cell import Cell, State
from recurlab.cells.gru import GRU
from recurlab.cells.lstm import LSTM
from recurlab.cells.rnn import Elman
from recurlab.errors import RecurlabError

Project = Callable[[Direction, Tensor], Tensor]
Loop = Callable[[Call, Direction, list[Tensor], bool], tuple[Tensor, State]]

# For each cell that ONNX has: its operator there, the order of the gates, and attributes.
OPERATORS: dict[Cell, tuple[str, tuple[int, ...], dict[str, Any]]] = {
    GRU(): ("GRU", (1, 0, 2), {"linear_before_reset": 1}),
    GRU(reset="before"): ("GRU", (1, 0, 2), {"linear_before_reset": 0}),
    LSTM(): ("LSTM", (0, 3, 1, 2), {}),
    Elman("tanh"): ("RNN", (0,), {"activations": ["Tanh"]}),
    Elman("relu"): ("RNN", (0,), {"activations": ["Relu"]}),
}
CELLS = {type(cell) for cell in OPERATORS}  # a user's own cell need not be hashable


def run(call: Call, project: Project, loop: Loop) -> tuple[Tensor, State]:
    """Return the output (T, B, directions * H) and the states after the sequence, (directions, B, H) each.

    Args:
        call: what is computed.
        project: returns the inputs of all gates, (T, B, G*H); that of the reference.
        loop: runs the loop over time; that of the reference, called for a single step.

    Raises:
        RecurlabError: where zoneout would draw masks, as in training.
    """
    if torch.onnx.is_in_onnx_export() and _has_operator(call):
        return _operator(call)
    if any(direction.seed is not None for direction in call.directions):
        raise RecurlabError(f"zoneout={call.zoneout}: an exported graph draws none; call eval() before the export")
    results = [_scanned(call, each, project, loop, i == 1) for i, each in enumerate(call.directions)]
    states = zip(*(state for _, state in results), strict=True)
    return torch.cat([output for output, _ in results], dim=-1), tuple(torch.stack(each) for each in states)


def _scanned(call: Call, direction: Direction, project: Project, loop: Loop, reverse: bool) -> tuple[Tensor, State]:
    projected = project(direction, call.input)
    storage = projected.dtype
    dtype = torch.float32 if storage in (torch.float16, torch.bfloat16) else storage
    start = [s.to(dtype) for s in direction.state]
    flags = {"mask": call.mask, "cut": call.cuts(reverse=reverse)}
    given = {name: flag for name, flag in flags.items() if flag is not None}
    hold = call.hold and call.mask is not None
    weights, rebuilt = _opened(direction)

    def step(carried: Tensors, rows: Tensors, weights: Tensors) -> tuple[Tensors, Tensor]:
        state, (x, *now) = carried[: len(start)], rows
        flag = dict(zip(given, now, strict=True))
        if "cut" in flag:
            state = [s.masked_fill(flag["cut"].unsqueeze(-1), 0) for s in state]
        mask = flag["mask"].unsqueeze(0) if "mask" in flag else None
        one = replace(call, input=x.unsqueeze(0), given_mask=mask, resets=None)
        output, new = loop(one, replace(rebuilt(weights), state=tuple(state)), [x], False)
        y = torch.where(flag["mask"].unsqueeze(-1), output[0], carried[-1]) if hold else output[0]
        return ([*new, y] if hold else new), y

    rows = [projected.to(dtype), *given.values()]
    rows = [row.flip(0) for row in rows] if reverse else rows
    end, output = scan(step, [*start, torch.zeros_like(start[0])] if hold else start, rows, weights)
    output = output.flip(0) if reverse else output
    return output.to(storage), tuple(s.to(storage) for s in end[: len(start)])


def _opened(direction: Direction) -> tuple[list[Tensor], Callable[[Tensors], Direction]]:
    """Return the tensors of a direction, and a function that makes a direction of such tensors."""
    optional = ("bias_ih", "bias_hh", "recurrent_dropout")
    names = ["weight_hh", *(name for name in optional if getattr(direction, name) is not None)]
    norm = direction.norm
    gains = [] if norm is None else [f.name for f in fields(norm) if isinstance(getattr(norm, f.name), Tensor)]

    def rebuilt(tensors: Tensors) -> Direction:
        own: dict[str, Any] = dict(zip(names, tensors[: len(names)], strict=True))
        scales: dict[str, Any] = dict(zip(gains, tensors[len(names) :], strict=True))
        return replace(direction, **own, norm=None if norm is None else replace(norm, **scales))

    return [getattr(direction, name) for name in names] + [getattr(norm, name) for name in gains], rebuilt


def _has_operator(call: Call) -> bool:
    """Return whether an operator of ONNX computes exactly this; runtimes have them in float32 only."""
    first = call.directions[0]
    return (
        type(call.cell) in CELLS
        and call.cell in OPERATORS
        and call.recurrence.kind == "dense"
        and call.dtype == torch.float32
        and first.norm is None
        and first.recurrent_dropout is None
        and call.resets is None
        and not any(call.zoneout)
        and (call.mask is None or (call.lengths is not None and not call.hold))
    )


def _operator(call: Call) -> tuple[Tensor, State]:
    name, order, attributes = OPERATORS[call.cell]
    directions, (steps, batch, _) = call.directions, call.input.shape
    units, count = directions[0].state[0].shape[1], len(directions)
    indices = torch.tensor(order, device=call.input.device)

    def ordered(weights: list[Tensor]) -> Tensor:
        rows = torch.stack(weights)
        by_gate = rows.view(len(weights), len(order), units, *rows.shape[2:])
        return by_gate.index_select(1, indices).flatten(1, 2)

    bias = None
    if all(d.bias_ih is not None for d in directions):
        both = ("bias_ih", "bias_hh")
        bias = torch.cat([ordered([getattr(d, name) for d in directions]) for name in both], dim=1)
    if "activations" in attributes:
        attributes = {"activations": attributes["activations"] * count}
    output, *end = torch.onnx.ops.symbolic_multi_out(
        name,
        [
            call.input,
            ordered([d.weight_ih for d in directions]),
            ordered([d.weight_hh for d in directions]),
            bias,
            None if call.mask is None or call.lengths is None else call.lengths.to(torch.int32),
            *(torch.stack(states) for states in zip(*(d.state for d in directions), strict=True)),
        ],
        {"hidden_size": units, "direction": "bidirectional" if count == 2 else "forward", **attributes},
        dtypes=[call.input.dtype] * (1 + len(directions[0].state)),
        shapes=[(steps, count, batch, units), *[(count, batch, units)] * len(directions[0].state)],
    )
    return output.transpose(1, 2).flatten(2), tuple(end)
