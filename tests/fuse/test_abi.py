"""The structs of Python and of C++ are one: made of one table, filled by name, checked by the compiler."""

import ctypes
from dataclasses import fields
from itertools import count
from types import SimpleNamespace

import pytest
import torch

from recurlab.errors import RecurlabError
from recurlab.fuse.abi import CALL, DIRECTION, PHASES, PROBLEM, SIDE_BY_SIDE, STATES, Structs
from recurlab.fuse.cpu import compiler
from recurlab.fuse.cuda.faults import Fault
from recurlab.fuse.kernel import Work

OTHERS = {"cpu": {}, "cuda": {"Fault": Fault}}
BEFORE = """
typedef {real} real, Store;
struct Words;
struct Fault {{ void *record; int of[4]; }};
struct Step {{ static constexpr int GATES = 3, STATES = {states}, PHASES = {phases}; }};
"""
cases = pytest.mark.parametrize(
    ("device", "real", "states", "phases", "normalized"),
    [
        ("cpu", "float", 1, 0, False),
        ("cpu", "double", 3, 2, True),
        ("cuda", "float", 1, 0, True),
        ("cuda", "float", 2, 1, False),
    ],
)


def structs(device, real, states, phases, normalized):
    dtype = {"float": torch.float32, "double": torch.float64}[real]
    return Structs(device, states, phases, dtype, OTHERS[device], normalized=normalized)


def test_a_call_has_the_tensors_of_the_table():
    assert {field.name for field in (*CALL, *DIRECTION)} <= {field.name for field in fields(Work)}


@cases
@pytest.mark.parametrize("directions", [1, 2])
def test_each_value_is_in_the_field_of_its_name(device, real, states, phases, normalized, directions):
    sizes, numbered = {STATES: states, PHASES: max(1, phases)}, count(1)
    tables = [[f for f in table if normalized or not f.normalized] for table in (DIRECTION, PROBLEM, CALL)]
    own = [[f for f in table if f.device in ("", device) and f.type != "Fault"] for table in tables]
    numbers = {f.name: [next(numbered) for _ in range(sizes[f.size])] if f.size else next(numbered) for f in own[1]}
    # Of an array of tensors all but the first are given, if it has more than one; the cuts are null.
    tensors = {f.name: torch.empty(3) for f in own[2]}
    for f in own[0]:
        count_given = max(1, sizes[f.size] - 1) if f.size else 0
        shape = (2, 3, 4 * directions) if f.name in SIDE_BY_SIDE else (directions, *[count_given] * bool(f.size), 5)
        tensors[f.name] = torch.empty(shape)
    tensors["cuts"] = tensors["mask"] = None

    as_list = {"start": list(tensors["start"].unbind(1))} if directions == 1 else {}
    work = SimpleNamespace(**{**tensors, **as_list})
    filled = structs(device, real, states, phases, normalized).filled(numbers, work, directions)
    for name, value in numbers.items():
        found = getattr(filled, name)
        assert (list(found) if isinstance(found, ctypes.Array) else found or 0) == value, name
    for f in own[2]:
        given = tensors[f.name]
        assert getattr(filled, f.name) == (None if given is None else given.data_ptr()), f.name
    for d in range(2):
        for f in own[0]:
            found, tensor = getattr(filled.direction[d], f.name), tensors[f.name]
            found = list(found) if f.size else [found]
            wanted = [None] * len(found)
            if tensor is not None and d < directions:
                part = tensor[..., 4 * d : 4 * d + 4] if f.name in SIDE_BY_SIDE else tensor[d]
                given = [each.data_ptr() for each in (part if f.size else [part])]
                wanted = [*wanted[len(given) :], *given]
            assert found == wanted, f.name


@pytest.mark.skipif(compiler.unavailable() is not None, reason="no C++ compiler on this machine")
@pytest.mark.parametrize(("device", "real", "states", "phases"), [("cpu", "double", 3, 2), ("cuda", "float", 2, 1)])
def test_a_compiler_refuses_structs_that_python_fills_otherwise(device, real, states, phases, tmp_path, monkeypatch):
    monkeypatch.setenv("RECURLAB_CACHE", str(tmp_path))
    text = BEFORE.format(real=real, states=states, phases=phases) + structs(device, real, states, phases, True).text
    compiler.load(text)
    wrongs = [("long batch;", "int batch;"), ("int grad;", "int grad[3];"), ("*seed;", "*seed, *other_seed;")]
    for right, wrong in wrongs:
        assert right in text
        with pytest.raises(RecurlabError, match="static"):
            compiler.load(text.replace(right, wrong))
