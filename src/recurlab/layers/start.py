"""The initial weights of one direction of a layer."""

from collections.abc import Mapping
from math import sqrt

import torch
from torch import Tensor

from recurlab.cells.cell import Cell
from recurlab.cells.recurrence import Recurrence
from recurlab.errors import RecurlabError, check_number, unknown
from recurlab.layers.initializers import Constant, IndRNN, Initializer, Normal, Uniform

KINDS = {"weight_ih": "input", "weight_hh": "recurrent", "bias_ih": "bias", "bias_hh": "bias"}
FOR_VECTORS = (Uniform, Normal, Constant, IndRNN)


@torch.no_grad()
def start_weights(
    weights: Mapping[str, Tensor],
    cell: Cell,
    recurrence: Recurrence,
    inits: Mapping[str, Initializer | None],
    gate_bias: Mapping[str, float],
) -> None:
    """Fill ``weight_ih``, ``weight_hh`` and the optional ``bias_ih`` and ``bias_hh`` in place.

    Args:
        weights: the tensors by these names.
        cell: of G gates.
        recurrence: of the layer, which gives ``weight_hh`` its layout.
        inits: the initialisers of "input", "recurrent" and "bias"; None is U(-1/sqrt(n), 1/sqrt(n))
            with n = H or, for ``weight_hh``, the number of units that feed a unit.
        gate_bias: the start of a gate's total bias; it overrides the initialiser of the biases.
    """
    gates = cell.gates
    hidden_size = weights["weight_ih"].shape[0] // len(gates)
    for name, tensor in weights.items():
        kind = KINDS[name]
        init = inits[kind]
        if init is None:
            bound = 1 / sqrt(recurrence.fan_in(hidden_size) if kind == "recurrent" else hidden_size)
            tensor.uniform_(-bound, bound)
            continue
        if kind == "bias" and not isinstance(init, FOR_VECTORS):
            names = ", ".join(each.__name__ for each in FOR_VECTORS)
            raise RecurlabError(f"bias_init={init}: a bias may start as {names}")
        init(by_gate(tensor, kind, len(gates), recurrence))

    for gate, value in gate_bias.items():
        if gate not in gates:
            raise unknown("gate_bias", gate, gates)
        check_number(f"gate_bias[{gate!r}]", value)
        if "bias_ih" not in weights:
            raise RecurlabError(f"gate_bias={gate_bias}: this layer has no bias, it has bias=False")
        if not any(cell.entries[gate]):
            name = type(cell).__name__
            raise RecurlabError(f"gate_bias[{gate!r}]={value}: the step of {name} uses no bias of this gate")
        rows = slice(gates.index(gate) * hidden_size, (gates.index(gate) + 1) * hidden_size)
        # A gate whose input the step does not use gets its whole bias from the recurrence.
        whole, rest = ("bias_ih", "bias_hh") if cell.entries[gate][0] else ("bias_hh", "bias_ih")
        weights[whole][rows] = value
        weights[rest][rows] = 0


def by_gate(weight: Tensor, kind: str, gates: int, recurrence: Recurrence) -> Tensor:
    """Return a view (gates, heads, rows, columns) of a weight of this kind, as initialisers take it."""
    units = len(weight) // gates
    heads = units // recurrence.fan_in(units) if kind == "recurrent" else 1
    return weight.view(gates, heads, units // heads, -1)
