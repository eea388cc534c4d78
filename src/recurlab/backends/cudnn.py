"""NVIDIA's cuDNN, called through PyTorch, for the layers that it computes exactly.

As in `torch.nn.GRU`, its float32 products are in TF32 unless `torch.backends.cudnn.allow_tf32` is
False.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch._compile import _disable_dynamo
from torch.backends.cudnn.rnn import get_cudnn_mode
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

from recurlab.backends.call import Call, transformed
from recurlab.backends.constant import constant
from recurlab.cells.cell import Cell, State
from recurlab.cells.gru import GRU
from recurlab.cells.lstm import LSTM
from recurlab.cells.rnn import Elman

# For each cell that cuDNN has, the function of torch and the name of the cell there.
FUNCTIONS: dict[Cell, tuple[Callable[..., tuple[Tensor, ...]], str]] = {
    GRU(): (torch.gru, "GRU"),
    LSTM(): (torch.lstm, "LSTM"),
    Elman("tanh"): (torch.rnn_tanh, "RNN_TANH"),
    Elman("relu"): (torch.rnn_relu, "RNN_RELU"),
}
CELLS = {type(cell) for cell in FUNCTIONS}  # a user's own cell need not be hashable
DTYPES = (torch.float64, torch.float32, torch.float16, torch.bfloat16)


def name_of(cell: Cell) -> str:
    """Return the name by which measurements know one of cuDNN's cells."""
    return FUNCTIONS[cell][1].lower()


def tf32_allowed() -> bool:
    """Return whether cuDNN may multiply float32 matrices in TF32."""
    # From torch 2.9 on; the older flag can't be read where convolutions and the like have another precision.
    precision = getattr(torch.backends.cudnn.rnn, "fp32_precision", None)
    return bool(torch.backends.cudnn.allow_tf32 if precision is None else precision == "tf32")


@constant
def _present() -> bool:
    cudnn = torch.backends.cudnn
    return cudnn.is_available() and cudnn.enabled  # type: ignore[no-untyped-call]


@constant
def _has_bfloat16(device: torch.device) -> bool:
    version: int | None = torch.backends.cudnn.version()  # type: ignore[no-untyped-call]
    return (version or 0) >= 91300 and torch.cuda.get_device_capability(device) >= (8, 0)


# The first rule that a call breaks is the reason.
RULES: tuple[tuple[Callable[[Call], bool], str], ...] = (
    (lambda call: call.input.is_cuda, "it needs a CUDA device"),
    (lambda call: _present(), "PyTorch has no cuDNN here, or torch.backends.cudnn.enabled is False"),
    (
        lambda call: type(call.cell) in CELLS and call.cell in FUNCTIONS,
        "cuDNN has the GRU with reset='after' and the LSTM, of sigmoid and tanh, and the rnn, tanh or ReLU",
    ),
    (lambda call: call.recurrence.kind == "dense", "cuDNN has the dense recurrence only"),
    (lambda call: call.directions[0].norm is None, "cuDNN has no layer normalisation"),
    (lambda call: not any(call.zoneout), "cuDNN has no zoneout"),
    (lambda call: call.directions[0].recurrent_dropout is None, "cuDNN has no recurrent dropout"),
    (lambda call: call.resets is None, "cuDNN has no resets"),
    (
        lambda call: call.mask is None or call.lengths is not None,
        "cuDNN skips right padding only, by lengths on the host: give lengths as a list, a CPU tensor or packed",
    ),
    (lambda call: call.mask is None or not call.hold, "cuDNN gives 0 at a padded step, masked_output='hold' does not"),
    (lambda call: call.dtype in DTYPES, "cuDNN computes in float64, float32, float16 and bfloat16"),
    (
        lambda call: call.dtype != torch.bfloat16 or _has_bfloat16(call.input.device),
        "cuDNN has bfloat16 from its version 9.13 and compute capability 8.0 on",
    ),
    (lambda call: not transformed(), "cuDNN has no rules for torch.func and forward-mode derivatives"),
)


def supports(call: Call) -> str | None:
    """Return None, or the rule of cuDNN that the call breaks."""
    return next((reason for rule, reason in RULES if not rule(call)), None)


# Not part of a compiled graph, like torch.nn.GRU: in a graph torch would unroll the loop over time.
@_disable_dynamo
def run(call: Call) -> tuple[Tensor, State]:
    """Return the output (T, B, directions * H) and the states after the sequence, (directions, B, H) each."""
    directions, dtype = call.directions, call.dtype
    biased, both = directions[0].bias_ih is not None, len(directions) == 2
    function, name = FUNCTIONS[call.cell]
    with torch.autocast(call.input.device.type, enabled=False):  # autocast would cast bfloat16 to float16 here
        x = call.input.to(dtype)
        start = tuple(torch.stack(states).to(dtype) for states in zip(*(d.state for d in directions), strict=True))
        given = [w for d in directions for w in (d.weight_ih, d.weight_hh, d.bias_ih, d.bias_hh) if w is not None]
        weights = [w.to(dtype, copy=True, memory_format=torch.contiguous_format) for w in given]
        # cuDNN gives gradients only for a call in training mode; without dropout the mode changes no number.
        recorded = torch.is_grad_enabled() and any(t.requires_grad for t in (x, *start, *weights))
        if x.is_cuda:
            _gather(weights, name, biased=biased, both=both)
        options = (weights, biased, 1, 0.0, recorded, both)
        if call.lengths is not None:
            output, end = _packed(call, x, start, lambda *data: function(*data, *options))
        else:
            output, *end = function(x, _hidden(start), *options, False)
    return output, tuple(end)


def _packed(
    call: Call, x: Tensor, start: State, function: Callable[..., tuple[Tensor, ...]]
) -> tuple[Tensor, list[Tensor]]:
    """Run over the valid steps alone, longest sample first; return results in the caller's order of samples."""
    assert call.mask is not None
    assert call.lengths is not None
    # The same numbers are sorted on the host and on the device, so that neither waits for the other.
    order = call.mask.sum(0).argsort(descending=True)
    packed = pack_padded_sequence(x.index_select(1, order), call.lengths.sort(descending=True).values)
    hidden = _hidden(tuple(s.index_select(1, order) for s in start))
    data, *end = function(packed.data, packed.batch_sizes, hidden)
    output, _ = pad_packed_sequence(PackedSequence(data, packed.batch_sizes), total_length=len(x))
    back = order.argsort()
    return output.index_select(1, back), [s.index_select(1, back) for s in end]


def _hidden(state: State) -> Tensor | State:
    return state if len(state) > 1 else state[0]


def _gather(weights: list[Tensor], name: str, *, biased: bool, both: bool) -> None:
    """Move copies of the weights, in place, into one buffer, as cuDNN wants; torch would do it with a warning."""
    features, hidden_size = weights[0].shape[1], weights[1].shape[1]
    mode = get_cudnn_mode(name)  # type: ignore[no-untyped-call]
    with torch.no_grad(), torch.cuda.device(weights[0].device):
        torch._cudnn_rnn_flatten_weight(weights, 4 if biased else 2, features, mode, hidden_size, 0, 1, False, both)


def source(call: Call) -> str | None:
    """Return None: nothing is generated for this backend."""
    return None
