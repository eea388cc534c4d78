"""Which backend serves a layer, and why each other one does not."""

from typing import TYPE_CHECKING

import torch

from recurlab.backends import select
from recurlab.layers.sequence import Sequence

if TYPE_CHECKING:
    from recurlab.layers.rnn import RNN


def explain(rnn: "RNN") -> str:
    """Return, for each layer, its cell, the backend taken for a plain call and a line of reason for each other one."""
    probe = next(rnn.parameters()).new_zeros
    states = tuple(probe(rnn.num_layers * rnn.num_directions, 1, rnn.hidden_size) for _ in rnn.cell.states)
    lines = []
    for layer in range(rnn.num_layers):
        features = rnn.input_size if layer == 0 else rnn.hidden_size * rnn.num_directions
        sequence = Sequence(probe(1, 1, features), mask=None, resets=None, batched=True, restore=lambda x: x)
        device = sequence.input.device
        with torch.random.fork_rng([device] if device.type == "cuda" else []):  # explaining must not change a run
            choice = select.choose(rnn.backend, rnn.call_of(layer, sequence.input, states, sequence))
        lines.append(f"layer {layer}: {rnn.cell}, {rnn.recurrence.kind} recurrence, backend {choice.name}")
        lines += [f"  not {name}: {reason}" for name, reason in choice.passed_over.items()]
    return "\n".join(lines)
