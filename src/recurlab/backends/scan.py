"""Loops over time in a graph that is exported, where T stays open: torch's operator `scan`, and ONNX's."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

Tensors = Sequence[Tensor]


def exporting() -> bool:
    """Return whether torch.export or torch.onnx is at work, but not torch.compile."""
    return torch.compiler.is_exporting()


# In a compiled graph the answer is a constant.
exporting = torch.compiler.assume_constant_result(exporting)  # type: ignore[no-untyped-call]


def scan(
    step: Callable[[Tensors, Tensors, Tensors], tuple[Tensors, Tensor]],
    state: Tensors,
    rows: Tensors,
    weights: Tensors = (),
) -> tuple[list[Tensor], Tensor]:
    """Return the state after T steps and the output of each, (T, ...).

    Args:
        step: gives the next state and the output for a state, one row of each of `rows`, and `weights`; it may use no
            other tensor.
        state: before the first step.
        rows: (T, ...) each.
        weights: the same at each step.
    """
    from torch._higher_order_ops.scan import scan_op

    first, last = len(state), len(state) + len(rows)

    def flat(*tensors: Tensor) -> list[Tensor]:
        new, output = step(tensors[:first], tensors[first:last], tensors[last:])
        return [t.clone() for t in (*new, output)]  # none may share the memory of another

    *end, outputs = scan_op(flat, list(state), list(rows), tuple(weights))
    return end, outputs


def running_maximum(rows: Tensor) -> Tensor:
    """Return the largest of the rows up to and with each, (T, B)."""
    if not exporting():
        return rows.cummax(0).values

    def step(state: Tensors, rows: Tensors, weights: Tensors) -> tuple[Tensors, Tensor]:  # ONNX has no cummax
        highest = torch.maximum(state[0], rows[0])
        return [highest], highest

    return scan(step, [torch.zeros_like(rows[0])], [rows])[1]
