"""What is compiled ahead of a measurement: all that it will ask a GPU for, and nothing twice."""

from contextlib import suppress
from dataclasses import replace
from itertools import product
from types import SimpleNamespace

import pytest
import torch

import compile_all
import layer_cases
import one_pass
from device_cases import DTYPES, groups
from emulated_gpu import A100, H100, traced
from recurlab.backends.call import Call
from recurlab.bench import families, measure, parity, programs
from recurlab.bench.candidates import candidates
from recurlab.bench.layers import Candidate
from recurlab.bench.machine import tf32
from recurlab.bench.plan import FULL, TINY, items
from recurlab.errors import RecurlabError
from recurlab.fuse import kernel, registry
from recurlab.fuse.cuda import gpu, nvrtc
from recurlab.fuse.cuda import kernel as cuda
from test_cuda import LARGE, PRECISIONS

CUDA = torch.device("cuda")

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")  # that kernels are not measured on this device


@pytest.fixture(params=[H100, pytest.param(A100, marks=pytest.mark.slow)], ids=lambda properties: properties.name)
def device(request, monkeypatch):
    """Let all see a GPU that is not there."""
    monkeypatch.setattr(gpu, "properties", lambda _: request.param)
    monkeypatch.setattr(registry, "_kernels", {})
    monkeypatch.setattr(kernel, "trace", traced)
    return request.param


@pytest.fixture
def asked(device, monkeypatch):
    """Return the sources that layers on the meta device have asked the GPU for."""
    found, generator = set(), torch.Generator

    def module(source, _):
        found.add(source)
        return SimpleNamespace(launch=lambda *_, **__: None)

    monkeypatch.setattr(gpu, "Module", module)
    monkeypatch.setitem(registry.MAKERS, "meta", cuda.CudaKernel)
    monkeypatch.setitem(registry.STORAGES, "meta", registry.STORAGES["cuda"])
    monkeypatch.setattr(nvrtc, "unavailable", lambda: None)
    monkeypatch.setattr(Call, "dtype", property(lambda call: call.input.dtype))  # meta tensors have no autocast
    monkeypatch.setattr(parity, "Candidate", lambda case, _: Candidate(case, "fused"))  # eager would need autocast too
    monkeypatch.setattr(parity, "_gap", lambda *_: 0.0)
    monkeypatch.setattr(measure, "gc", SimpleNamespace(enable=int, disable=int, collect=int))  # nothing is timed
    monkeypatch.setattr(measure, "peak_bytes", lambda *_: 0)
    monkeypatch.setattr(torch, "Generator", lambda *_: generator())
    return found


def measured(item):
    settings = replace(item.settings, device="meta", repeats=1)
    found, refused = candidates(settings, beside=False)
    wanted = [candidate for candidate in found if candidate.backend == "fused"]
    assert wanted or refused
    with tf32(settings.tf32):
        results = measure.measure(wanted, item.shape, settings)
    for result in results.values():
        assert result.status == "ok" or "do not fit onto this GPU's chip" in result.status


@pytest.mark.parametrize("sizes", [TINY, pytest.param(FULL, marks=pytest.mark.slow)], ids=["tiny", "full"])
def test_a_measurement_asks_for_nothing_else(sizes, asked):
    plan = items(sizes, "cuda", "")
    for item in plan:
        measured(item)
    assert asked == set(programs.of_items(plan, CUDA))


def run_cases(cases):
    """Run layers of given precisions; those that no kernel has room for ask for nothing."""
    registry._kernels.clear()  # which would not ask again
    for case, precision in cases:
        with tf32(precision == "tf32"), suppress(RecurlabError):
            layer_cases.run(case, "fused", DTYPES[precision], device="meta")


@pytest.mark.slow
def test_watched_listed_and_large_layers_ask_for_nothing_else(asked):
    for dtype in (torch.float32, torch.bfloat16):
        for sizes in one_pass.LAYERS:
            layer, x, masks = one_pass.prepared(compile_all.META, *sizes, dtype)
            layer(x, **masks)[0].float().square().sum().backward()
    assert asked == set(compile_all.of_one_pass(CUDA))
    for wanted, cases in (
        (compile_all.of_groups, [(c, g.precision) for g in groups() if g.backend == "fused" for c in g.cases]),
        (compile_all.of_large, product(LARGE.values(), PRECISIONS)),
    ):
        asked.clear()
        run_cases(cases)
        assert asked == set(wanted(CUDA))


@pytest.mark.parametrize("tiny", [True, pytest.param(False, marks=pytest.mark.slow)], ids=["tiny", "full"])
def test_the_first_minutes_ask_for_nothing_else(tiny, asked):
    for family in families.FAMILIES:
        for layer in families.layers(family, tiny=tiny):
            for precision in families.PRECISIONS.values():
                with tf32(precision.tf32), suppress(RecurlabError):
                    work = families.work_of(layer, "fused", compile_all.META, precision.dtype, precision.dtype)
                    families.outcome(work, precision.dtype)
    assert asked == set(families.kernel_sources(CUDA, tiny=tiny))


def test_options_need_programs_of_their_own(device):
    plan = [item for item in items(TINY, "cuda", "") if item.settings.options][:1]
    plain = [replace(item, settings=replace(item.settings, options=())) for item in plan]
    noisy, quiet = (set(programs.of_items(each, CUDA)) for each in (plan, plain))
    assert quiet < noisy


@pytest.fixture
def kept(tmp_path, monkeypatch):
    """Return where kernels are kept."""
    if (reason := nvrtc.unavailable()) is not None:
        pytest.skip(reason)
    monkeypatch.setenv("RECURLAB_CACHE", str(tmp_path))
    return tmp_path / "kernels"


SOURCES = [f'extern "C" __global__ void kernel(int *x) {{ *x = {number}; }}' for number in range(3)]


def test_programs_are_compiled_once_and_found_again(kept, capsys, monkeypatch):
    assert programs.compile_all([*SOURCES, *SOURCES], (9, 0), 60) == []
    assert capsys.readouterr().out.startswith("0 of 3 programs are there already\n3 programs in ")
    assert {path.read_text() for path in kept.glob("*.cu")} == set(SOURCES)
    monkeypatch.setattr(nvrtc, "_compile", lambda *_: pytest.fail("compiled again"))
    for source in SOURCES:
        assert nvrtc.cubin(source, (9, 0))
    assert programs.compile_all(SOURCES, (9, 0), 60) == []
    assert capsys.readouterr().out == "3 of 3 programs are there already\n"


def test_a_program_that_is_wrong_is_named_and_the_others_are_made(kept):
    (line,) = programs.compile_all(["nonsense", *SOURCES], (9, 0), 60)
    assert "can't build a kernel" in line
    assert len(list(kept.glob("*.cubin"))) == 3


def test_time_that_is_up_leaves_the_rest(kept, capsys):
    assert programs.compile_all(SOURCES, (9, 0), 0) == []
    out = capsys.readouterr().out
    assert "time is up: 3 programs are not compiled\n0 programs in " in out
