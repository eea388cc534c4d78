"""The CUDA kernels compile for the GPUs that they are for, without a GPU."""

import platform
import struct
import sys
from itertools import product

import pytest

from cuda_programs import CELLS, STORAGES, compiled, task_of
from emulated_gpu import GPUS
from package_cells import FORMS
from recurlab.fuse.cuda import nvrtc
from recurlab.fuse.cuda.dense_plan import dense
from recurlab.fuse.cuda.diagonal_plan import diagonal
from recurlab.fuse.cuda.normalized_plan import normalized
from recurlab.fuse.cuda.source import PROGRAMS

if (sys.platform, platform.machine()) != ("linux", "x86_64"):  # there the development tools bring them
    pytest.importorskip("cuda.bindings.nvrtc")

pytestmark = pytest.mark.skipif(nvrtc.unavailable() is not None, reason="no NVRTC on this machine")

DENSE = [(8, 0), (8, 6), (8, 9), (9, 0), (10, 0), (12, 0)]
DIAGONAL = [(7, 5), *DENSE]
NORMS = ("all", "gate", "input", "rms")
FRAME_SIZE, SIZED = 0x11, 4  # of what a cubin tells of a function: bytes of local memory; a value of some bytes


def quick(chosen, everything):
    """Return parameters of a test, of which the suite leaves all but some to `-m slow`: seconds to compile each."""
    assert set(chosen) <= set(everything)
    return [pytest.param(*each, marks=[] if each in chosen else pytest.mark.slow) for each in everything]


def local_memory(cubin):
    """Return the most bytes of local memory that a function of a cubin, an ELF file, has."""
    (offset,), (size, count, names) = struct.unpack_from("<Q", cubin, 40), struct.unpack_from("<HHH", cubin, 58)
    sections = [struct.unpack_from("<IIQQQQ", cubin, offset + i * size) for i in range(count)]
    found = []
    for name, _, _, _, at, length in sections:
        if not cubin[sections[names][4] + name :].startswith(b".nv.info\0"):
            continue
        end = at + length
        while at < end:
            form, what, bytes_of_value = struct.unpack_from("<BBH", cubin, at)
            if what == FRAME_SIZE:  # of the function of a number
                found.append(struct.unpack_from("<II", cubin, at + 4)[1])
            at += 4 + (bytes_of_value if form == SIZED else 0)
    return max(found)


PLANS = {  # of each diagonal program: a call for which it is planned
    "diagonal_forward": {"backward": False},
    "diagonal_backward": {"backward": True, "batch": 500},
    "diagonal_chunks": {"backward": True, "batch": 1, "steps": 5000},
}
assert set(PLANS) == {name for name in PROGRAMS if "diagonal" in name}


def diagonal_plan(cell, storage, program):
    plan = diagonal(task_of(cell, storage, **PLANS[program]), GPUS["h100"])
    assert plan.program == program
    return plan


# The suite has each cell, each program and each architecture, but not each with each. Every program holds the whole
# text of a step: for each cell of the package one is compiled, a dense one where it has a recurrence. The test of local
# memory below has all diagonal programs of the largest cell.

RECURRENT = [name for name, cell in CELLS.items() if cell.phases]


@pytest.mark.parametrize(
    ("name", "backward"),
    quick(
        [(name, i % 2 == 1) for i, name in enumerate(RECURRENT) if name in FORMS],
        [*product(RECURRENT, (False, True))],
    ),
)
def test_dense_kernels_compile_for_each_cell(name, backward):
    cell, storage = CELLS[name], list(STORAGES)[list(CELLS).index(name) % 4]
    assert compiled(cell, dense(task_of(cell, storage, backward=backward), GPUS["h100"]), (9, 0))


@pytest.mark.parametrize(
    ("name", "program"),
    quick(
        [(name, "diagonal_backward") for name in ("indy_gru", *sorted(FORMS.keys() - RECURRENT))],
        [*product(CELLS, PLANS)],
    ),
)
def test_diagonal_kernels_compile_for_each_cell(name, program):
    storage = ("float32", "bfloat16", "float16")[list(CELLS).index(name) % 3]
    assert compiled(CELLS[name], diagonal_plan(CELLS[name], storage, program), (9, 0))


@pytest.mark.parametrize("capability", quick([((8, 0),), ((12, 0),)], [(each,) for each in DENSE]))
def test_dense_kernels_compile_for_each_architecture(capability):
    cell, storage = CELLS["indy_gru"], list(STORAGES)[DENSE.index(capability) % 4]
    device = next(each for each in reversed(GPUS.values()) if each.capability <= capability)
    for backward in (False, True):
        assert compiled(cell, dense(task_of(cell, storage, backward=backward), device), capability)


@pytest.mark.parametrize(
    ("capability", "program"),
    quick(
        [*product([(7, 5)], PLANS), ((8, 0), "diagonal_forward"), ((12, 0), "diagonal_backward")],
        [*product(DIAGONAL, PLANS)],
    ),
)
def test_diagonal_kernels_compile_for_each_architecture(capability, program):
    storage = ("bfloat16", "float16", "float32")[DIAGONAL.index(capability) % 3]
    assert compiled(CELLS["gru"], diagonal_plan(CELLS["gru"], storage, program), capability)


@pytest.mark.parametrize(
    ("name", "kind", "norm", "capability"),
    quick(
        [("lstm", "diagonal", "gate", (7, 5)), ("gru", "dense", "all", (9, 0))],
        [(RECURRENT[i % len(RECURRENT)], ("diagonal", "dense")[i // 2 % 2], NORMS[i % 4], DIAGONAL[i % 7])
         for i in range(28)] + [("lstm", "diagonal", "gate", (7, 5)), ("gru", "dense", "all", (9, 0))],
    ),
)  # fmt: skip
def test_kernels_with_layer_normalisation_compile(name, kind, norm, capability):
    cell, device = CELLS[name], next(each for each in GPUS.values() if each.capability <= max(capability, (8, 0)))
    for backward in (False, True):
        plan = normalized(task_of(cell, "bfloat16", backward=backward, norm=norm), kind, device)
        assert compiled(cell, plan, capability, norm=norm)


def test_kernels_with_layer_normalisation_need_no_local_memory():
    for backward in (False, True):
        plan = normalized(task_of(CELLS["lstm"], "float32", backward=backward, norm="all"), "diagonal", GPUS["h100"])
        assert local_memory(compiled(CELLS["lstm"], plan, (9, 0), norm="all")) == 0


LOCAL = """
extern "C" __global__ void kernel(const __grid_constant__ Problem p) {
    float x[64];
    for (int i = 0; i < 64; i++) x[p.x[i] > 0 ? i : 0] = i;
    p.x[0] = x[p.n];
}
"""


def test_local_memory_is_told():
    source = "struct Problem { float *x; int n; };" + LOCAL
    assert local_memory(nvrtc.cubin(source, (9, 0))) == 256


@pytest.mark.parametrize(
    ("name", "noisy"),
    quick([("lstm", True)], [*product(["rnn", "indy_gru", "lstm"], [False, True])]),
)
def test_diagonal_kernels_of_one_unit_a_thread_need_no_local_memory(name, noisy):
    cell = CELLS[name]
    for backward, steps in ((False, 100), (True, 100), (True, 5000)):
        of = task_of(cell, "float32", backward=backward, units=127, steps=steps, batch=5, noisy=noisy)
        plan = diagonal(of, GPUS["h100"])
        assert dict(plan.constants)["VECTOR"] == 1
        assert local_memory(compiled(cell, plan, (9, 0))) == 0, plan.program
