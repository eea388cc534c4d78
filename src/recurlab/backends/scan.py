"""Loops over time in an exported graph, where T stays open: the operator `scan` of torch and of ONNX."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from recurlab.backends.constant import constant

Tensors = Sequence[Tensor]


def exporting() -> bool:
    """Return whether torch.export or torch.onnx is tracing; torch.compile does not count."""
    return torch.compiler.is_exporting()


# In a compiled graph the answer is a constant.
exporting = constant(exporting)


def scan(
    step: Callable[[Tensors, Tensors, Tensors], tuple[Tensors, Tensor]],
    state: Tensors,
    rows: Tensors,
    weights: Tensors = (),
) -> tuple[list[Tensor], Tensor]:
    """Return the state after T steps and the output of each, (T, ...).

    Args:
        step: maps a state, one row of each of `rows`, and `weights` to the next state and an
            output; it may use no other tensors.
        state: before the first step.
        rows: (T, ...) each.
        weights: the same at each step.
    """
    from torch._higher_order_ops.scan import scan_op

    first, last = len(state), len(state) + len(rows)

    def flat(*tensors: Tensor) -> list[Tensor]:
        new, output = step(tensors[:first], tensors[first:last], tensors[last:])
        return [t.clone() for t in (*new, output)]  # the results of a step must not share memory

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
