"""Layer normalisation in the CUDA kernels, emulated on the CPU, against the reference."""

from itertools import product

import pytest
import torch
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

import recurlab
from cuda_programs import CELLS as PROGRAMS
from cuda_programs import task_of
from doubled import double
from emulated_gpu import GPUS
from gpu_cases import assert_agree, case_of
from layer_cases import CELLS, assert_near, cases, run
from recurlab.errors import RecurlabError
from recurlab.fuse.cuda import normalized_plan
from recurlab.fuse.cuda.gpu import Properties
from recurlab.fuse.headers import header
from recurlab.layers import LAYER_NORMS
from test_cuda_layouts import BOUNDS, assert_near_by_norm
from test_cuda_races import BARRIER, SEEDS, without
from test_layer_norm import OWN

KINDS = (True, *LAYER_NORMS)
QUIET = {"bidirectional": False, "masked_output": "zero", "zoneout": 0.0, "padding": "none"}
# A thread has several units, or several threads one; a block several samples, or several blocks one.
PLACES = ({"threads": 32}, {"threads": 256, "team": 1, "samples": 4}, {"threads": 64, "team": 4, "samples": 2})
# Dealt in turn to all cells and recurrences.
DEALT = (
    {"units": 42, "batch": 9, "recurrent_dropout": 0.3},
    {"units": 14, "batch": 3, "resets": False, "bias": False, **QUIET},
    {"units": 40, "batch": 19, "padding": "lengths", "batch_first": True, "masked_output": "zero"},
    {"units": 66, "batch": 5, "training": False, "initial": False, "steps": 1},
    {"units": 30, "batch": 17, "layers": 2, "stateful": True, "resets": False, "zoneout": 0.0},
)
LAYERS = [
    (cell, recurrence, KINDS[(i + i // 4) % 4], DEALT[i % 5], i % 3)
    for i, (recurrence, cell) in enumerate(product(("diagonal", "dense", "block"), (*CELLS, *OWN)))
]


@pytest.fixture
def small(gpu, monkeypatch):
    for name, cell in OWN.items():
        monkeypatch.setitem(CELLS, name, {"cell": cell})
    return gpu


@pytest.mark.parametrize(
    ("cell", "recurrence", "kind", "dealt", "place"),
    [pytest.param(*layer, marks=[] if i % 4 == 1 else pytest.mark.slow) for i, layer in enumerate(LAYERS)],
    ids=lambda value: str(DEALT.index(value)) if value in DEALT else str(value),
)
def test_float64_agrees_with_the_reference(small, monkeypatch, cell, recurrence, kind, dealt, place):
    double(small, monkeypatch).use(normalized=PLACES[place])
    case = case_of(cell, recurrence, layer_norm=kind, **dealt)
    if cell == "BetweenPhases" and case.options["zoneout"]:
        case.options["zoneout"] = (0.3, 0.4)
    assert_near(run(case, "fused", torch.float64), run(case, "eager", torch.float64), 1e-10)
    assert {launch.constants["INPUT_ALONE"] for launch in small.launches} == {int(kind == "input")}


@pytest.mark.slow
@pytest.mark.parametrize("place", [{"threads": 32}, {"threads": 512}, {"threads": 64, "team": 2, "samples": 2}])
@settings(
    deadline=None, max_examples=60, phases=[Phase.explicit, Phase.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)  # fmt: skip
@given(data=st.data())
def test_random_layers_agree_with_the_reference(gpu, monkeypatch, place, data):
    if gpu.edit is str:
        double(gpu, monkeypatch)
    case = data.draw(st.booleans().flatmap(lambda noisy: cases(noisy=noisy, norms=KINDS)))
    gpu.use(normalized=place if case.units > 4 else PLACES[0])  # each block has units
    assert_near(run(case, "fused", torch.float64), run(case, "eager", torch.float64), 1e-10)


@pytest.mark.parametrize(("recurrence", "storage"), [("dense", "float32"), ("diagonal", "bfloat16")])
def test_other_precisions(small, recurrence, storage):
    small.use(normalized=PLACES[2])
    case = case_of("lstm", recurrence, layer_norm=True, units=42, batch=17)
    if storage == "float32":
        return assert_agree(case)
    found = run(case, "fused", getattr(torch, storage), values=torch.float64)
    return assert_near_by_norm(found, run(case, "eager", torch.float64), BOUNDS[storage])


# ---- order ------------------------------------------------------------------------------------------------------

BARRIERS = [
    (name, place)
    for name in ("normalized", "normalized_forward", "normalized_backward")
    for place, _ in enumerate(BARRIER.finditer(header("cuda", name)))
]


def everything(gpu, norm, place, **changes):
    gpu.use(normalized=place, **changes)
    return run(case_of("gru_before", "dense", layer_norm=norm, units=70, steps=3, batch=17), "fused", torch.float32)


@pytest.mark.parametrize(
    ("name", "place"), [pytest.param(*each, marks=pytest.mark.slow if i % 4 else []) for i, each in enumerate(BARRIERS)]
)
def test_a_barrier_less_is_seen(small, name, place):
    for norm, where, seed in product((True, "input"), reversed(PLACES), SEEDS):
        wanted = everything(small, norm, where, seed=0, edit=str)
        try:
            found = everything(small, norm, where, seed=seed, edit=without(name, place))
        except AssertionError:  # what waits for ever
            return
        if any(not torch.equal(found[each], wanted[each]) for each in wanted):
            return
    pytest.fail(f"the kernels do not need barrier {place} of {name}.h")


@pytest.mark.parametrize("place", [1, 2])
def test_with_all_barriers_the_bits_are_the_same_in_each_order(small, place):
    wanted = everything(small, True, PLACES[place])
    for seed in (1, 2, 1):
        assert_close(everything(small, True, PLACES[place], seed=seed), wanted, rtol=0, atol=0)


# ---- the plan ---------------------------------------------------------------------------------------------------


def test_too_many_units_are_refused_in_a_line(gpu):
    x = torch.zeros(1, 1, 1)
    for recurrence, most in (("dense", 1024), ("diagonal", 2048)):
        layer = recurlab.RNN(1, most + 1, recurrence=recurrence, layer_norm=True, backend="fused")
        with pytest.raises(RecurlabError, match=f"hidden_size={most + 1}: at most {most}"):
            layer(x)
        layer.backend = "auto"
        layer(x)
        assert set(layer.backends_used.values()) == {"eager"}


TURING = Properties("T4", (7, 5), 40, 64 << 10)


@pytest.mark.parametrize("device", [*GPUS.values(), TURING], ids=lambda device: device.name)
def test_plans_fit_onto_their_gpu(device):
    teams = set()
    shapes = product((1, 2, 7, 33, 128, 250, 512, 1000, 1024), (1, 16, 513), (False, True), (1, 2), ("all", "gate"))
    for units, batch, backward, directions, norm in shapes:
        shape = {"units": units, "batch": batch, "backward": backward, "directions": directions, "norm": norm}
        for kind in ("dense", "diagonal"):
            plan = normalized_plan.normalized(task_of(PROGRAMS["lstm"], "float32", **shape), kind, device)
            c = dict(plan.constants)
            assert (c["TEAM"] - 1) * c["UNITS"] < units <= c["TEAM"] * c["UNITS"]
            assert plan.threads <= 512
            assert plan.shared <= device.shared
            assert plan.parts * c["SAMPLES"] >= batch > (plan.parts - 1) * c["SAMPLES"]
            if c["TEAM"] > 1:
                assert plan.cooperative
                assert plan.blocks <= device.multiprocessors, "all of them have to be resident"
            else:
                assert plan.blocks == plan.parts * directions
            teams.add((kind, c["TEAM"] > 1))
    together = {("dense", True)} if device.capability >= (8, 0) else set()
    assert teams == {("dense", False), ("diagonal", False), *together}
