"""The emulated CUDA kernels in float64: whatever is wrong by more than rounding shows itself at once."""

import re
from dataclasses import replace

import torch

from emulated import DEVICE
from recurlab.fuse import registry
from recurlab.fuse.abi import Structs
from recurlab.fuse.cuda import kernel as cuda
from recurlab.fuse.cuda import normalized_plan
from recurlab.fuse.cuda.plan import Storage

# Functions of the kernels that have the digits of float32.
EXACT = {"sigmoid": "1 / (1 + __builtin_exp(-x))", "tanh": "__builtin_tanh(x)"}
PLAN = normalized_plan.Layout.plan.fget


def text(source):
    """Return a kernel's text with float64 for float32."""
    before, after = source.split(DEVICE)
    after = re.sub(r"::(\w+)f\(", r"__builtin_\1(", re.sub(r"\bfloat\b", "double", after))
    after = after.replace("alignas(SAMPLES * sizeof(double)) ", "")  # shared memory is aligned to 16 bytes
    after = after.replace("PIECES = OWN / 4", "PIECES = OWN / 2")
    for name, exact in EXACT.items():
        head = f"DEVICE vec {name}(vec x) {{"
        after, count = re.subn(rf"{re.escape(head)}.*?}}\n", f"{head} return {exact}; }}\n", after, flags=re.DOTALL)
        assert count == 1
    return f"{before}{DEVICE}{after}"


def _twice(layout):
    plan = PLAN(layout)
    return replace(plan, shared=2 * plan.shared, exchange=2 * plan.exchange)


def double(gpu, monkeypatch):
    """Let an emulated GPU compute layers with layer normalisation in float64."""
    storages = {**cuda.STORAGES, torch.float64: Storage.FLOAT32}
    monkeypatch.setattr(cuda, "STORAGES", storages)
    monkeypatch.setitem(registry.STORAGES, "cpu", tuple(storages))
    monkeypatch.setattr(cuda, "Structs", lambda *args, **names: Structs(*args[:3], torch.float64, *args[4:], **names))
    monkeypatch.setattr(normalized_plan.Layout, "plan", property(_twice))
    return gpu.use(edit=text)
