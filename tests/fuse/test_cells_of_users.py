"""Cells that users write, from the literature and odd ones: each runs as a kernel and gives the reference's numbers."""

import copy
import gc
import io
import multiprocessing
import statistics
import time
import weakref
from dataclasses import dataclass, field

import pytest
import torch
from torch import tanh
from torch.autograd import gradcheck
from torch.func import functional_call
from torch.testing import assert_close

import recurlab
from recurlab.fuse import scan
from users_cells import CELLS, PUBLISHED, IgnoredGate, Janet, MinimalGatedUnit, Unhashable

pytestmark = pytest.mark.usefixtures("able")


RECURRENCES = {"dense": {}, "diagonal": {"recurrence": "diagonal"}, "block": {"recurrence": "block", "heads": 3}}
T, B, FEATURES, H = 5, 3, 2, 9


@pytest.fixture(params=CELLS)
def cell(request):
    return CELLS[request.param]


@pytest.fixture(params=RECURRENCES)
def recurrence(request):
    return RECURRENCES[request.param]


def make(cell, backend="fused", units=H, **options):
    torch.manual_seed(3)
    return recurlab.RNN(FEATURES, units, cell=cell, backend=backend, dtype=torch.float64, **options)


def point_of(layer, steps=T, batch=B):
    """Return an input and initial states, both to be differentiated by."""
    torch.manual_seed(4)
    shape = (layer.num_layers * layer.num_directions, batch, layer.hidden_size)
    states = [torch.randn(shape, dtype=torch.float64, requires_grad=True) for _ in layer.cell.states]
    return torch.randn(steps, batch, FEATURES, dtype=torch.float64, requires_grad=True), states


def everything(layer, **flags):
    """Return outputs, final states and all gradients; all noise from one seed."""
    x, states = point_of(layer)
    torch.manual_seed(5)
    output, final = layer(x, tuple(states) if len(states) > 1 else states[0], **flags)
    finals = final if isinstance(final, tuple) else (final,)
    sum((p * torch.cos(torch.arange(p.numel()) + 1.0).view(p.shape)).sum() for p in (output, *finals)).backward()
    gradients = {name: p.grad for name, p in layer.named_parameters()}
    gradients |= {"x": x.grad, **{f"start{k}": s.grad for k, s in enumerate(states)}}
    # A leaf that nothing depends on may have no gradient instead of zeros.
    leaves = dict(layer.named_parameters())
    gradients = {name: torch.zeros_like(leaves[name]) if g is None else g for name, g in gradients.items()}
    return {"output": output, **dict(zip(layer.cell.states, finals, strict=True)), **gradients}


def assert_same(found, wanted):
    assert found.keys() == wanted.keys()
    for name in wanted:
        assert_close(found[name], wanted[name], rtol=1e-10, atol=1e-10, msg=lambda text, name=name: f"{name}: {text}")


FLAGS = {
    "mask": torch.tensor([[1, 1, 0], [0, 1, 1], [1, 1, 0], [0, 1, 1], [1, 0, 0]], dtype=torch.bool),
    "resets": torch.tensor([[0, 0, 0], [0, 0, 1], [0, 1, 0], [1, 0, 0], [0, 0, 1]], dtype=torch.bool),
}


def test_auto_takes_the_kernel_and_it_gives_the_numbers_of_the_reference(cell, recurrence):
    layer = make(cell, "auto", **recurrence)
    found = everything(layer)
    assert layer.backends_used == {0: "fused"}
    assert_same(found, everything(make(cell, "eager", **recurrence)))


@pytest.mark.parametrize("options", [{"masked_output": "hold"}, {"zoneout": 0.4, "bidirectional": True}])
def test_masks_resets_noise_and_two_directions_are_those_of_the_reference(cell, recurrence, options):
    options = {"num_layers": 2, "recurrent_dropout": 0.3, "dropconnect": 0.2, **options, **recurrence}
    assert_same(everything(make(cell, **options), **FLAGS), everything(make(cell, "eager", **options), **FLAGS))


@pytest.mark.parametrize("flags", [{}, FLAGS], ids=["plain", "masked"])
def test_gradients_are_those_of_finite_differences(cell, recurrence, flags):
    layer = make(cell, units=3, **recurrence)
    x, states = point_of(layer)
    names, weights = zip(*((n, p.detach().requires_grad_()) for n, p in layer.named_parameters()), strict=True)
    count = len(states)

    def run(x, *rest):
        given = rest[:count] if count > 1 else rest[0]
        output, final = functional_call(layer, dict(zip(names, rest[count:], strict=True)), (x, given), flags)
        return (output, *final) if count > 1 else (output, final)

    assert gradcheck(run, (x, *states, *weights), fast_mode=True)


SAID = {"mgu": "f n", "mingru": "z", "janet": "s candidate", "ligru": "z inner", "cfn": "θ eta"}


@pytest.mark.parametrize("name", SAID)
def test_the_source_speaks_in_the_names_of_the_step(name):
    text = make(CELLS[name]).explain(source=True)
    for local in SAID[name].split():
        assert f" {local} = " in text
    for gate in CELLS[name].gates:
        assert gate in text


def test_a_gate_without_use_has_zero_gradient(recurrence):
    found = everything(make(IgnoredGate(), **recurrence))
    for name in ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0"):
        used, *rest = found[name].chunk(3)
        assert used.all()
        assert not torch.stack(rest).any()


CLASHES = [
    ("a", ("h", "recur_a")),
    ("a", ("h", "x_a")),
    ("a", ("h", "d_h")),
    ("a", ("h", "d_operand")),
    ("h", ("x_h", "h")),
]


@pytest.mark.parametrize(("gate", "states"), CLASHES)
def test_states_named_like_the_tracer_s_own_values_are_kept_apart(gate, states):
    def step(self, x, state, recur):
        h, c = state
        n = tanh(getattr(x, gate) + getattr(recur, gate)(h))
        return 0.5 * n * c + 0.3 * h, 0.4 * c + 0.1 * n * h

    cell = type("Clash", (recurlab.Cell,), {"gates": (gate,), "states": states, "step": step})()
    assert_same(everything(make(cell)), everything(make(cell, "eager")))


def test_locals_named_like_words_of_cpp_are_no_obstacle():
    words = "asm compl bitor xor not_eq typedef sizeof catch true nullptr virtual constexpr export mutable W pow real"
    lines = ["def step(self, x, h, recur):", "    y = x.only + recur.only(h)"]
    lines += [f"    {word} = y = torch.tanh(y) * 1.{k:02}" for k, word in enumerate(words.split(), 1)]
    names = {"torch": torch}
    exec("\n".join([*lines, "    return y + h * " + " * ".join(words.split())]), names)  # noqa: S102
    cell = type("Words", (recurlab.Cell,), {"gates": ("only",), "step": names["step"]})()
    found = everything(make(cell, recurrence="diagonal"))
    assert_same(found, everything(make(cell, "eager", recurrence="diagonal")))


def test_a_cell_s_options_are_part_of_its_kernel():
    x = torch.randn(T, B, FEATURES, dtype=torch.float64)
    outputs = [make(Janet(beta), backend)(x)[0] for beta in (1.0, 2.0) for backend in ("fused", "eager")]
    assert_close(outputs[0], outputs[1], rtol=1e-10, atol=1e-10)
    assert_close(outputs[2], outputs[3], rtol=1e-10, atol=1e-10)
    assert not torch.allclose(outputs[0], outputs[2])


@pytest.mark.parametrize("shown", ["two\nlines", "a backslash \\", '*/ and " and ??/'])
def test_a_cell_may_show_itself_as_it_likes(shown):
    class Shown(MinimalGatedUnit):
        def __repr__(self):
            return shown

    assert_same(everything(make(Shown())), everything(make(Shown(), "eager")))


def test_a_cell_that_is_no_dataclass_is_compiled_once(tmp_path, monkeypatch):
    monkeypatch.setenv("RECURLAB_CACHE", str(tmp_path))  # other processes compile into that of all tests

    class Leaky(recurlab.Cell):
        gates = ("only",)

        def __init__(self):
            self.leak = 0.1875

        def step(self, x, h, recur):
            return h + self.leak * (torch.tanh(x.only + recur.only(h)) - h)

    def compiled():
        return len(list(tmp_path.rglob("*.so")))

    x, _ = point_of(make(Leaky()))
    make(Leaky())(x)
    before = compiled()
    for _ in range(3):
        make(Leaky())(x)
    assert compiled() == before > 0


def test_an_unhashable_cell_changed_before_its_first_run_is_seen():
    for factors in ([0.5, 0.25], [0.75, -0.5]):
        assert_same(everything(make(Unhashable(factors))), everything(make(Unhashable(factors), "eager")))


class Compared(recurlab.Cell):
    """Equal to itself alone."""

    gates = ("only",)

    def step(self, x, h, recur):
        return tanh(x.only + recur.only(h))


@dataclass(frozen=True)
class OfAList(Compared):
    """It has a hash, which fails."""

    factors: list = field(default_factory=lambda: [0.5])


@pytest.mark.parametrize("kind", [Unhashable, Compared, OfAList])
def test_kernels_of_a_cell_that_equals_no_other_go_with_it(kind):
    def run():
        layer = make(kind(), recurrence="diagonal")
        layer(torch.ones(1, 1, FEATURES, dtype=torch.float64))
        assert layer.backends_used == {0: "fused"}
        return len(scan._kernels), weakref.ref(layer.cell)

    gc.collect()
    before = len(scan._kernels)
    within, gone = run()
    gc.collect()
    assert gone() is None
    assert len(scan._kernels) == before < within


@pytest.mark.parametrize("name", ["mgu", "unhashable", "two_phases_and_peepholes"])
def test_copies_of_a_layer_run_the_kernel(name):
    layer = make(CELLS[name])
    x, _ = point_of(layer)
    wanted = layer(x)[0]
    stream = io.BytesIO()
    torch.save(layer, stream)
    stream.seek(0)
    for other in (copy.deepcopy(layer), copy.copy(layer), torch.load(stream, weights_only=False)):
        assert torch.equal(other(x)[0], wanted)
        assert other.backends_used == {0: "fused"}


def test_a_layer_sent_to_a_new_process_runs_the_kernel_there():
    layer = recurlab.RNN(FEATURES, H, cell="indy_gru", backend="fused", dtype=torch.float64)
    layer.requires_grad_(False)  # a result that hangs on a graph can't be sent back
    x, _ = point_of(layer)
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        output, _ = pool.apply_async(layer, (x.detach(),)).get(timeout=120)
    assert torch.equal(output, layer(x)[0])


@pytest.mark.slow
@pytest.mark.parametrize("name", PUBLISHED)
def test_a_diagonal_cell_runs_four_times_as_fast_as_the_reference(name):
    steps, batch, features, units = 784, 32, 64, 128
    layers = {
        backend: recurlab.RNN(features, units, cell=CELLS[name], recurrence="diagonal", backend=backend)
        for backend in ("fused", "eager")
    }
    x = torch.randn(steps, batch, features)
    seconds = {backend: [] for backend in layers}
    for turn in range(4):
        for backend, layer in layers.items():
            start = time.perf_counter()
            layer(x)[0].sum().backward()
            if turn:  # the first compiles
                seconds[backend].append(time.perf_counter() - start)
    fused, eager = (statistics.median(seconds[backend]) for backend in ("fused", "eager"))
    assert eager > 4 * fused, f"{eager:.3f} s against {fused:.3f} s"
