"""Packages with kernels for a GPU: how the layers of each are called."""

from importlib import import_module
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from recurlab.bench.layers import LayerCall
from recurlab.bench.workload import Workload

GATES = {"gru": 3, "lstm": 4}


def flashrnn(module: Any, workload: Workload) -> LayerCall:
    """Return FlashRNN's kernels behind an input projection."""
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


def xlstm(module: Any, workload: Workload) -> LayerCall:
    """Return xLSTM's sLSTM cell, with an LSTM's function, behind an input projection."""
    cell = import_module(f"{module.__name__}.blocks.slstm.cell")
    shape, dtype = workload.shape, workload.settings.dtype
    config = cell.sLSTMCellConfig(
        hidden_size=shape.hidden, num_heads=1, function="lstm", backend="cuda", dtype=dtype, batch_size=shape.batch,
        input_shape="SBGNH", output_shape="SBH",
    )  # fmt: skip
    layer = nn.Sequential(
        nn.Linear(shape.features, 4 * shape.hidden, bias=False, **workload.factory),
        cell.sLSTMCell(config).to(workload.settings.device),
    )
    x = torch.randn(shape.steps, shape.batch, shape.features, **workload.factory)
    return LayerCall(layer, layer, x, {})


def torchrl(module: Any, workload: Workload) -> LayerCall:
    """Return TorchRL's module, whose kernels are written in Triton."""
    modules, tensordict = import_module(f"{module.__name__}.modules"), import_module("tensordict")
    layer_class, states = {"gru": (modules.GRUModule, ["h"]), "lstm": (modules.LSTMModule, ["h", "c"])}[workload.cell]
    layer = layer_class(
        input_size=workload.shape.features, hidden_size=workload.shape.hidden, device=workload.settings.device,
        in_keys=["x", *states], out_keys=["y", *(("next", state) for state in states)], default_recurrent_mode=True,
        recurrent_backend="triton", recurrent_matmul_precision="tf32" if workload.precision == "tf32" else "ieee",
    )  # fmt: skip
    x = workload.batch_first()
    starts = torch.zeros(*x.shape[:2], 1, dtype=torch.bool, device=x.device)

    def call(x: torch.Tensor) -> Any:
        return (layer(tensordict.TensorDict({"x": x, "is_init": starts}, x.shape[:2]))["y"],)

    return LayerCall(layer, call, x, {})


def haste(module: Any, workload: Workload) -> LayerCall:
    """Return haste's layer."""
    layer_class = {"gru": module.GRU, "lstm": module.LSTM, "indrnn": module.IndRNN}[workload.cell]
    layer = layer_class(workload.shape.features, workload.shape.hidden).to(workload.settings.device)
    x = torch.randn(workload.shape.steps, workload.shape.batch, workload.shape.features, **workload.factory)
    return LayerCall(layer, layer, x, {})
