"""The `recur` that a cell's step is given: the recurrent weights applied to a state."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from recurlab.cells.cell import Cell
from recurlab.cells.layer_norm import LayerNorm
from recurlab.cells.recurrence import Recurrence

Product = Callable[[Tensor], tuple[Tensor, ...]]


def bind(
    recurrence: Recurrence,
    cell: Cell,
    weight: Tensor,
    bias: Tensor | None,
    dropout: Tensor | None,
    norm: LayerNorm | None = None,
) -> Any:
    """Return the `recur` of a cell's step: a function (B, H) -> (B, H) per gate.

    Args:
        recurrence: its type, and how many heads it has.
        cell: the cell whose gates and phases are served.
        weight: of the recurrence's `weight_shape`.
        bias: (G*H,) or None.
        dropout: a factor (B, H) on every state that enters the recurrence, or None.
        norm: the gains of layer normalisation, or None without it.
    """
    gates = len(cell.gates)
    weights = weight.view(gates, -1, *weight.shape[1:])
    biases = None if bias is None else bias.view(gates, -1)
    gains = None if norm is None or norm.gain_hh is None else norm.gain_hh.view(gates, -1)
    make = {"dense": _dense, "diagonal": _diagonal, "block": _block}[recurrence.kind]
    by_gate: dict[str, Any] = dict.fromkeys(cell.gates)  # None for a gate without a recurrence
    for phase in cell.phases:
        rows = [cell.gates.index(gate) for gate in phase]
        shift = None if biases is None else _pick(biases, rows)
        product = make(_pick(weights, rows), shift if gains is None else None)
        if norm is not None and gains is not None:
            product = _normalized(product, norm, _pick(gains, rows), shift)
        shared = _Shared(product, dropout)
        for place, gate in enumerate(phase):
            by_gate[gate] = partial(shared, place)
    recur = cell.recur_by_gate(**by_gate)
    if norm is not None:
        recur.normalize = norm.of_state
    return recur


class _Shared:
    """One product for all gates of a phase, computed when the first of them is called."""

    def __init__(self, product: Product, dropout: Tensor | None) -> None:
        self.product, self.dropout = product, dropout
        self.operand: Tensor | None = None
        self.values: tuple[Tensor, ...] = ()

    def __call__(self, place: int, operand: Tensor) -> Tensor:
        if operand is not self.operand:
            self.operand = operand
            self.values = self.product(operand if self.dropout is None else operand * self.dropout)
        return self.values[place]


def _pick(rows: Tensor, wanted: list[int]) -> Tensor:
    """Return the gates `wanted` of a (G, ...) tensor; adjacent ones are returned without a copy."""
    first, count = wanted[0], len(wanted)
    if wanted == list(range(first, first + count)):
        return rows[first : first + count]
    return torch.stack([rows[i] for i in wanted])


def _normalized(product: Product, norm: LayerNorm, gain: Tensor, bias: Tensor | None) -> Product:
    """Return a product without a bias followed by layer normalisation, gain and bias being (n, H)."""
    gates, scale = gain.shape[0], gain.flatten()
    shift = None if bias is None else bias.flatten()
    return lambda h: norm.normalized(torch.cat(product(h), dim=1), scale, shift, gates).chunk(gates, dim=1)


def _dense(weight: Tensor, bias: Tensor | None) -> Product:
    gates = weight.shape[0]
    matrix = weight.flatten(0, 1)
    vector = None if bias is None else bias.flatten()
    return lambda h: F.linear(h, matrix, vector).chunk(gates, dim=1)


def _diagonal(weight: Tensor, bias: Tensor | None) -> Product:
    scales = weight.unbind(0)
    if bias is None:
        return lambda h: tuple(u * h for u in scales)
    shifts = bias.unbind(0)
    return lambda h: tuple(torch.addcmul(b, u, h) for u, b in zip(scales, shifts, strict=True))


def _block(weight: Tensor, bias: Tensor | None) -> Product:
    gates, hidden_size, width = weight.shape
    heads = hidden_size // width
    # (G, heads, out, in) -> (heads, in, G * out): one batched product for all gates
    matrices = weight.view(gates, heads, width, width).permute(1, 3, 0, 2).flatten(2)

    def product(h: Tensor) -> tuple[Tensor, ...]:
        by_head = h.reshape(-1, heads, width).transpose(0, 1)
        result = torch.bmm(by_head, matrices).view(heads, -1, gates, width)
        flat = result.permute(2, 1, 0, 3).flatten(2)  # (G, B, H)
        return (flat if bias is None else flat + bias.unsqueeze(1)).unbind(0)

    return product
