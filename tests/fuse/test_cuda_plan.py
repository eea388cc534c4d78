"""How the planner lays CUDA kernels out: within what a GPU has, and as the templates count."""

from dataclasses import replace

import pytest

from cuda_programs import step_of, structs_of
from emulated import DEVICE, EMULATION
from emulated_gpu import AMPERE, GPUS, HOPPER
from recurlab.cells.build import build_cell
from recurlab.fuse.cpu import compiler
from recurlab.fuse.cuda.dense_plan import REGISTERS, THREADS, Layout, dense, unfit
from recurlab.fuse.cuda.diagonal_plan import diagonal
from recurlab.fuse.cuda.plan import Task
from recurlab.fuse.cuda.source import PROGRAMS, cuda_source

# Of a cell: gates, states, and the gates of each phase.
CELLS = {"rnn": (1, 1, (1,)), "gru_after": (3, 1, (3,)), "gru_before": (3, 1, (2, 1)), "lstm": (4, 2, (4,))}
HIDDEN = (1, 17, 128, 192, 256, 384, 512, 640, 768, 896, 1024, 2048)
# Bytes and place of a type of storage, and the product.
TYPES = {"float32": (4, 0, 2), "tf32": (4, 0, 1), "bfloat16": (2, 1, 0)}


def task(cell, units, storage="float32", *, steps=100, batch=64, heads=1, directions=1, **others):
    itemsize, place, product = TYPES[storage]
    usual = {"noisy": False, "backward": False, "aligned": 8}
    shape = (steps, batch, units, units // heads, directions)
    return Task(*CELLS[cell], *shape, itemsize, place, **{**usual, **others}, product=product)


def assert_dense_plan_holds(plan, of, device):
    c = dict(plan.constants)
    # what dense.h asserts, and what it divides
    assert c["SAMPLES"] % c["CHUNK"] == 0
    assert c["CHUNK"] % 8 == 0
    assert c["THREADS"] == THREADS == plan.threads
    assert c["THREADS"] % c["UNITS"] == 0
    assert c["UNITS"] % (16 // of.itemsize) == 0
    assert c["THREADS"] // 32 % c["WARPS_M"] == 0
    assert c["HELD"] >= 0
    # the team computes the head, and no block of it is for nothing but to fill up a cluster
    assert c["WIDTH"] == of.width <= c["TEAM"] * c["UNITS"]
    assert (c["TEAM"] // 2) * c["UNITS"] < of.width
    assert plan.blocks == plan.teams * c["TEAM"]
    assert plan.blocks % plan.cluster == 0
    items = of.directions * (of.units // of.width) * -(-of.batch // c["SAMPLES"])
    assert 1 <= plan.teams <= items
    assert plan.parts == -(-of.batch // c["SAMPLES"]) * (THREADS // c["UNITS"])
    # the GPU's limits
    assert plan.blocks <= device.multiprocessors
    assert plan.shared <= device.shared
    assert plan.cluster <= (1 if device.capability < HOPPER else 16 if device.capability < (11, 0) else 8)
    assert plan.cluster & (plan.cluster - 1) == 0
    # blocks that wait for each other are a cluster or all resident
    assert c["CLUSTERED"] == int(plan.cluster == c["TEAM"])
    assert plan.cooperative == (not c["CLUSTERED"])
    assert (plan.exchange > 0) == plan.cooperative
    assert plan.exchange % 16 == 0


@pytest.mark.parametrize("storage", TYPES)
@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("name", GPUS)
def test_dense_plans_keep_to_what_a_gpu_has(name, cell, storage):
    device = GPUS[name]
    for units in HIDDEN:
        for batch, directions in ((1, 1), (20, 2), (64, 1), (300, 2)):
            for backward in (False, True):
                of = task(cell, units, storage, batch=batch, directions=directions, backward=backward, noisy=True)
                if (plan := dense(of, device)) is not None:
                    assert_dense_plan_holds(plan, of, device)
                    continue
                reason = unfit(of)
                assert "\n" not in reason
                assert f"hidden_size={units}" in reason


@pytest.mark.parametrize("cell", ["gru_after", "gru_before", "lstm"])
def test_the_sizes_that_the_project_is_for_have_a_plan(cell):
    for storage, most in (("bfloat16", 1024), ("float32", 512)):
        for units in (128, 256, 512, most):
            for backward in (False, True):
                for name in ("h100", "a100"):
                    assert dense(task(cell, units, storage, backward=backward), GPUS[name]), (name, storage, units)


def test_heads_are_planned_one_by_one():
    for backward in (False, True):
        of = task("lstm", 1024, "bfloat16", heads=8, directions=2, backward=backward)
        plan = dense(of, GPUS["h100"])
        assert_dense_plan_holds(plan, of, GPUS["h100"])
        assert dict(plan.constants)["WIDTH"] == 128


def test_what_fits_for_one_sample_fits_for_a_batch():
    """A kernel is offered by what one sample needs."""
    for device in GPUS.values():
        for cell in CELLS:
            for units in HIDDEN:
                one, many = (
                    dense(task(cell, units, batch=batch, noisy=True, backward=True), device) for batch in (1, 99)
                )
                assert (one is None) == (many is None)


def test_registers_are_counted():
    for layout in (Layout(task("lstm", 512, "bfloat16"), GPUS["h100"], 32, 8, 8, warps) for warps in (1, 2, 4, 8)):
        assert layout.registers <= REGISTERS
        held = sum(p.tiles_of_warp * min(layout.held, p.groups_of_warp) * 8 for p in layout.products)
        assert layout.registers + held <= REGISTERS


def test_a_layout_fits_to_the_last_byte_block_and_register(monkeypatch):
    of, device = task("lstm", 512, "bfloat16"), GPUS["h100"]
    shape = 32, 8, 8, 1
    layout = Layout(of, device, *shape)
    for name, least in (("shared", layout.shared), ("multiprocessors", layout.team)):
        for size in (least, least - 1):
            assert Layout(of, replace(device, **{name: size}), *shape).fits == (size == least), name
    roomy = replace(device, shared=1 << 30)
    for registers in (layout.registers, layout.registers - 1):
        monkeypatch.setattr("recurlab.fuse.cuda.dense_plan.REGISTERS", registers)
        assert Layout(of, roomy, *shape).fits == (registers == layout.registers)


# ---- bytes of shared memory -------------------------------------------------------------------------------------

EXTENT = """
template <int K = 0> constexpr long rest_of() {
    if constexpr (K < PHASES) {
        using P = OF_PHASE<K>;
        constexpr int groups = P::GROUPS_OF_WARP - Fragments<P>::HERE;
        return P::TILES_OF_WARP * groups * 2L * THREADS * sizeof(Words) + rest_of<K + 1>();
    } else return 0;
}
extern "C" long extent() {
    const long full = (CLUSTERED ? 2L : 1L) * SAMPLES * Sizes::stride * 4;
    const long sums = 2L * WARPS_K * CHUNK * Sizes::sums * 4;
    return sizeof(Words) + full + sums + SAMPLES * GATES * UNITS * sizeof(Store) + rest_of();
}
"""


@pytest.mark.skipif(compiler.unavailable() is not None, reason="no C++ compiler on this machine")
@pytest.mark.parametrize(
    ("cell", "options", "backward", "layout", "name", "storage"),
    [
        ("gru_before", {"reset": "before"}, False, (16, 16, 8, 2), "h100", "float32"),
        ("gru_before", {"reset": "before"}, True, (32, 8, 8, 4), "a100", "bfloat16"),
        ("lstm", {}, True, (32, 8, 8, 1), "h100", "bfloat16"),
        ("lstm", {}, False, (64, 32, 16, 8), "blackwell", "tf32"),
    ],
)
def test_shared_memory_is_what_the_kernel_lays_out(cell, options, backward, layout, name, storage):
    of = task(cell, 130, storage, backward=backward)
    made = Layout(of, GPUS[name], *layout)
    made_of = build_cell(cell.partition("_")[0], "dense", 1, options)[0]
    text = cuda_source(step_of(made_of), structs_of(made_of), made.plan.program, dict(made.plan.constants)).replace(
        DEVICE, EMULATION
    )
    phase, gates = ("Backward", "Sizes::gates") if backward else ("Forward", "1")
    extent = compiler.load(text + EXTENT.replace("OF_PHASE", phase).replace("GATES", gates)).extent
    assert made.plan.shared == extent()


# ---- diagonal ---------------------------------------------------------------------------------------------------

SHAPES = ((1, 1, 1), (784, 32, 128), (5000, 1, 512), (300, 3, 7), (257, 1, 1), (784, 256, 2048))  # T, B, H


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("name", GPUS)
def test_diagonal_plans(name, cell):
    device = GPUS[name]
    for storage in ("float32", "bfloat16"):
        for steps, batch, units in (
            (1, 1, 1),
            (784, 32, 128),
            (5000, 1, 512),
            (300, 3, 7),
            (257, 1, 1),
            (784, 256, 2048),
        ):
            for backward in (False, True):
                for aligned in (1, 2, 8):
                    of = task(cell, units, storage, steps=steps, batch=batch, backward=backward, aligned=aligned)
                    plan = diagonal(of, device)
                    c = dict(plan.constants)
                    assert units % c["VECTOR"] == 0
                    assert aligned % c["VECTOR"] == 0
                    assert c["VECTOR"] * of.itemsize <= 16
                    assert plan.chunks * of.elements // c["VECTOR"] <= plan.blocks * plan.threads
                    assert (plan.blocks - 1) * plan.threads < plan.chunks * of.elements // c["VECTOR"]
                    assert plan.threads == c["THREADS"] <= 1024
                    assert plan.threads % 32 == 0
                    # each chunk has a step; the matrices of chunks are for one unit a thread
                    size = -(-steps // plan.chunks)
                    assert (plan.chunks - 1) * size < steps
                    assert plan.chunks == 1 or (backward and c["VECTOR"] == 1)
                    assert (plan.program == "diagonal_chunks") == (plan.chunks > 1)
                    assert plan.program in PROGRAMS
                    assert plan.parts == plan.chunks * batch


def test_a_long_sequence_of_few_units_is_cut_into_chunks():
    assert diagonal(task("rnn", 128, steps=5000, batch=1, backward=True), GPUS["h100"]).chunks > 32
    assert diagonal(task("rnn", 128, steps=5000, batch=1), GPUS["h100"]).chunks == 1
    assert diagonal(task("rnn", 2048, steps=5000, batch=64, backward=True), GPUS["h100"]).chunks == 1


def test_as_many_teams_run_side_by_side_as_the_driver_says():
    of = task("lstm", 512, "bfloat16", batch=300)
    for counts, most in (((), 7), ((66, 33, 16, 8), 8), ((66, 33, 16, 5), 5)):
        layout = Layout(of, replace(GPUS["h100"], clusters=counts), 32, 8, 8, 1)
        assert (layout.team, layout.clustered, layout.teams) == (16, True, most)
    refused = Layout(of, replace(GPUS["h100"], clusters=(66, 33, 16, 0)), 32, 8, 8, 1)
    assert not refused.clustered


def test_without_clusters_a_team_meets_in_the_cache():
    of = task("lstm", 512, "bfloat16")
    for name, device in GPUS.items():
        plan = dense(of, device)
        if plan is not None and device.capability < HOPPER:
            assert device.capability >= AMPERE
            assert plan.cooperative, name
