"""One step of a layer on a CPU, for agents and streams: one call of a compiled function for all layers."""

import ctypes
import struct
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from recurlab.fuse.abi import address
from recurlab.fuse.cpu.kernel import CpuKernel

SHARED = 1 << 18  # numbers of the weights from which on it takes less time to share a step among threads
READ = 4  # samples of which the products take as long as it takes to read the weights
SAMPLES = 64  # the most for which the weights are read as they lie
CODES = {torch.float32: "f", torch.float64: "d"}


class Layer(ctypes.Structure):
    """The weights of one layer, see `step.h`; null for a bias that is not there."""

    _fields_ = [
        *((name, ctypes.c_void_p) for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")),
        ("features", ctypes.c_long),
    ]


class Stepper:
    """A step of layers whose weights are known.

    Args:
        made: the kernels of their cell.
        layers: for each, weight_ih (G*H, I), weight_hh in the layout of its recurrence, and the
            biases (G*H,) or None; contiguous, and alive and unmoved while the step is called.
        width: units that feed a unit.
        zoneout: for each state, the probability of which the expectation is taken.
    """

    def __init__(
        self,
        made: CpuKernel,
        layers: Sequence[Sequence[Tensor | None]],
        width: int,
        zoneout: Sequence[float],
    ) -> None:
        self._made = made
        first = layers[0][0]
        assert first is not None
        self._states, self.units = len(made.cell.states), first.shape[0] // len(made.cell.gates)
        self._layers = (Layer * len(layers))(
            *(Layer(*map(address, layer), weight.shape[1]) for layer in layers if (weight := layer[0]) is not None)
        )
        self._constant = ctypes.addressof(self._layers), len(layers)
        self._zoneout, self._width = [*zoneout], width
        self._packer = struct.Struct(f"{4 + 2 * self._states}P5l{self._states}{CODES[made.storage]}")
        self._numbers = sum(tensor.numel() for layer in layers for tensor in layer if tensor is not None)

    @cached_property
    def _call(self) -> Any:
        return self._made.step  # compiled when first needed

    def run(self, input: Tensor, start: Sequence[Tensor] | None, resets: Tensor | None) -> tuple[Tensor, list[Tensor]]:
        """Return the output (B, H) and the states after the step, (layers, B, H) each.

        Args:
            input: (B, I), contiguous as all tensors here; B is at most `SAMPLES`.
            start: the states before it, (layers, B, H) each; None for zero.
            resets: boolean (B,), True where the states before it are zero, or None.
        """
        batch, units = input.shape[0], self.units
        output = input.new_empty(batch, units)
        end = [input.new_empty(len(self._layers), batch, units) for _ in range(self._states)]
        packed = self._packer.pack(
            input.data_ptr(),
            output.data_ptr(),
            *((0,) * self._states if start is None else [state.data_ptr() for state in start]),
            *[state.data_ptr() for state in end],
            0 if resets is None else resets.data_ptr(),
            *self._constant,
            batch,
            units,
            self._width,
            torch.get_num_threads() if self._numbers * max(1, batch // READ) >= SHARED else 1,
            *self._zoneout,
        )
        self._call(packed)
        return output, end
