"""PyTorch's call of NVIDIA's cuDNN, for exactly what that computes."""

from collections.abc import Callable

import torch
from torch import Tensor

from recurlab.backends.call import Call
from recurlab.cells.cell import State
from recurlab.cells.gru import GRU
from recurlab.cells.lstm import LSTM
from recurlab.cells.rnn import Elman

# The function of torch for each cell that cuDNN has.
FUNCTIONS: dict[object, Callable[..., tuple[Tensor, ...]]] = {
    GRU(): torch.gru,
    LSTM(): torch.lstm,
    Elman("tanh"): torch.rnn_tanh,
    Elman("relu"): torch.rnn_relu,
}

CELLS = {type(cell) for cell in FUNCTIONS}

# The first rule that a call breaks is the reason.
RULES: tuple[tuple[Callable[[Call], bool], str], ...] = (
    (
        lambda call: call.input.is_cuda and torch.backends.cudnn.is_available(),  # type: ignore[no-untyped-call]
        "it needs a CUDA device",
    ),
    (
        lambda call: type(call.cell) in CELLS and call.cell in FUNCTIONS,
        "cuDNN has the GRU with reset='after', the LSTM and the rnn, tanh or ReLU",
    ),
    (lambda call: call.recurrence.kind == "dense", "cuDNN has the dense recurrence only"),
    (lambda call: not any(call.zoneout), "cuDNN has no zoneout"),
    (lambda call: call.directions[0].recurrent_dropout is None, "cuDNN has no recurrent dropout"),
    (lambda call: call.mask is None, "cuDNN has no masks"),
    (lambda call: call.resets is None, "cuDNN has no resets"),
    (lambda call: call.input.dtype != torch.bfloat16 or torch.cuda.is_bf16_supported(), "no bfloat16 on this device"),
)


def supports(call: Call) -> str | None:
    """Return None, or the rule of cuDNN that the call breaks."""
    return next((reason for rule, reason in RULES if not rule(call)), None)


def run(call: Call) -> tuple[Tensor, tuple[State, ...]]:
    """Return the output (T, B, directions * H) and each direction's state after the sequence."""
    directions = call.directions
    weights = [w for d in directions for w in (d.weight_ih, d.weight_hh, d.bias_ih, d.bias_hh) if w is not None]
    start = tuple(torch.stack(states) for states in zip(*(d.state for d in directions), strict=True))
    given = start if len(start) > 1 else start[0]
    biased, layers, dropout, batch_first = directions[0].bias_ih is not None, 1, 0.0, False
    options = (biased, layers, dropout, call.training, len(directions) == 2, batch_first)
    output, *end = FUNCTIONS[call.cell](call.input, given, weights, *options)
    return output, tuple(tuple(s[place] for s in end) for place in range(len(directions)))


def source(call: Call) -> str | None:
    """Return None: nothing is generated for this backend."""
    return None
