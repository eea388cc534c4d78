"""The least time that a layer can take on this machine, from speeds that are measured in the same run."""

from dataclasses import dataclass
from functools import cache
from math import prod
from typing import Any

import torch
from torch import Tensor

from recurlab.bench.clock import copy_bandwidth, elapsed
from recurlab.bench.layers import Case
from recurlab.bench.settings import BenchSettings, Shape

TRIES = 5  # of each product, the fastest of which counts, and of a copy
SQUARE = (1024, 1024, 1024)  # a product at which torch.mm is at its best
LARGE = 2**27  # bytes, which no cache holds


def words(gates: int, states: int) -> tuple[int, int]:
    """Return how many words a recurrence moves for each unit of each step, in its forward and its backward pass.

    The forward pass reads the projection of each gate and writes the states; the backward pass
    reads the projections, the states before the step and the gradient of the output, and writes a
    gradient of each projection.
    """
    return gates + states, 2 * gates + states + 1


@dataclass(frozen=True)
class Floor:
    """The least seconds of a forward pass, and of both."""

    forward: float
    both: float

    def by_pass(self) -> dict[str, float]:
        """Return both by the names of the columns."""
        return {"forward": self.forward, "forward_backward": self.both}


def floor(case: Case, shape: Shape, settings: BenchSettings) -> Floor:
    """Return the floor of a layer: its products at torch.mm's speed, and what it moves at that of a copy.

    The speed of products is the best that torch.mm reaches in a square one or in any of the layer's
    own, those of all steps taken together; that of memory is a copy's which no cache holds. The
    bytes are what the recurrence reads and writes (see `words`); those of the products are within
    their time. A layer that multiplies faster than torch.mm does, or stays in the caches, can be
    below its floor.
    """
    cell, recurrence = case.built()
    directions = 2 if case.option == "bidirectional" else 1
    rows, wide = shape.steps * shape.batch, len(cell.gates) * shape.hidden
    recurrent = sum(map(len, cell.phases)) * recurrence.fan_in(shape.hidden) * shape.hidden
    recurrent = 0 if recurrence.kind == "diagonal" else recurrent
    forward = 2 * rows * (wide * shape.features + recurrent)
    backward = 2 * rows * (wide * shape.features * (1 + settings.input_grad) + 2 * recurrent)
    sizes = [SQUARE, (rows, shape.features, wide), (wide, rows, shape.features)]
    if recurrence.kind == "dense":
        sizes += [(rows, shape.hidden, wide), (wide, rows, shape.hidden), (rows, wide, shape.hidden)]
    flops = max(_product_speed(size, settings.dtype, settings.device) for size in sizes)
    element = torch.empty((), dtype=getattr(torch, settings.dtype)).element_size()
    moved = [count * element * rows * shape.hidden for count in words(len(cell.gates), len(cell.states))]
    first, second = (
        work / flops + size / copy_speed(settings.device) for work, size in zip((forward, backward), moved, strict=True)
    )
    return Floor(directions * first, directions * (first + second))


@cache
def _product_speed(size: tuple[int, int, int], dtype: str, device: str) -> float:
    """Return the operations per second of a product (m, k) by (k, n)."""
    rows, inner, columns = size
    factory: dict[str, Any] = {"dtype": getattr(torch, dtype), "device": torch.device(device)}
    a, b = torch.ones(rows, inner, **factory), torch.ones(inner, columns, **factory)
    out = torch.empty(rows, columns, **factory)

    def multiply() -> Tensor:
        return torch.mm(a, b, out=out)

    multiply()
    return 2 * prod(size) / min(elapsed(multiply, a.device, queued=True)[0] for _ in range(TRIES))


@cache
def copy_speed(device: str) -> float:
    """Return the bytes per second that a copy reads and writes."""
    return copy_bandwidth(torch.device(device), size=LARGE, repeats=TRIES)
