"""What a cell's step does with its gates and states, found out by one step on zeros; `cell` is a `Cell` throughout."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from recurlab.cells.watch import NO_WEIGHTS, Watch
from recurlab.errors import RecurlabError, one_line


def phases_of(cell: Any) -> tuple[tuple[str, ...], ...]:
    """Return the gates grouped by the tensor that their recurrence is applied to; see `Cell.phases`."""
    operands: list[Tensor] = []
    groups: list[list[str]] = []

    def record(gate: str, operand: Tensor) -> Tensor:
        for known, group in zip(operands, groups, strict=True):
            if known is operand:
                group.append(gate)
                break
        else:
            operands.append(operand)
            groups.append([gate])
        return torch.zeros_like(operand)

    _probe(cell, record, torch.clone)
    called = [gate for group in groups for gate in group]
    if len(set(called)) != len(called):
        raise RecurlabError(f"cell {type(cell).__name__}: a gate's recurrence may be applied once a step")
    return tuple(tuple(sorted(group, key=cell.gates.index)) for group in groups)


def normalizes(cell: Any) -> bool:
    """Return whether the step normalises a state, by `recur.normalize`."""
    states: list[Tensor] = []

    def normalize(state: Tensor) -> Tensor:
        states.append(state)
        return state.clone()

    _probe(cell, lambda gate, operand: torch.zeros_like(operand), normalize)
    if len(states) > 1:
        raise RecurlabError(f"cell {type(cell).__name__}: recur.normalize may be applied once a step")
    return bool(states)


def entries_of(cell: Any) -> dict[str, tuple[bool, bool]]:
    """Return for each gate whether the step uses its input, and whether it uses its recurrence."""
    products: dict[str, Tensor] = {}

    def record(gate: str, operand: Tensor) -> Tensor:
        products[gate] = torch.zeros_like(operand)
        return products[gate]

    x, used = _probe(cell, record, torch.clone)
    known = [id(tensor) for tensor in used]
    return {gate: (id(getattr(x, gate)) in known, id(products.get(gate)) in known) for gate in cell.gates}


def _probe(
    cell: Any, record: Callable[[str, Tensor], Tensor], normalize: Callable[[Tensor], Tensor]
) -> tuple[Any, list[Tensor]]:
    """Run the step once on zeros of shape (2, 3), telling `record` of each use of the recurrence.

    Returns:
        The inputs, and all tensors that the step used.
    """
    name = type(cell).__name__
    if not isinstance(getattr(cell, "gates", None), tuple) or not cell.gates:
        raise RecurlabError(f"cell {name}: a cell must name its gates, like gates = ('update', 'candidate')")
    x = cell.by_gate(*(torch.zeros(2, 3) for _ in cell.gates))
    recur = cell.recur_by_gate(*(partial(record, gate) for gate in cell.gates))
    recur.normalize = normalize
    states = tuple(torch.zeros(2, 3) for _ in cell.states)
    watch = Watch((*x, *states))
    try:
        with torch.no_grad(), watch:
            new = cell.advance(x, states, recur)
    except RecurlabError:
        raise
    except Exception as error:  # whatever a user's step does, it is said in a line
        watch.check(name)
        foreign = [str(tuple(tensor.shape)) for tensor in watch.foreign() if tensor.dim()]
        hint = f"its gates are {', '.join(cell.gates)}"
        if foreign:
            hint = f"it uses a tensor {foreign[0]}, and {NO_WEIGHTS}"
        raise RecurlabError(f"cell {name}: its step fails: {one_line(error)}; {hint}") from error
    watch.check(name)
    if len(new) != len(cell.states) or any(not isinstance(s, Tensor) or s.shape != (2, 3) for s in new):
        raise RecurlabError(f"cell {name}: step must return {len(cell.states)} tensor(s) shaped like the state")
    return x, [*watch.used, *new]
