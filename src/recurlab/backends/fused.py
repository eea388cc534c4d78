"""The cell's step as one compiled kernel that runs the whole sequence, forward and backward; on a CPU or a GPU."""

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from recurlab.backends.call import Call, transformed
from recurlab.backends.constant import constant
from recurlab.cells.cell import State
from recurlab.cells.layer_norm import LayerNorm
from recurlab.errors import RecurlabError
from recurlab.fuse.arguments import LEAVES, Arguments, Setting
from recurlab.fuse.cpu import compiler
from recurlab.fuse.cuda import kernel as cuda
from recurlab.fuse.kernel import Kernel
from recurlab.fuse.registry import STORAGES, kernel, storage_of
from recurlab.fuse.scan import scan


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
    starts = [direction.state for direction in directions]
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

    x, packing = call.input, call.packing
    if packing is not None and not _kernel_of(call).complete(storage):
        x, packing = call.clean_input(), None
    weights = [d.weight_ih for d in directions]
    biases = optional("bias_ih"), optional("bias_hh")
    gains: tuple[Tensor | None, Tensor | None] = None, None
    norms = [d.norm for d in directions if d.norm is not None]
    if norms:
        gains, biases = _with_states(norms, biases, joined)
    given = Arguments(
        Setting(call.cell.token, call.recurrence.kind, call.zoneout, call.hold, call.training, False, _norm(call)),
        [joined(list(states)).view(len(directions), *states[0].shape) for states in zip(*starts, strict=True)],
        x.to(storage),
        (weights[0] if len(weights) == 1 else torch.cat(weights)).to(storage),
        joined([d.weight_hh for d in directions]),
        *biases,
        *gains,
        dropout=optional("recurrent_dropout"),
    )
    seeds = [d.seed for d in directions if d.seed is not None]
    if seeds:
        given.seed = torch.stack(seeds)
    if call.resets is not None:
        cuts = [call.cuts(reverse=i == 1) for i in range(len(directions))]
        given.cuts = torch.stack([c for c in cuts if c is not None])
    if packing is not None:
        given.rows, given.order = packing.rows, packing.order
        given.places = packing.places(batch_first=given.batch_first)
    elif call.mask is not None:
        given.mask = call.mask.contiguous()
    if torch.is_grad_enabled():
        leaves = (*given.start, *(getattr(given, name) for name in LEAVES))
        if any(t is not None and t.requires_grad for t in leaves):
            given.setting = replace(given.setting, grad=True)
    output, end = scan(given)
    if dtype != storage:
        end = tuple(state.to(storage) for state in end)
    return output.to(storage), end


def _kernel_of(call: Call) -> Kernel:
    device = call.input.device
    return kernel(call.cell.token, call.recurrence.kind, storage_of(call.dtype, device), device, _norm(call))


def _dtype(storage: torch.dtype) -> torch.dtype:
    """Return the dtype of the arithmetic: half precision is for storage only, state and sums are float32."""
    return torch.float32 if storage in (torch.float16, torch.bfloat16) else storage


def _norm(call: Call) -> str:
    norm = call.directions[0].norm
    return "" if norm is None else norm.kind


def _with_states(
    norms: list[LayerNorm], biases: tuple[Tensor | None, Tensor | None], joined: Callable[[list[Tensor]], Tensor]
) -> tuple[tuple[Tensor, Tensor | None], tuple[Tensor | None, Tensor | None]]:
    """Return the gains of all directions, and the biases; those of a state come after those of the gates."""
    bias_ih, bias_hh = biases
    recurrent = [norm.gain_hh for norm in norms if norm.gain_hh is not None]
    gain_hh = joined(recurrent) if recurrent else None
    state_gains = [norm.gain_state for norm in norms if norm.gain_state is not None]
    state_biases = [norm.bias_state for norm in norms if norm.bias_state is not None]
    if state_gains and gain_hh is not None:
        gain_hh = torch.cat([gain_hh, joined(state_gains)], dim=-1)
    if state_biases and bias_hh is not None:
        bias_hh = torch.cat([bias_hh, joined(state_biases)], dim=-1)
    return (joined([norm.gain_ih for norm in norms]), gain_hh), (bias_ih, bias_hh)
