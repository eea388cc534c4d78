"""The layers of Keras, run by torch."""

from typing import Any

import torch
from torch import Tensor

from recurlab.bench.layers import Case, LayerCall
from recurlab.bench.program import Runner
from recurlab.bench.workload import Workload
from recurlab.cells.gru import GRU
from recurlab.cells.lstm import LSTM
from recurlab.cells.rnn import Elman
from recurlab.errors import RecurlabError


def lacks(case: Case) -> str | None:
    """Return None, or why Keras has no layer for a case."""
    cell, recurrence = case.built()
    known = recurrence.kind == "dense" and cell in (GRU(), GRU(reset="before"), LSTM(), Elman("tanh"), Elman("relu"))
    return None if known and case.option in ("none", "reset_before") else "Keras has no layer that computes this"


def build(module: Any, workload: Workload) -> Runner:
    """Return the layer of Keras with the weights of ours."""
    from recurlab.interop.layers import to_arrays

    if module.backend.backend() != "torch":
        raise RecurlabError(f"KERAS_BACKEND={module.backend.backend()!r}: it is measured with torch alone")
    ours = workload.layer("eager")
    cell, units = workload.case.built()[0], workload.shape.hidden
    if isinstance(cell, GRU):
        theirs = module.layers.GRU(units, return_sequences=True, reset_after=cell.reset == "after")
    elif isinstance(cell, LSTM):
        theirs = module.layers.LSTM(units, return_sequences=True)
    else:
        assert isinstance(cell, Elman)
        theirs = module.layers.SimpleRNN(units, return_sequences=True, activation=cell.activation)
    x = ours.input.transpose(0, 1).contiguous()
    theirs.build(tuple(x.shape))
    arrays = to_arrays(ours.layer, "keras")  # type: ignore[arg-type]
    theirs.set_weights([arrays[weight.name] for weight in theirs.weights])

    def results(cotangent: Tensor) -> dict[str, Tensor]:
        leaf = x.detach().clone().requires_grad_()
        output = theirs(leaf)
        (gradient,) = torch.autograd.grad(output, leaf, cotangent.transpose(0, 1))
        found = {"output": output.detach(), "gradient of input": gradient}
        return {name: tensor.transpose(0, 1) for name, tensor in found.items()}

    work = LayerCall(theirs, lambda x: (theirs(x),), x, {})
    return Runner(work, input_grad=workload.settings.input_grad, results=results)
