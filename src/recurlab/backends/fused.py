"""The cell's step as one compiled kernel that runs the whole sequence, forward and backward; on a CPU or a GPU."""

from collections.abc import Callable

import torch
from torch import Tensor

from recurlab.backends.call import Call, transformed
from recurlab.backends.constant import constant
from recurlab.cells.cell import State
from recurlab.cells.layer_norm import LayerNorm
from recurlab.errors import RecurlabError
from recurlab.fuse.arguments import Arguments
from recurlab.fuse.cpu import compiler
from recurlab.fuse.cuda import kernel as cuda
from recurlab.fuse.kernel import Kernel
from recurlab.fuse.registry import STORAGES, kernel, storage_of
from recurlab.fuse.scan import LEAVES, scan


def supports(call: Call) -> str | None:
    """Return None, or why no kernel can serve the call."""
    device = call.input.device
    if device.type not in STORAGES:
        return f"its kernels run on the CPU and on CUDA devices, the input is on {device.type}"
    storage = storage_of(call.dtype, device)
    if storage not in STORAGES[device.type]:
        names = [str(each).removeprefix("torch.") for each in STORAGES[device.type]]
        return f"its kernels on {device.type} compute in {', '.join(names)}, the input is {call.input.dtype}"
    units = call.directions[0].state[0].shape[1]
    width = call.recurrence.fan_in(units)
    reason: str | None = _missing(
        call.cell.token, call.recurrence.kind, str(storage), str(device), units, width, _norm(call)
    )
    return reason


def _missing(token: str, recurrence: str, storage: str, device: str, units: int, width: int, norm: str) -> str | None:
    """Return None for a kernel that compiles and fits, or why it does not; the kernel is compiled here."""
    if transformed():
        return "its kernels have no rules for torch.func and forward-mode derivatives"
    on, dtype = torch.device(device), getattr(torch, storage.removeprefix("torch."))
    reason = compiler.unavailable() if on.type == "cpu" else cuda.unavailable(on)
    if reason is not None:
        return reason
    try:
        return kernel(token, recurrence, dtype, on, norm).unfit(units, width)
    except RecurlabError as error:
        return str(error)


# In a compiled graph the answer is a constant: it does not change within a process.
_missing = constant(_missing)


def source(call: Call) -> str | None:
    """Return the code that was generated for the arithmetic of the cell's step."""
    return _kernel_of(call).text


def sources(call: Call, device: torch.device) -> list[str]:
    """Return the CUDA sources that a call and its gradient need on `device`, whatever device its tensors are on.

    Raises:
        RecurlabError: if no kernel can serve the call.
    """
    first = call.directions[0]
    units = first.state[0].shape[1]
    flags = (call.mask, call.resets, first.recurrent_dropout)
    noisy = any(call.zoneout) or any(flag is not None for flag in flags)
    made = kernel(call.cell.token, call.recurrence.kind, storage_of(call.input.dtype, device), device, _norm(call))
    assert isinstance(made, cuda.CudaKernel)
    sizes = (*call.input.shape[:2], units, call.recurrence.fan_in(units), len(call.directions))
    return made.sources(*sizes, noisy=noisy)


def run(call: Call) -> tuple[Tensor, State]:
    """Return the output (T, B, directions * H) and the states after the sequence, (directions, B, H) each."""
    directions = call.directions
    storage = call.dtype
    dtype = _dtype(storage)

    def joined(tensors: list[Tensor]) -> Tensor:
        """Return the tensors of all directions as one; that of a single one without a copy."""
        if len(tensors) > 1:
            return torch.stack([t.to(dtype) for t in tensors])
        (tensor,) = tensors
        return tensor if tensor.dtype == dtype and tensor.is_contiguous() else tensor.to(dtype).contiguous()

    def optional(name: str) -> Tensor | None:
        given = [getattr(d, name) for d in directions]
        return None if given[0] is None else joined(given)

    cuts = [call.cuts(reverse=i == 1) for i in range(len(directions))]
    seeds = [d.seed for d in directions if d.seed is not None]
    x, packing = call.input, call.packing
    if packing is not None and not _kernel_of(call).packs:
        x, packing = call.clean_input(), None
    weights = [d.weight_ih for d in directions]
    given = Arguments(
        cell=call.cell.token,
        kind=call.recurrence.kind,
        input=x.to(storage),
        weight_ih=(weights[0] if len(weights) == 1 else torch.cat(weights)).to(storage),
        weight_hh=joined([d.weight_hh for d in directions]),
        bias_ih=optional("bias_ih"),
        bias_hh=optional("bias_hh"),
        start=_start(call).to(dtype),
        dropout=optional("recurrent_dropout"),
        seed=torch.stack(seeds) if seeds else None,
        mask=None if call.mask is None or packing is not None else call.mask.contiguous(),
        rows=None if packing is None else packing.rows,
        order=None if packing is None else packing.order,
        places=None,
        cuts=None if cuts[0] is None else torch.stack([c for c in cuts if c is not None]),
        zoneout=list(call.zoneout),
        hold=call.hold,
        training=call.training,
        grad=False,
        norm=_norm(call),
        gain_ih=None,
        gain_hh=None,
    )
    if packing is not None:
        given.places = packing.places(batch_first=given.batch_first)
    if given.norm:
        _add_gains(given, [d.norm for d in directions if d.norm is not None], joined)
    if torch.is_grad_enabled():
        leaves = (getattr(given, name) for name in LEAVES)
        given.grad = any(t is not None and t.requires_grad for t in leaves)
    output, end = scan(given)
    if dtype != storage:
        end = end.to(storage)
    return output.to(storage), tuple(end.select(1, s) for s in range(end.shape[1]))


def _kernel_of(call: Call) -> Kernel:
    device = call.input.device
    return kernel(call.cell.token, call.recurrence.kind, storage_of(call.dtype, device), device, _norm(call))


def _start(call: Call) -> Tensor:
    """Return the states before the sequence, (D, S, B, H)."""
    states = [state for direction in call.directions for state in direction.state]
    count = len(call.directions)
    if len(states) == 1:
        return states[0].contiguous().view(1, 1, *states[0].shape)
    return torch.stack(states).view(count, len(states) // count, *states[0].shape)


def _dtype(storage: torch.dtype) -> torch.dtype:
    """Return the dtype of the arithmetic: half precision is for storage only, state and sums are float32."""
    return torch.float32 if storage in (torch.float16, torch.bfloat16) else storage


def _norm(call: Call) -> str:
    norm = call.directions[0].norm
    return "" if norm is None else norm.kind


def _add_gains(given: Arguments, norms: list[LayerNorm], joined: Callable[[list[Tensor]], Tensor]) -> None:
    """Give a scan the gains of its directions; those of a state, and its biases, come after those of the gates."""
    given.gain_ih = joined([norm.gain_ih for norm in norms])
    recurrent = [norm.gain_hh for norm in norms if norm.gain_hh is not None]
    given.gain_hh = joined(recurrent) if recurrent else None
    gains = [norm.gain_state for norm in norms if norm.gain_state is not None]
    biases = [norm.bias_state for norm in norms if norm.bias_state is not None]
    if gains and given.gain_hh is not None:
        given.gain_hh = torch.cat([given.gain_hh, joined(gains)], dim=-1)
    if biases and given.bias_hh is not None:
        given.bias_hh = torch.cat([given.bias_hh, joined(biases)], dim=-1)
