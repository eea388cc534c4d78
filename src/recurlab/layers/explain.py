"""What a layer says of itself: its options, which backend serves it, and why each other one does not."""

from typing import TYPE_CHECKING

import torch

from recurlab.backends import select
from recurlab.errors import check_integer
from recurlab.layers.sequence import Sequence

if TYPE_CHECKING:
    from recurlab.layers.rnn import RNN


def explain(rnn: "RNN", source: bool, batch_size: int) -> str:
    """Return, for each layer, its cell, the backend taken for a plain call and a line of reason for each other one.

    With `source`, also what was generated for it, once where layers share it.
    """
    check_integer("batch_size", batch_size)
    probe = next(rnn.parameters()).new_zeros
    states = tuple(probe(rnn.num_layers * rnn.num_directions, batch_size, rnn.hidden_size) for _ in rnn.cell.states)
    lines: list[str] = []
    for layer in range(rnn.num_layers):
        features = rnn.input_size if layer == 0 else rnn.hidden_size * rnn.num_directions
        sequence = Sequence(
            probe(1, batch_size, features), mask=None, lengths=None, resets=None, batched=True, restore=lambda x: x
        )
        device = sequence.input.device
        with torch.random.fork_rng([device] if device.type == "cuda" else []):  # explaining must not change a run
            call = rnn.call_of(layer, sequence.input, states, sequence)
            taken = select.choose(rnn.backend, call)
        lines.append(f"layer {layer}: {rnn.cell}, {rnn.recurrence.kind} recurrence, backend {taken}")
        lines += [f"  not {name}: {reason}" for name, reason in select.passed_over(rnn.backend, taken, call).items()]
        text = select.MODULES[taken].source(call) if source else None
        if text is not None and text not in lines:
            lines.append(text)
    return "\n".join(lines)


def summary(rnn: "RNN") -> str:
    """Return the options that distinguish a layer from a usual one."""
    shown = [f"{rnn.input_size}, {rnn.hidden_size}, cell={rnn.cell}, recurrence={rnn.recurrence.kind!r}"]
    defaults = {
        "num_layers": 1, "bias": True, "batch_first": False, "dropout": 0, "bidirectional": False,
        "layer_norm": False, "variational": False, "recurrent_dropout": 0, "dropconnect": 0, "stateful": False,
        "masked_output": "zero", "go_backwards": False, "backend": "auto",
    }  # fmt: skip
    shown += [f"{key}={getattr(rnn, key)!r}" for key, usual in defaults.items() if getattr(rnn, key) != usual]
    if any(rnn.zoneout):
        shown.append(f"zoneout={rnn.zoneout}")
    return ", ".join(shown)
