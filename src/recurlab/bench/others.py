"""Who else has a GRU or an LSTM: torch, and packages that may be installed; how each is called."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib import import_module
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from recurlab.bench.candidates import Candidate, Work, cases, prepare
from recurlab.bench.settings import Settings, Shape

# The type of the tensors, and whether float32 matrices may be multiplied in TF32.
PRECISIONS = {"bfloat16": ("bfloat16", True), "tf32": ("float32", True), "float16": ("float16", True),
              "float32": ("float32", False)}  # fmt: skip
GATES = {"gru": 3, "lstm": 4}


@dataclass(frozen=True)
class Problem:
    """A layer without options, a shape and a precision."""

    cell: str
    shape: Shape
    precision: str
    device: str
    repeats: int

    def __str__(self) -> str:
        return f"{self.cell} {self.precision} {self.shape}"

    @property
    def settings(self) -> Settings:
        """What the bench calls it."""
        dtype, wide = PRECISIONS[self.precision]
        return Settings(
            cells=(self.cell,), shapes=(self.shape,), backends=("fused",), dtype=dtype, tf32=wide, device=self.device,
            repeats=self.repeats,
        )  # fmt: skip

    @property
    def place(self) -> dict[str, Any]:
        """Where tensors are, and their type."""
        return {"device": self.device, "dtype": getattr(torch, self.settings.dtype)}

    def batch_first(self) -> torch.Tensor:
        """Return an input (B, T, I)."""
        return torch.randn(self.shape.batch, self.shape.steps, self.shape.features, **self.place)


@dataclass(frozen=True)
class Peer:
    """Who else runs some problems.

    Attributes:
        module: that is imported for it.
        cells: that it has.
        precisions: that it computes in.
        build: returns its layer and an input, from the module and a problem.
        last: whether it is timed when all others have been.
    """

    module: str
    cells: tuple[str, ...]
    precisions: tuple[str, ...]
    build: Callable[[Any, Problem], Work]
    last: bool = False

    def serves(self, problem: Problem) -> bool:
        """Return whether it has the cell and the precision."""
        return problem.cell in self.cells and problem.precision in self.precisions


def _torch(module: Any, problem: Problem) -> Work:
    (case,) = cases(problem.settings)
    return prepare(Candidate(case, "torch"), problem.shape, problem.settings)


def _compiled(module: Any, problem: Problem) -> Work:
    work = _torch(module, problem)
    return replace(work, call=torch.compile(work.layer))


def _flashrnn(module: Any, problem: Problem) -> Work:
    shape, gates = problem.shape, GATES[problem.cell]
    sizes = {"weight_ih": (gates * shape.hidden, shape.features), "weight_hh": (gates, 1, shape.hidden, shape.hidden),
             "bias": (4, 1, shape.hidden)}  # fmt: skip  # of the GRU too, whose candidate has two
    weights = nn.ParameterDict(
        {name: nn.Parameter(0.05 * torch.randn(s, **problem.place)) for name, s in sizes.items()}
    )

    def call(x: torch.Tensor) -> Any:
        projected = F.linear(x, weights["weight_ih"]).view(*x.shape[:2], gates, 1, shape.hidden)
        states, _ = module.flashrnn(
            projected, weights["weight_hh"], weights["bias"], function=problem.cell, backend="cuda_fused",
            dtype=problem.settings.dtype,
        )  # fmt: skip
        return states  # the first of them is the output

    return Work(weights, call, problem.batch_first(), {})


def _xlstm(module: Any, problem: Problem) -> Work:
    cell = import_module(f"{module.__name__}.blocks.slstm.cell")
    shape, dtype = problem.shape, problem.settings.dtype
    config = cell.sLSTMCellConfig(
        hidden_size=shape.hidden, num_heads=1, function="lstm", backend="cuda", dtype=dtype, batch_size=shape.batch,
        input_shape="SBGNH", output_shape="SBH",
    )  # fmt: skip
    layer = nn.Sequential(
        nn.Linear(shape.features, 4 * shape.hidden, bias=False, **problem.place),
        cell.sLSTMCell(config).to(problem.device),
    )
    x = torch.randn(shape.steps, shape.batch, shape.features, **problem.place)
    return Work(layer, layer, x, {})


def _torchrl(module: Any, problem: Problem) -> Work:
    modules, tensordict = import_module(f"{module.__name__}.modules"), import_module("tensordict")
    kind, states = {"gru": (modules.GRUModule, ["h"]), "lstm": (modules.LSTMModule, ["h", "c"])}[problem.cell]
    layer = kind(
        input_size=problem.shape.features, hidden_size=problem.shape.hidden, device=problem.device,
        in_keys=["x", *states], out_keys=["y", *(("next", state) for state in states)], default_recurrent_mode=True,
        recurrent_backend="triton", recurrent_matmul_precision="tf32" if problem.precision == "tf32" else "ieee",
    )  # fmt: skip
    x = problem.batch_first()
    starts = torch.zeros(*x.shape[:2], 1, dtype=torch.bool, device=x.device)

    def call(x: torch.Tensor) -> Any:
        return (layer(tensordict.TensorDict({"x": x, "is_init": starts}, x.shape[:2]))["y"],)

    return Work(layer, call, x, {})


def _haste(module: Any, problem: Problem) -> Work:
    kind = {"gru": module.GRU, "lstm": module.LSTM, "indrnn": module.IndRNN}[problem.cell]
    layer = kind(problem.shape.features, problem.shape.hidden).to(problem.device)
    x = torch.randn(problem.shape.steps, problem.shape.batch, problem.shape.features, **problem.place)
    return Work(layer, layer, x, {})


DENSE, EVERY = ("gru", "lstm"), tuple(PRECISIONS)
PEERS = {
    "torch": Peer("torch", DENSE, EVERY, _torch),
    "flashrnn": Peer("flashrnn", DENSE, ("bfloat16", "float16", "float32"), _flashrnn),
    "xlstm": Peer("xlstm", ("lstm",), ("bfloat16", "float16", "float32"), _xlstm),
    "torchrl": Peer("torchrl", DENSE, ("tf32", "float32"), _torchrl),  # its kernels are written in Triton
    "haste_pytorch": Peer("haste_pytorch", (*DENSE, "indrnn"), ("float32",), _haste),
    "torch.compile": Peer("torch", DENSE, EVERY, _compiled, last=True),
}
