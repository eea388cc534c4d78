"""A GPU that is not there: layers on CPU tensors run the CUDA kernels, under emulation."""

from collections.abc import Callable, Hashable
from dataclasses import dataclass, field, replace
from functools import cache
from types import SimpleNamespace
from unittest.mock import patch

from emulated import Emulated
from recurlab.fuse import kernel, registry
from recurlab.fuse.cuda import dense_plan, diagonal_plan, normalized_plan
from recurlab.fuse.cuda import kernel as cuda
from recurlab.fuse.cuda.dense_plan import Layout
from recurlab.fuse.cuda.gpu import Properties
from recurlab.fuse.step.trace import trace

HOPPER, AMPERE = (9, 0), (8, 0)  # compute capabilities, with and without clusters
H100 = Properties("H100", HOPPER, 132, 227 << 10)
A100 = Properties("A100", AMPERE, 108, 163 << 10)
ADA = Properties("RTX 4090", (8, 9), 128, 99 << 10)
BLACKWELL = Properties("RTX 5090", (12, 0), 170, 99 << 10)
SMALL_GPU = Properties("emulated", HOPPER, 8, 227 << 10)
GPUS = {"h100": H100, "a100": A100, "ada": ADA, "blackwell": BLACKWELL}
_traced = cache(trace)


def traced(cell, dtype, norm):
    """Return a step, which is the same on every GPU, traced once."""
    return (_traced if isinstance(cell, Hashable) else trace)(cell, dtype, norm)


@dataclass
class Launch:
    """What was launched, and how: the arguments of `Module.launch`."""

    name: str
    constants: dict[str, int]
    blocks: int
    threads: int
    shared: int = 0
    cluster: int = 1
    cooperative: bool = False


@dataclass
class EmulatedGPU:
    """The GPU that the kernels see.

    Attributes:
        properties: what it has.
        seed: of the order in which threads run, see `Emulated`.
        edit: changes the text of a kernel before it is compiled.
        dense: the arguments of the `Layout` to take, and `held` in place of what it would be; empty: the planner's.
        diagonal: constants in place of a diagonal plan's.
        normalized: of kernels with layer normalisation: the most threads, and, of dense ones, the `Layout` to take.
        launches: what has been launched so far.
    """

    properties: Properties = SMALL_GPU
    seed: int = 0
    edit: Callable[[str], str] = str
    dense: dict[str, int] = field(default_factory=dict)
    diagonal: dict[str, int] = field(default_factory=dict)
    normalized: dict[str, int] = field(default_factory=dict)
    launches: list[Launch] = field(default_factory=list)

    def use(self, **changes):
        """Change the GPU: its attributes, or its properties by their names."""
        mine = {name: changes.pop(name) for name in list(changes) if name in vars(self)}
        vars(self).update(mine, properties=replace(self.properties, **changes))
        registry._kernels.clear()  # they were laid out for another
        return self

    def install(self, monkeypatch):
        monkeypatch.setitem(registry.MAKERS, "cpu", cuda.CudaKernel)
        monkeypatch.setitem(registry.STORAGES, "cpu", registry.STORAGES["cuda"])
        monkeypatch.setattr(registry, "_kernels", {})
        monkeypatch.setattr(kernel, "trace", traced)
        monkeypatch.setattr(cuda, "gpu", SimpleNamespace(properties=lambda _: self.properties, Module=self._module))
        monkeypatch.setattr(cuda, "_note_unmeasured", lambda _: None)
        monkeypatch.setattr(cuda, "diagonal_plan", SimpleNamespace(diagonal=self._diagonal))
        planned = SimpleNamespace(normalized=self._normalized, unfit=normalized_plan.unfit)
        monkeypatch.setattr(cuda, "normalized_plan", planned)
        monkeypatch.setattr(cuda, "dense_plan", SimpleNamespace(dense=self._dense, unfit=dense_plan.unfit))
        return self

    def _module(self, source, _):
        head = source.partition("\n//")[0].splitlines()
        constants = {name: int(value) for _, name, value in map(str.split, head)}
        module = Emulated(self.edit(source), seed=self.seed, room=self.properties.multiprocessors)

        def launch(name, problem, **sizes):
            self.launches.append(Launch(name, constants, **sizes))
            assert sizes.get("shared", 0) <= self.properties.shared
            module.launch(name, problem, **sizes)

        return SimpleNamespace(launch=launch)

    def _dense(self, task, device):
        if not self.dense:
            return dense_plan.dense(task, device)
        wanted = {**self.dense}
        held = wanted.pop("held", None)
        layout = Layout(task, device, **wanted)
        if held is not None:
            vars(layout)["held"] = held  # in place of what the layout finds, before it looks
        assert layout.fits, layout
        return layout.plan

    def _normalized(self, task, kind, device):
        wanted = {**self.normalized}
        with patch.object(normalized_plan, "THREADS", wanted.pop("threads", normalized_plan.THREADS)):
            if kind == "diagonal" or not wanted:
                return normalized_plan.normalized.__wrapped__(task, kind, device)
            layout = normalized_plan.Layout(task, True, device, **wanted)
            assert layout.fits, layout
            return layout.plan

    def _diagonal(self, task, device):
        plan = diagonal_plan.diagonal(task, device)
        constants = {**dict(plan.constants), **self.diagonal}
        threads = constants["THREADS"]
        lanes = plan.chunks * task.elements // constants["VECTOR"]
        return replace(plan, constants=tuple(constants.items()), blocks=-(-lanes // threads), threads=threads)
