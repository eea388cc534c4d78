"""The reference: a Python loop over the cell's step, whose numbers every other backend must reproduce."""

from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from recurlab.backends import exported
from recurlab.backends.call import Call, Direction, autocasts
from recurlab.backends.scan import exporting
from recurlab.cells.cell import State
from recurlab.cells.recur import bind
from recurlab.cells.zoneout import keep_mask
from recurlab.fuse.memory import LINE

Steps = tuple[Tensor | None, ...]


def supports(call: Call) -> str | None:
    """Return None: the reference serves every call."""
    return None


def source(call: Call) -> str | None:
    """Return None: nothing is generated for this backend."""
    return None


def run(call: Call) -> tuple[Tensor, State]:
    """Return the output (T, B, directions * H) and the states after the sequence, (directions, B, H) each."""
    if exporting():
        return exported.run(call, _project, _loop)
    results = [_scan(call, direction, reverse=i == 1) for i, direction in enumerate(call.directions)]
    output = torch.cat([output for output, _ in results], dim=-1) if len(results) > 1 else results[0][0]
    return output, tuple(torch.stack(states) for states in zip(*(state for _, state in results), strict=True))


def _scan(call: Call, direction: Direction, reverse: bool) -> tuple[Tensor, State]:
    # Step by step: one product for all steps would round differently from that of a single step (`RNN.step`).
    projected = [_project(direction, x) for x in _steps_of(call.clean_input())]
    storage, device = projected[0].dtype, call.input.device
    # Half precision is for storage only: the state and all sums of the recurrence are float32.
    dtype = torch.float32 if storage in (torch.float16, torch.bfloat16) else storage
    with torch.autocast(device.type, enabled=False) if autocasts(device) else nullcontext():
        output, state = _loop(call, direction, [x.to(dtype) for x in projected], reverse)
    return output.to(storage), tuple(s.to(storage) for s in state)


def _steps_of(x: Tensor) -> list[Tensor]:
    """Return the steps (B, I) of an input (T, B, I), each at an address that is a multiple of 64 bytes.

    That is where torch allocates a tensor of a single step. The rounding of a product may depend on
    the alignment of its operands, as MKL's does on AMD's processors; so a single step and a whole
    sequence give the same numbers.
    """
    size = x.shape[1] * x.shape[2]
    spaced = F.pad(x.flatten(1), (0, -size % (LINE // x.element_size())))  # copies, even where no padding is needed
    # Unbind once: indexing x[t] in the loop would make the backward quadratic in T.
    return list(spaced[:, :size].view(x.shape).unbind(0))


def _project(direction: Direction, x: Tensor) -> Tensor:
    bias = direction.bias_ih if direction.norm is None else None  # otherwise it is added after the normalisation
    return F.linear(x, direction.weight_ih, bias)


def _loop(call: Call, direction: Direction, projected: list[Tensor], reverse: bool) -> tuple[Tensor, State]:
    cell, length, dtype = call.cell, len(projected), projected[0].dtype
    bias, dropout = (None if t is None else t.to(dtype) for t in (direction.bias_hh, direction.recurrent_dropout))
    norm = None if direction.norm is None else direction.norm.to(dtype)
    if norm is not None:
        shift = None if direction.bias_ih is None else direction.bias_ih.to(dtype)
        projected = [norm.normalized(x, norm.gain_ih, shift, len(cell.gates)) for x in projected]
    recur = bind(call.recurrence, cell, direction.weight_hh.to(dtype), bias, dropout, norm)
    mask, cuts = _by_step(call.mask, length), _by_step(call.cuts(reverse=reverse), length)
    keeps = [_by_step(mask, length, columns=False) for mask in _keep_masks(call, direction.seed)]

    # Copied, so that its memory layout is that of the states of later steps.
    state = tuple(s.to(dtype).clone(memory_format=torch.contiguous_format) for s in direction.state)
    outputs: list[Tensor] = [state[0]] * length
    held = torch.zeros_like(state[0])
    for t in reversed(range(length)) if reverse else range(length):
        before = state
        if (cut := cuts[t]) is not None:
            before = tuple(s.masked_fill(cut, 0) for s in before)
        state = cell.advance(cell.by_gate(*projected[t].chunk(len(cell.gates), dim=-1)), before, recur)
        state = _zoneout(call, state, before, [keep[t] for keep in keeps])
        outputs[t] = state[0]
        if (valid := mask[t]) is not None:
            outputs[t] = torch.where(valid, state[0], held)
            state = tuple(torch.where(valid, new, old) for new, old in zip(state, before, strict=True))
            held = outputs[t] if call.hold else held
    return torch.stack(outputs), state


def _keep_masks(call: Call, seed: Tensor | None) -> list[Tensor | None]:
    """Return the masks of zoneout for each state, (T, B, H), or None."""
    steps, batch = call.input.shape[:2]
    shape = (steps, batch, call.directions[0].state[0].shape[1])
    return [keep_mask(seed, s, shape, p) if seed is not None and p else None for s, p in enumerate(call.zoneout)]


def _zoneout(call: Call, new: State, old: State, keep: list[Any]) -> State:
    """Keep a unit's previous value where its mask says so; in evaluation, the expectation (arXiv 1606.01305)."""
    if not any(call.zoneout):
        return new
    if call.training:
        return tuple(n if k is None else torch.where(k, o, n) for n, o, k in zip(new, old, keep, strict=True))
    return tuple(n if p == 0 else p * o + (1 - p) * n for n, o, p in zip(new, old, call.zoneout, strict=True))


def _by_step(rows: Tensor | None, length: int, *, columns: bool = True) -> Steps:
    """Return the T rows of a tensor, as columns (B, 1) if `columns`; of None, T times None."""
    if rows is None:
        return (None,) * length
    return (rows.unsqueeze(-1) if columns else rows).unbind(0)
