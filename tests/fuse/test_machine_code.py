"""The machine code of the CUDA kernels for compute capability 9.0: what a step waits for, and about how long."""

import platform
import re
import sys
from collections import Counter
from itertools import product

import pytest

from cuda_programs import CELLS
from emulated_gpu import HOPPER
from machine_code import disassembled
from modelled_cycles import POINTS, cycles_of, functions_of, plan_of
from recurlab.fuse.cuda import nvrtc

if (sys.platform, platform.machine()) != ("linux", "x86_64"):  # there the development tools bring what is needed
    pytest.skip("no nvdisasm for this machine", allow_module_level=True)

BUILT_IN = ("rnn", "gru", "indy_gru", "lstm")
SHAPES = [(1, 128), (16, 128), (64, 256), (16, 512), (64, 512), (128, 1024), (16, 1024), (33, 250), (128, 515)]
# Each cell, storage, direction and kind of noise, with one of the shapes.
DENSE = [
    ("dense", cell, storage, *SHAPES[(4 * i + i // 9) % 9], backward, noisy)
    for i, (cell, storage, backward, noisy) in enumerate(
        product(BUILT_IN, ("float32", "tf32", "bfloat16"), (False, True), (False, True))
    )
]
# Each program, with one and with several units a thread; noise in every other one.
DIAGONAL = [
    ("diagonal", cell, storage, *shape, backward, (i + i // 4) % 2 == 1)
    for i, (cell, storage, (*shape, backward)) in enumerate(
        product(
            BUILT_IN,
            ("float32", "bfloat16"),
            [(32, 1024, False), (128, 1024, False), (500, 250, True), (8, 128, True)],
        )
    )
]
# How often a phase of a dense kernel's step meets others, beside a block's barrier for each chunk of its product.
MEETINGS = {
    "alone": {"BAR": 2},
    "cluster": {"BAR": 1, "SYNCS.PHASECHK": 1},
    "cache": {"BAR": 4, "MEMBAR": 1, "CCTL": 1, "DEPBAR": 1},  # a release, an acquire, and one wait for all copies
}
MEETS = re.compile(r"BAR|MEMBAR|CCTL|DEPBAR|UCGABAR_ARV|UCGABAR_WAIT|SYNCS\.PHASECHK")


def local_memory(function, loop):
    """Return how many instructions of a loop read or write local memory."""
    return sum(function.code[i].kind in ("LDL", "STL") for i in loop)


def loads_ahead(way):
    """Return the places of the loads for the next turn: no instruction after them reads their register."""
    read = [one.operands if one.kind.startswith("ST") else one.operands.partition(",")[2] for one in way]
    found = []
    for i, one in enumerate(way):
        register = re.compile(rf"\b{one.operands.partition(',')[0]}\b")
        if one.kind == "LDG" and not any(register.search(each) for each in read[i + 1 :]):
            found.append(i)
    return found


def waits_for_the_next_turn(way):
    """Return the instructions that wait for what has been loaded for the next turn, and so until all of it is there."""
    loads = loads_ahead(way)
    boards = {way[i].writes for i in loads}
    return [one for one in way[loads[0] + 1 :] if boards & {*one.waits}] if loads else []


def meetings(way):
    return Counter(found[0] for one in way if (found := MEETS.match(one.name)))


def flaws(cell, plan, edit=str):
    """Return what is wrong with the loops over time of a plan's functions."""
    c, found = dict(plan.constants), set()
    for function, loop in functions_of(cell, plan, edit).values():
        way = function.way(loop)
        if local_memory(function, loop):
            found.add("local memory")
        if plan.program.startswith("diagonal"):
            found |= diagonal_flaws(CELLS[cell], way, c["AHEAD"], "forward" not in plan.program, c["NOISY"])
        else:
            found |= dense_flaws(function, loop, way, c, len(CELLS[cell].phases))
    return found


def diagonal_flaws(cell, way, steps, backward, noisy):
    # Inputs and origin of each step; in the backward its states before and the gradient of its output too.
    marks = noisy * (1 if backward else 2)  # the origin, or the bytes of the mask and of the resets
    loads = steps * (len(cell.gates) + marks + backward * (1 + len(cell.states)))
    late = len(loads_ahead(way)) != loads or waits_for_the_next_turn(way)
    return {*(["loads waited for"] if late else []), *(["meetings"] if meetings(way) else [])}


def dense_flaws(function, loop, way, c, phases):
    kind = "alone" if c["TEAM"] == 1 else "cluster" if c["CLUSTERED"] else "cache"
    expected = Counter({name: phases * times for name, times in MEETINGS[kind].items()})
    expected["BAR"] += phases * c["SAMPLES"] // c["CHUNK"]
    found = set() if meetings(way) == expected else {"meetings"}
    copies = "".join({"LDGSTS": "c", "DEPBAR": "w"}.get(one.kind, "") for one in way)
    within = [{function.code[i].kind for i in inner} for inner in function.loops if {*inner} < {*loop}]
    together = re.fullmatch(f"(c+w){{{phases if kind == 'cache' else 0}}}", copies)
    if not together or any({"LDGSTS", "DEPBAR"} <= kinds for kinds in within):
        found.add("copies waited for")
    return found


LOCAL = """
struct Problem { float *x; int n; };
extern "C" __global__ void kernel(const __grid_constant__ Problem p) {
    float x[64];
    for (int i = 0; i < p.n; i++) x[p.x[i] > 0 ? i : 0] = i;
    p.x[0] = x[p.n];
}
"""


def test_a_loop_is_found_with_what_it_waits_for():
    function = disassembled(nvrtc.cubin(LOCAL, HOPPER))["kernel"]
    loop = function.step_loop("LDG")
    way = function.way(loop)
    assert local_memory(function, loop) > 0
    load = next(one for one in way if one.kind == "LDG")
    user = next(one for one in way if one.kind == "FSETP")  # x > 0
    assert load.writes in user.waits
    assert load.operands.partition(",")[0] in user.operands
    assert loads_ahead(way) == []


@pytest.mark.slow
@pytest.mark.parametrize("layer", DENSE + DIAGONAL, ids=lambda layer: "-".join(map(str, layer)))
def test_a_step_waits_for_nothing_that_it_need_not(layer):
    *layer, backward, noisy = layer
    if (plan := plan_of(*layer, backward=backward, noisy=noisy)) is None:
        pytest.skip("does not fit onto the chip")
    assert flaws(layer[1], plan) == set()


@pytest.mark.slow
@pytest.mark.parametrize("point", POINTS, ids=lambda point: "-".join(map(str, point)))
def test_a_step_takes_few_cycles(point):
    for backward, most in enumerate(POINTS[point]):
        assert cycles_of(point[1], plan_of(*point, backward=bool(backward))) <= most


ALONE, CLUSTER, CACHE = [
    ("diagonal", "indy_gru", "float32", 32, 1024), ("dense", "gru", "tf32", 16, 128),
    ("dense", "gru", "tf32", 64, 512),
]  # fmt: skip
FAULTS = {
    "an index that is not known": (ALONE, "read(in.x[k]", "read(in.x[(k + at.b) % AHEAD]", "local memory"),
    "no wait before the next loads": (
        ALONE,
        "now = arrived(later, nothing_in(p));",
        "now = later;",
        "loads waited for",
    ),
    "a barrier of a warp's block": (ALONE, "now = arrived(", "block_barrier(); now = arrived(", "meetings"),
    "a cluster's barrier": (CLUSTER, "meanwhile();", "cluster_barrier(); meanwhile();", "meetings"),
    "a fence": (CACHE, "signal(team.counter);", "__threadfence(), signal(team.counter);", "meetings"),
    "copies one by one": (CACHE, "OF_ROW + piece);", "OF_ROW + piece), copies_arrived();", "copies waited for"),
}


@pytest.mark.slow
@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_seen(fault):
    layer, text, other, flaw = FAULTS[fault]
    plan = plan_of(*layer, backward=False)
    edited = lambda source: source.replace(text, other)  # noqa: E731
    assert flaw in flaws(layer[1], plan, edited)
    assert flaw not in flaws(layer[1], plan)


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["no wait before the next loads", "a cluster's barrier"])
def test_cycles_tell_a_fault(fault):
    layer, text, other, _ = FAULTS[fault]
    plan = plan_of(*layer, backward=False)
    assert cycles_of(layer[1], plan, lambda source: source.replace(text, other)) > POINTS[layer][0]
