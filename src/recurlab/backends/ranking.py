"""Which of cuDNN and the fused kernels is taken for a call that both serve, by what has been measured."""

import torch
from torch._compile import _disable_dynamo

from recurlab.backends import cudnn
from recurlab.backends.call import Call
from recurlab.backends.constant import constant
from recurlab.cells.cell import cell_of
from recurlab.fuse import measured
from recurlab.fuse.cuda import gpu
from recurlab.fuse.cuda import kernel as cuda
from recurlab.fuse.measured import Reach


def fused_is_faster(call: Call) -> bool:
    """Return whether a training step has been measured to take less time in the fused kernels than in cuDNN."""
    batch = call.input.shape[1]  # where a compiled graph leaves it open, the graph holds while the answer is the same
    return any(low <= batch <= high for low, high in _faster(*_layer(call)))


def known(call: Call) -> str:
    """Return a line on what has been measured of the two for a call, or that nothing has."""
    layer, batch = _layer(call), call.input.shape[1]
    row = next((row for low, high, row in _in_reach(*layer) if low <= batch <= high), None)
    if row is not None:
        return str(row)
    cell, recurrence, capability, dtype, hidden = _key(*layer)
    near = f"near {measured.layer(cell, recurrence, dtype, hidden, batch)} "
    if capability not in measured.capabilities():
        near = ""
    return f"fused has not been measured {near}on compute capability {capability}"


def precision(dtype: str, fused_tf32: bool, cudnn_tf32: bool) -> str:
    """Return the name of a precision in measurements, for a dtype and whether each backend may use TF32."""
    if dtype != "float32":
        return dtype
    names = {True: "tf32", False: "float32"}
    # Settings that differ, unlike torch's defaults, are not measured.
    return names[fused_tf32] if fused_tf32 == cudnn_tf32 else f"{names[fused_tf32]} beside {names[cudnn_tf32]}"


def _layer(call: Call) -> tuple[str, str, str, str, int]:
    """Return the key of a layer's measurements, of values that a compiled graph can hold."""
    units = call.directions[0].state[0].shape[1]
    return call.cell.token, call.recurrence.kind, str(call.dtype), str(call.input.device), units


def _faster(token: str, recurrence: str, dtype: str, device: str, units: int) -> tuple[tuple[int, int], ...]:
    """Return the ranges of batch sizes, as least and most samples, for which the fused kernels are faster."""
    rows = _in_reach(token, recurrence, dtype, device, units)
    return tuple((low, high) for low, high, row in rows if row.forward_backward_ratio < 1)


# In a compiled graph the answer is a constant: the table does not change within a process.
_faster = constant(_faster)


def _in_reach(token: str, recurrence: str, dtype: str, device: str, units: int) -> tuple[Reach, ...]:
    return measured.in_reach(*_key(token, recurrence, dtype, device, units)) if measured.capabilities() else ()


# torch's TF32 settings can't be traced after a graph break.
@_disable_dynamo
def _key(token: str, recurrence: str, dtype: str, device: str, units: int) -> tuple[str, str, str, str, int]:
    """Return the cell, recurrence, compute capability, precision and hidden size of the rows for a layer."""
    capability = gpu.dotted(gpu.properties(torch.device(device)).capability)
    name = precision(dtype.removeprefix("torch."), cuda.tf32_allowed(), cudnn.tf32_allowed())
    return cudnn.name_of(cell_of(token)), recurrence, capability, name, units
