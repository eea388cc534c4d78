"""Each barrier and wait of the dense CUDA kernels is needed, and those that are there are enough, under emulation.

Without a barrier the threads that the emulation lets run first, or blocks that dawdle, see what is not there yet.
"""

import re

import pytest
import torch
from torch.testing import assert_close

import recurlab
from emulated_gpu import AMPERE, HOPPER
from gpu_cases import SMALL, WIDTH, case_of
from layer_cases import run
from recurlab.bench.machine import tf32
from recurlab.fuse.headers import header

SEEDS = range(1, 7)
BARRIER = re.compile(r"\b(?:block_barrier|cluster_barrier|await|signal|copies_arrived|arrivals_\w+)\([^;]*\);")
BARRIERS = [
    (name, place, header("cuda", name)[found.start() :].partition(";")[0])
    for name in ("dense", "dense_exchange", "dense_product", "dense_forward", "dense_backward")
    for place, found in enumerate(BARRIER.finditer(header("cuda", name)))
]
# How a team exchanges; a barrier is for one of these, or for all.
TEAMS = {
    "cluster": {"capability": HOPPER, "dense": {**SMALL, "samples": 16}},
    "cache": {"capability": AMPERE, "dense": {**SMALL, "samples": 16}},
    "alone": {"capability": HOPPER, "dense": {**SMALL, "units": 32, "samples": 16}},
}


@pytest.fixture(autouse=True)
def _all_bits():
    with tf32(False):
        yield


def without(name, place):
    """Return what drops a barrier of a template from the text of a kernel."""
    whole = header("cuda", name)
    found = list(BARRIER.finditer(whole))[place]
    return lambda text: text.replace(whole, whole[: found.start()] + ";" + whole[found.end() :])


def likely(name, place):
    """Return the teams, the one first that a barrier seems to be for."""
    whole = header("cuda", name)
    before = whole[: list(BARRIER.finditer(whole))[place].start()]
    functions = re.findall(r"exchange_in_(\w+)\(Team", before)
    first = "alone" if before.endswith("if (TEAM == 1) ") else functions[-1] if functions else "cluster"
    first = "cache" if before.endswith("} else ") else first
    return sorted(TEAMS, key=lambda team: team != first)


def outputs(backend):
    """Return the outputs of a layer whose teams have several items of several chunks of samples."""
    torch.manual_seed(3)
    layer = recurlab.RNN(3, WIDTH, cell="gru", reset="before", backend=backend)
    with torch.no_grad():
        return layer(torch.randn(4, 41, 3), torch.randn(1, 41, WIDTH))[0]


def fails(gpu):
    """Return whether the emulation, or the numbers, tell that something is wrong."""
    try:
        return not torch.allclose(outputs("fused"), outputs("eager"), rtol=0, atol=1e-4)
    except AssertionError:
        return True


@pytest.mark.parametrize(("name", "place", "call"), BARRIERS)
def test_a_barrier_less_is_seen(gpu, name, place, call):
    gpu.use(multiprocessors=4, edit=without(name, place))
    for team in likely(name, place):
        gpu.use(**TEAMS[team])
        for seed in SEEDS:
            if fails(gpu.use(seed=seed)):
                return
    pytest.fail(f"the kernels do not need {call} of {name}.h")


@pytest.mark.parametrize("team", TEAMS)
@pytest.mark.parametrize("cell", ["gru_before", "lstm"])
def test_with_all_barriers_the_bits_are_the_same_in_each_order(gpu, cell, team):
    gpu.use(multiprocessors=4, **TEAMS[team])
    case = case_of(cell, "dense", batch=21, steps=3)
    wanted = run(case, "fused", torch.float32)
    for seed in (1, 2, 1):
        gpu.use(seed=seed)
        assert_close(run(case, "fused", torch.float32), wanted, rtol=0, atol=0)
