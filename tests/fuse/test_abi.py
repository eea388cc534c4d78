"""The structs of Python and of C++ are one: made of one table, filled by name, checked by the compiler."""

import ctypes
from dataclasses import fields
from itertools import count
from types import SimpleNamespace

import pytest
import torch

from recurlab.errors import RecurlabError
from recurlab.fuse.abi import DIRECTION, PHASES, PROBLEM, STATES, Structs
from recurlab.fuse.cpu import compiler
from recurlab.fuse.cuda.faults import Fault
from recurlab.fuse.kernel import Pass

OTHERS = {"cpu": {}, "cuda": {"Fault": Fault}}
BEFORE = """
typedef {real} real, Store;
struct Words;
struct Fault {{ void *record; int of[4]; }};
struct Step {{ static constexpr int GATES = 3, STATES = {states}, PHASES = {phases}; }};
"""
cases = pytest.mark.parametrize(
    ("device", "real", "states", "phases"),
    [("cpu", "float", 1, 0), ("cpu", "double", 3, 2), ("cuda", "float", 1, 0), ("cuda", "float", 2, 1)],
)


def structs(device, real, states, phases):
    dtype = {"float": torch.float32, "double": torch.float64}[real]
    return Structs(device, states, phases, dtype, OTHERS[device])


def test_a_pass_has_the_tensors_of_the_table():
    assert {field.name for field in fields(Pass)} - {"reverse"} == {field.name for field in DIRECTION}


@cases
@pytest.mark.parametrize("directions", [1, 2])
def test_each_value_is_in_the_field_of_its_name(device, real, states, phases, directions):
    sizes, numbered = {STATES: states, PHASES: max(1, phases)}, count(1)
    own = [[f for f in table if f.device in ("", device) and f.type != "Fault"] for table in (DIRECTION, PROBLEM)]
    # Of an array of tensors the first alone is given; the cuts are null.
    passes = [{f.name: [next(numbered)] if f.size else next(numbered) for f in own[0]} for _ in range(directions)]
    numbers = {f.name: [next(numbered) for _ in range(sizes[f.size])] if f.size else next(numbered) for f in own[1]}

    def tensor(value):
        return SimpleNamespace(data_ptr=lambda: value)

    def given(tensors):
        made = {name: [tensor(v[0])] if isinstance(v, list) else tensor(v) for name, v in tensors.items()}
        return SimpleNamespace(**{**made, "cuts": None})

    filled = structs(device, real, states, phases).filled(numbers, [given(one) for one in passes])
    for name, value in numbers.items():
        found = getattr(filled, name)
        assert (list(found) if isinstance(found, ctypes.Array) else found or 0) == value, name
    for place, one in enumerate([*passes, dict.fromkeys(passes[0])][:2]):
        for f in own[0]:
            found, value = getattr(filled.direction[place], f.name), one[f.name]
            if f.size:
                assert list(found) == [*(value or [None]), *[None] * (sizes[f.size] - 1)], f.name
            else:
                assert found == (None if f.name == "cuts" else value), f.name


@pytest.mark.skipif(compiler.unavailable() is not None, reason="no C++ compiler on this machine")
@pytest.mark.parametrize(("device", "real", "states", "phases"), [("cpu", "double", 3, 2), ("cuda", "float", 2, 1)])
def test_a_compiler_refuses_structs_that_python_fills_otherwise(device, real, states, phases, tmp_path, monkeypatch):
    monkeypatch.setenv("RECURLAB_CACHE", str(tmp_path))
    text = BEFORE.format(real=real, states=states, phases=phases) + structs(device, real, states, phases).text
    compiler.load(text)
    wrongs = [("long batch;", "int batch;"), ("int grad;", "int grad[3];"), ("*seed;", "*seed, *other_seed;")]
    for right, wrong in wrongs:
        assert right in text
        with pytest.raises(RecurlabError, match="static"):
            compiler.load(text.replace(right, wrong))
