"""The CUDA programs of cells as tests compile them, for a GPU that need not be there."""

import functools

import torch

import users_cells
from package_cells import FORMS
from recurlab.fuse.abi import Structs
from recurlab.fuse.cuda import nvrtc, plan
from recurlab.fuse.cuda.faults import Fault
from recurlab.fuse.cuda.source import cuda_source
from recurlab.fuse.step.generate import generate
from recurlab.fuse.step.trace import trace

CELLS = FORMS | {name: users_cells.CELLS[name] for name in ("mingru", "two_phases_and_peepholes")}
# Bytes and place of a type of storage, and the product.
STORAGES = {"float32": (4, 0, 2), "tf32": (4, 0, 1), "bfloat16": (2, 1, 0), "float16": (2, 2, 0)}


def task_of(cell, storage, *, backward, units=128, steps=100, batch=64, noisy=True, directions=2, norm=""):
    itemsize, place, product = STORAGES[storage]
    phases = plan.phases_of(cell.phases)
    shape = (len(cell.gates), len(cell.states), phases, steps, batch, units, units, directions)
    return plan.Task(*shape, itemsize, place, noisy, backward, aligned=8, product=product, norm=norm)


@functools.cache
def step_of(cell, norm=""):
    return generate(trace(cell, torch.float32, norm))


def structs_of(cell, norm=""):
    sizes = (len(cell.states), len(cell.phases), torch.float32, {"Fault": Fault})
    return Structs("cuda", *sizes, normalized=bool(norm)).text


def compiled(cell, plan, capability, edit=str, norm=""):
    """Return the cubin of a plan; `edit` changes the text of the kernel before."""
    source = cuda_source(step_of(cell, norm), structs_of(cell, norm), plan.program, dict(plan.constants))
    return nvrtc.cubin(edit(source), capability)
