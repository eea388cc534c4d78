"""ONNX Runtime on the graph that a layer is exported to; it has no backward pass."""

from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy
import torch
from torch import Tensor

from recurlab.bench.layers import Case
from recurlab.bench.program import Pass, Program
from recurlab.bench.settings import Shape
from recurlab.bench.workload import Workload


def lacks(case: Case) -> str | None:
    """Return None, or why a case is not exported."""
    return None if case.option in ("none", "reset_before", "bidirectional") else "it is measured without options"


def build(module: Any, workload: Workload) -> Program:
    """Return the sessions of a layer, called with NumPy arrays; the state is an input only of the one for steps."""
    case, threads = workload.case, torch.get_num_threads()
    # T and B stay open in the graph: one serves all shapes of these widths.
    narrow = Workload(
        case, Shape(1, 1, workload.shape.hidden, workload.shape.features), workload.settings, workload.seed
    )
    run = _session(module, narrow, threads, ())
    x = workload.layer("eager").input.numpy()
    timed: dict[str, Pass] = {"forward": lambda: run(None, {"input": x})}
    if workload.settings.step and case.steps:
        timed["step"] = _stepping(_session(module, narrow, threads, ("hx",)), case, x[:1], workload.shape.hidden)

    def results(cotangent: Tensor) -> dict[str, Tensor]:
        return {"output": torch.from_numpy(run(None, {"input": x})[0])}

    return Program(timed, results)


def _stepping(run: Any, case: Case, row: Any, units: int) -> Pass:
    names = [f"{state}_0" for state in case.built()[0].states]
    states = [numpy.zeros((1, row.shape[1], units), row.dtype)] * len(names)

    def step() -> Any:
        nonlocal states
        output, *states = run(None, {"input": row, **dict(zip(names, states, strict=True))})
        return output

    return step


@lru_cache(maxsize=16)
def _session(module: Any, workload: Workload, threads: int, inputs: tuple[str, ...]) -> Any:
    """Return the `run` of a session."""
    from recurlab.deploy.export import export

    options = module.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    # Its threads wait for work in a loop; that of others may come next.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    with TemporaryDirectory() as folder:
        file = Path(folder) / "layer.onnx"
        export(workload.layer("eager").layer, file, inputs)  # type: ignore[arg-type]
        return module.InferenceSession(file.read_bytes(), options, providers=["CPUExecutionProvider"]).run
