"""Cells that users write: what their kernels say, what tells one from another, and how they are copied and sent."""

import copy
import gc
import io
import weakref
from dataclasses import dataclass, field

import pytest
import torch
from torch import tanh
from torch.testing import assert_close

import recurlab
from cell_runs import FEATURES, B, T, assert_same, everything, make, point_of
from recurlab.fuse import registry
from users_cells import CELLS, IgnoredGate, Janet, MinimalGatedUnit, Unhashable

pytestmark = pytest.mark.usefixtures("able", "quick_kernels")


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
        return len(registry._kernels), weakref.ref(layer.cell)

    gc.collect()
    before = len(registry._kernels)
    within, gone = run()
    gc.collect()
    assert gone() is None
    assert len(registry._kernels) == before < within


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
