"""Who else has a GRU or an LSTM: torch, and packages that may be installed; how each is called."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib import import_module
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from recurlab.bench.candidates import Candidate, LayerCall, cases, prepare_layer
from recurlab.bench.settings import BenchSettings, Shape

# The type of the tensors, and whether float32 matrices may be multiplied in TF32.
PRECISIONS = {"bfloat16": ("bfloat16", True), "tf32": ("float32", True), "float16": ("float16", True),
              "float32": ("float32", False)}  # fmt: skip
GATES = {"gru": 3, "lstm": 4}


@dataclass(frozen=True)
class Workload:
    """A layer without options, a shape and a precision."""

    cell: str
    shape: Shape
    precision: str
    device: str
    repeats: int

    def __str__(self) -> str:
        return f"{self.cell} {self.precision} {self.shape}"

    @property
    def settings(self) -> BenchSettings:
        """What the bench calls it."""
        dtype, wide = PRECISIONS[self.precision]
        return BenchSettings(
            cells=(self.cell,), shapes=(self.shape,), backends=("fused",), dtype=dtype, tf32=wide, device=self.device,
            repeats=self.repeats,
        )  # fmt: skip

    @property
    def factory(self) -> dict[str, Any]:
        """Device and dtype, as torch's factory functions take them."""
        return {"device": self.device, "dtype": getattr(torch, self.settings.dtype)}

    def batch_first(self) -> torch.Tensor:
        """Return an input (B, T, I)."""
        return torch.randn(self.shape.batch, self.shape.steps, self.shape.features, **self.factory)


@dataclass(frozen=True)
class Peer:
    """Who else runs some workloads.

    Attributes:
        module: that is imported for it.
        cells: that it has.
        precisions: that it computes in.
        build: returns its layer and an input, from the module and a workload.
        last: whether it is timed when all others have been.
    """

    module: str
    cells: tuple[str, ...]
    precisions: tuple[str, ...]
    build: Callable[[Any, Workload], LayerCall]
    last: bool = False

    def serves(self, workload: Workload) -> bool:
        """Return whether it has the cell and the precision."""
        return workload.cell in self.cells and workload.precision in self.precisions


def _torch(module: Any, workload: Workload) -> LayerCall:
    (case,) = cases(workload.settings)
    return prepare_layer(Candidate(case, "torch"), workload.shape, workload.settings)


def _compiled(module: Any, workload: Workload) -> LayerCall:
    work = _torch(module, workload)
    return replace(work, call=torch.compile(work.layer))


def _flashrnn(module: Any, workload: Workload) -> LayerCall:
    shape, gates = workload.shape, GATES[workload.cell]
    sizes = {"weight_ih": (gates * shape.hidden, shape.features), "weight_hh": (gates, 1, shape.hidden, shape.hidden),
             "bias": (4, 1, shape.hidden)}  # fmt: skip  # of the GRU too, whose candidate has two
    weights = nn.ParameterDict(
        {name: nn.Parameter(0.05 * torch.randn(s, **workload.factory)) for name, s in sizes.items()}
    )

    def call(x: torch.Tensor) -> Any:
        projected = F.linear(x, weights["weight_ih"]).view(*x.shape[:2], gates, 1, shape.hidden)
        states, _ = module.flashrnn(
            projected, weights["weight_hh"], weights["bias"], function=workload.cell, backend="cuda_fused",
            dtype=workload.settings.dtype,
        )  # fmt: skip
        return states  # the first of them is the output

    return LayerCall(weights, call, workload.batch_first(), {})


def _xlstm(module: Any, workload: Workload) -> LayerCall:
    cell = import_module(f"{module.__name__}.blocks.slstm.cell")
    shape, dtype = workload.shape, workload.settings.dtype
    config = cell.sLSTMCellConfig(
        hidden_size=shape.hidden, num_heads=1, function="lstm", backend="cuda", dtype=dtype, batch_size=shape.batch,
        input_shape="SBGNH", output_shape="SBH",
    )  # fmt: skip
    layer = nn.Sequential(
        nn.Linear(shape.features, 4 * shape.hidden, bias=False, **workload.factory),
        cell.sLSTMCell(config).to(workload.device),
    )
    x = torch.randn(shape.steps, shape.batch, shape.features, **workload.factory)
    return LayerCall(layer, layer, x, {})


def _torchrl(module: Any, workload: Workload) -> LayerCall:
    modules, tensordict = import_module(f"{module.__name__}.modules"), import_module("tensordict")
    layer_class, states = {"gru": (modules.GRUModule, ["h"]), "lstm": (modules.LSTMModule, ["h", "c"])}[workload.cell]
    layer = layer_class(
        input_size=workload.shape.features, hidden_size=workload.shape.hidden, device=workload.device,
        in_keys=["x", *states], out_keys=["y", *(("next", state) for state in states)], default_recurrent_mode=True,
        recurrent_backend="triton", recurrent_matmul_precision="tf32" if workload.precision == "tf32" else "ieee",
    )  # fmt: skip
    x = workload.batch_first()
    starts = torch.zeros(*x.shape[:2], 1, dtype=torch.bool, device=x.device)

    def call(x: torch.Tensor) -> Any:
        return (layer(tensordict.TensorDict({"x": x, "is_init": starts}, x.shape[:2]))["y"],)

    return LayerCall(layer, call, x, {})


def _haste(module: Any, workload: Workload) -> LayerCall:
    layer_class = {"gru": module.GRU, "lstm": module.LSTM, "indrnn": module.IndRNN}[workload.cell]
    layer = layer_class(workload.shape.features, workload.shape.hidden).to(workload.device)
    x = torch.randn(workload.shape.steps, workload.shape.batch, workload.shape.features, **workload.factory)
    return LayerCall(layer, layer, x, {})


DENSE, EVERY = ("gru", "lstm"), tuple(PRECISIONS)
PEERS = {
    "torch": Peer("torch", DENSE, EVERY, _torch),
    "flashrnn": Peer("flashrnn", DENSE, ("bfloat16", "float16", "float32"), _flashrnn),
    "xlstm": Peer("xlstm", ("lstm",), ("bfloat16", "float16", "float32"), _xlstm),
    "torchrl": Peer("torchrl", DENSE, ("tf32", "float32"), _torchrl),  # its kernels are written in Triton
    "haste_pytorch": Peer("haste_pytorch", (*DENSE, "indrnn"), ("float32",), _haste),
    "torch.compile": Peer("torch", DENSE, EVERY, _compiled, last=True),
}
