"""What a layer says of itself: its options, which backend serves it, and why each other one does not."""

from collections.abc import Iterable
from inspect import Signature

from torch import Tensor

from recurlab.backends import select
from recurlab.backends.call import Call
from recurlab.cells.cell import State
from recurlab.layers.sequence import Sequence
from recurlab.layers.weights import RecurrentWeights

ALWAYS = ("input_size", "hidden_size", "cell", "recurrence")  # shown also at their defaults


def explain(calls: Iterable[Call], backend: str, *, source: bool) -> str:
    """Return, for the call of each layer, its cell, the backend taken and a line of reason for each other one.

    Args:
        calls: one for each layer.
        backend: what was asked for: a name, or auto.
        source: whether to add what was generated for the layer, once where layers share it.
    """
    lines: list[str] = []
    for layer, call in enumerate(calls):
        taken = select.choose(backend, call)
        lines.append(f"layer {layer}: {call.cell}, {call.recurrence.kind} recurrence, backend {taken}")
        lines += [f"  not {name}: {reason}" for name, reason in select.passed_over(backend, taken, call).items()]
        text = select.MODULES[taken].source(call) if source else None
        if text is not None and text not in lines:
            lines.append(text)
    return "\n".join(lines)


def probe(weights: RecurrentWeights, layer: int, batch_size: int) -> tuple[Tensor, State, Sequence]:
    """Return the input, states and sequence of a plain call of one layer: a step of zeros."""
    zeros = next(weights.parameters()).new_zeros
    features = weights.input_size if layer == 0 else weights.hidden_size * weights.num_directions
    x = zeros(1, batch_size, features)
    rows = weights.num_layers * weights.num_directions
    states = tuple(zeros(rows, batch_size, weights.hidden_size) for _ in weights.cell.states)
    return x, states, Sequence(x, None, None, None, None, batched=True, restore=lambda x: x)


def summary(layer: RecurrentWeights, signature: Signature) -> str:
    """Return a layer's sizes, cell and recurrence, and those of its attributes that are not at their defaults.

    Args:
        layer: whose attributes are called as the arguments that gave them.
        signature: of its class.
    """
    recurrence = layer.recurrence.kind
    shown = [f"{layer.input_size}, {layer.hidden_size}, cell={layer.cell}, recurrence={recurrence!r}"]
    for name, parameter in signature.parameters.items():
        value, usual = vars(layer).get(name, parameter.default), parameter.default
        each = (usual,) * len(layer.cell.states)  # of an option for each state
        if name not in ALWAYS and value not in (usual, each):
            shown.append(f"{name}={value!r}")
    return ", ".join(shown)
