"""Who else runs a layer: torch, and packages that may be installed."""

import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from importlib import import_module, metadata
from typing import Any

import torch

from recurlab import __version__
from recurlab.backends import BACKENDS
from recurlab.bench import gpu_packages, jax_scan, keras_layer, onnx_session
from recurlab.bench.layers import Candidate, Case, LayerCall, torch_class
from recurlab.bench.program import Program, Runner
from recurlab.bench.settings import DEVICES, BenchSettings, Shape
from recurlab.bench.workload import Workload
from recurlab.errors import RecurlabError, one_line

# The type of the tensors, and whether float32 matrices may be multiplied in TF32.
PRECISIONS = {"bfloat16": ("bfloat16", True), "tf32": ("float32", True), "float16": ("float16", True),
              "float32": ("float32", False)}  # fmt: skip


@dataclass(frozen=True)
class Peer:
    """Who else runs some workloads.

    Attributes:
        module: that is imported for it.
        cells: that it has, each with its own recurrence and without options; empty: see `lacks`.
        precisions: that it computes in.
        build: returns its layer and an input, or its own program, from the module and a workload.
        last: whether it is timed when all others have been.
        devices: that it runs on.
        extra: of this package, that installs it.
        environment: variables that are set before it is imported, unless they are.
        lacks: why it has not a case, or None.
        alike: whether its layer takes the arguments and has the parameters of ours.
    """

    module: str
    cells: tuple[str, ...]
    precisions: tuple[str, ...]
    build: Callable[[Any, Workload], LayerCall | Program]
    last: bool = False
    devices: tuple[str, ...] = DEVICES
    extra: str = ""
    environment: Mapping[str, str] = field(default_factory=dict)
    lacks: Callable[[Case], str | None] | None = None
    alike: bool = False

    def refusal(self, workload: Workload) -> str | None:
        """Return None, or why it does not run a workload."""
        case, device = workload.case, workload.settings.device
        if device not in self.devices:
            return f"it is measured with device={self.devices[0]} alone"
        if workload.precision not in self.precisions:
            return f"it is measured in {', '.join(self.precisions)} alone"
        if self.lacks is not None:
            return self.lacks(case)
        plain = case.option == "none" and case.cell in self.cells
        return None if plain and case.is_usual else f"it has only {', '.join(self.cells)}, without options"

    def absent(self) -> str | None:
        """Return None, or why it can't be imported."""
        try:
            self.load()
        except RecurlabError as error:
            return str(error)
        return None

    def load(self) -> Any:
        """Return its module.

        Raises:
            RecurlabError: if it is not installed, or can't be imported.
        """
        for name, value in self.environment.items():
            os.environ.setdefault(name, value)
        try:
            return import_module(self.module)
        except Exception as error:  # some look for a compiler or a GPU
            if isinstance(error, ModuleNotFoundError) and error.name == self.module:
                hint = f": pip install 'recurlab[{self.extra}]'" if self.extra else ""
                raise RecurlabError(f"not installed{hint}") from error
            raise RecurlabError(f"can't be imported: {type(error).__name__}: {one_line(error)}") from error

    def program(self, workload: Workload) -> Program:
        """Return what it runs; raise RecurlabError if it is not installed, or has no such layer."""
        made = self.build(self.load(), workload)
        return made if isinstance(made, Program) else Runner(made, input_grad=workload.settings.input_grad)

    def version(self) -> str:
        """Return the version of its module, once that has been imported; "" where it tells none."""
        module = sys.modules.get(self.module)
        try:
            return str(getattr(module, "__version__", "") or metadata.version(self.module))
        except metadata.PackageNotFoundError:
            return ""


def program_of(candidate: Candidate, shape: Shape, settings: BenchSettings, seed: int = 0) -> Program:
    """Return what a candidate runs, for numbers that are the same for the same seed.

    Raises:
        RecurlabError: if another package is not installed, or has no such layer.
    """
    workload = Workload(candidate.case, shape, settings, seed)
    if candidate.backend in BACKENDS:
        return Runner(workload.layer(candidate.backend), input_grad=settings.input_grad)
    return PEERS[candidate.backend].program(workload)


def version_of(backend: str) -> str:
    """Return the version of what runs a candidate, or ""."""
    return PEERS[backend].version() if backend in PEERS else __version__


def _torch(module: Any, workload: Workload) -> LayerCall:
    return workload.layer("torch")


def _compiled(module: Any, workload: Workload) -> LayerCall:
    return workload.layer("compile")


def _compiled_torch(module: Any, workload: Workload) -> LayerCall:
    work = workload.layer("torch")
    return replace(work, call=torch.compile(work.layer))


def _no_layer_of_torch(case: Case) -> str | None:
    return None if torch_class(case) else "torch has no layer that computes this"


DENSE, EVERY = ("gru", "lstm"), tuple(PRECISIONS)
GPU, CPU = ("cuda",), ("cpu",)
PEERS = {
    "torch": Peer("torch", DENSE, (*EVERY, "float64"), _torch, lacks=_no_layer_of_torch, alike=True),
    "compile": Peer("torch", (), (*EVERY, "float64"), _compiled, lacks=lambda case: None, alike=True),
    "jax": Peer(
        "jax", (), ("float32",), jax_scan.build, devices=CPU, extra="bench", environment={"JAX_PLATFORMS": "cpu"},
        lacks=jax_scan.lacks,
    ),
    "onnxruntime": Peer(
        "onnxruntime", (), ("float32",), onnx_session.build, devices=CPU, extra="bench", lacks=onnx_session.lacks
    ),
    "keras": Peer(
        "keras", (), ("float32",), keras_layer.build, devices=CPU, extra="bench",
        environment={"KERAS_BACKEND": "torch"}, lacks=keras_layer.lacks,
    ),
    "flashrnn": Peer("flashrnn", DENSE, ("bfloat16", "float16", "float32"), gpu_packages.flashrnn, devices=GPU),
    "xlstm": Peer("xlstm", ("lstm",), ("bfloat16", "float16", "float32"), gpu_packages.xlstm, devices=GPU),
    "torchrl": Peer("torchrl", DENSE, ("tf32", "float32"), gpu_packages.torchrl, devices=GPU),
    "haste_pytorch": Peer("haste_pytorch", (*DENSE, "indrnn"), ("float32",), gpu_packages.haste, devices=GPU),
    "torch.compile": Peer("torch", DENSE, EVERY, _compiled_torch, last=True, lacks=_no_layer_of_torch, alike=True),
}  # fmt: skip
