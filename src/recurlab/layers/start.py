"""How the weights of one direction of a layer start."""

from collections.abc import Mapping
from math import sqrt

import torch
from torch import Tensor

from recurlab.cells.recurrence import Recurrence
from recurlab.errors import RecurlabError, check_number, unknown
from recurlab.layers.initializers import Constant, IndRNN, Initializer, Normal, Uniform

FOR_VECTORS = (Uniform, Normal, Constant, IndRNN)


@torch.no_grad()
def start_weights(
    weights: Mapping[str, Tensor],
    gates: tuple[str, ...],
    recurrence: Recurrence,
    input_init: Initializer | None,
    recurrent_init: Initializer | None,
    bias_init: Initializer | None,
    gate_bias: Mapping[str, float],
) -> None:
    """Fill ``weight_ih``, ``weight_hh`` and, where there are any, ``bias_ih`` and ``bias_hh`` in place.

    Args:
        weights: the tensors by these names.
        gates: G names.
        recurrence: says how ``weight_hh`` is laid out.
        input_init, recurrent_init, bias_init: None is U(-1/sqrt(n), 1/sqrt(n)), n = H and, for ``weight_hh``, the
            number of units that feed a unit.
        gate_bias: the start of a gate's total bias; it overrides `bias_init`.
    """
    hidden_size = weights["weight_ih"].shape[0] // len(gates)
    fan_in = recurrence.fan_in(hidden_size)
    for name, tensor in weights.items():
        init = {"weight_ih": input_init, "weight_hh": recurrent_init}.get(name, bias_init)
        if init is None:
            bound = 1 / sqrt(fan_in if name == "weight_hh" else hidden_size)
            tensor.uniform_(-bound, bound)
            continue
        if not isinstance(init, Initializer):
            raise RecurlabError(f"{name.split('_')[0]} initialiser={init!r}: must be an Initializer, as Orthogonal()")
        if name.startswith("bias") and not isinstance(init, FOR_VECTORS):
            kinds = ", ".join(kind.__name__ for kind in FOR_VECTORS)
            raise RecurlabError(f"bias_init={init}: a bias may start as {kinds}")
        columns = fan_in if name == "weight_hh" else tensor[0].numel()
        heads = hidden_size // fan_in if name == "weight_hh" else 1
        init(tensor.view(len(gates), heads, hidden_size // heads, columns))

    for gate, value in gate_bias.items():
        if gate not in gates:
            raise unknown("gate_bias", gate, gates)
        check_number(f"gate_bias[{gate!r}]", value)
        if "bias_ih" not in weights:
            raise RecurlabError(f"gate_bias={gate_bias}: this layer has no bias")
        rows = slice(gates.index(gate) * hidden_size, (gates.index(gate) + 1) * hidden_size)
        weights["bias_ih"][rows] = value
        weights["bias_hh"][rows] = 0
