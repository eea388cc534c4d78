"""The cell's step as one compiled kernel that runs the whole sequence, forward and backward; on a CPU."""

import torch
from torch import Tensor
from torch.autograd import forward_ad

from recurlab.backends.call import Call
from recurlab.cells.cell import State
from recurlab.errors import RecurlabError
from recurlab.fuse import compiler
from recurlab.fuse.scan import DTYPES, kernel, scan


def supports(call: Call) -> str | None:
    """Return None, or why no kernel can serve the call."""
    if call.input.device.type != "cpu":
        return f"its kernels run on the CPU, the input is on {call.input.device.type}"
    dtype = _dtype(_projected_dtype(call.input))
    if dtype not in DTYPES.values():
        return f"its kernels compute in float32 and float64, the input is {call.input.dtype}"
    reason: str | None = _missing(call.cell.token, call.recurrence.kind, str(dtype).removeprefix("torch."))
    return reason


def _missing(token: str, kind: str, dtype: str) -> str | None:
    """Compile the kernel, or return why that can't be."""
    if torch._C._functorch.maybe_current_level() is not None or forward_ad._current_level >= 0:
        return "its kernels have no rules for torch.func and forward-mode derivatives"
    reason = compiler.unavailable()
    if reason is not None:
        return reason
    try:
        kernel(token, kind, DTYPES[dtype])
    except RecurlabError as error:
        return str(error)
    return None


# In a compiled graph the answer is a constant: whether a kernel can be had does not change within a process.
_missing = torch.compiler.assume_constant_result(_missing)  # type: ignore[no-untyped-call]


def source(call: Call) -> str | None:
    """Return the arithmetic of the cell's step, as it was generated."""
    return kernel(call.cell.token, call.recurrence.kind, _dtype(_projected_dtype(call.input))).text


def run(call: Call) -> tuple[Tensor, tuple[State, ...]]:
    """Return the output (T, B, directions * H) and each direction's state after the sequence."""
    directions = call.directions
    storage = _projected_dtype(call.input)
    dtype = _dtype(storage)

    def stacked(tensors: list[Tensor]) -> Tensor:
        if len(tensors) == 1:  # without a copy
            return tensors[0].to(dtype).unsqueeze(0).contiguous()
        return torch.stack([t.to(dtype) for t in tensors])

    def optional(name: str) -> Tensor | None:
        given = [getattr(d, name) for d in directions]
        return None if given[0] is None else stacked(given)

    cuts = [call.cuts(reverse=place == 1) for place in range(len(directions))]
    keep = [k for d in directions for k in d.keep]
    weights = [d.weight_ih for d in directions]
    nothing = call.input.new_empty(0, dtype=torch.bool)
    leaves = {
        "input": call.input.to(storage),
        "weight_ih": (weights[0] if len(weights) == 1 else torch.cat(weights)).to(storage),
        "weight_hh": stacked([d.weight_hh for d in directions]),
        "bias_ih": optional("bias_ih"),
        "bias_hh": optional("bias_hh"),
        "start": torch.stack([torch.stack([s.to(dtype) for s in d.state]) for d in directions]),
    }
    output, end, *_ = scan(
        call.cell.token,
        call.recurrence.kind,
        *leaves.values(),
        optional("recurrent_dropout"),
        [nothing if k is None else k.contiguous() for k in keep] if any(k is not None for k in keep) else [],
        None if call.mask is None else call.mask.contiguous(),
        None if cuts[0] is None else torch.stack([c for c in cuts if c is not None]),
        list(call.zoneout),
        call.hold,
        call.training,
        torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in leaves.values()),
    )
    states = end.to(storage)
    return output.to(storage), tuple(tuple(one.unbind(0)) for one in states.unbind(0))


def _projected_dtype(tensor: Tensor) -> torch.dtype:
    """Return the precision of the input's projection: that of autocast where it is on."""
    device = tensor.device.type
    if torch.is_autocast_enabled(device) and tensor.dtype != torch.float64:
        return torch.get_autocast_dtype(device)
    return tensor.dtype


def _dtype(storage: torch.dtype) -> torch.dtype:
    """Return what is computed in: half precision is for storage, the state and all sums are float32."""
    return torch.float32 if storage in (torch.float16, torch.bfloat16) else storage
