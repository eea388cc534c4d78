"""The first minutes on a GPU: what is wrong is named by its family and its smallest layer, whatever it does."""

import os
import sys
import time
from itertools import count
from pathlib import Path

import pytest
import torch

from recurlab.bench import machine, smoke
from recurlab.bench.families import FAMILIES, PRECISIONS, Layer, layers, verdict
from recurlab.bench.machine import lost
from recurlab.bench.smoke import LIMITS, run_smoke
from recurlab.fuse.registry import MAKERS

CPU = torch.device("cpu")
PLANTED = Path(__file__).with_name("planted.py")
SMALL = Layer("indrnn", "diagonal", 3, 2, 5)

# A process of a family that says what one would, without torch.
FAKE = """
import os, sys, time
family = sys.argv[-1]
print("  gru dense T=2 B=1 H=3 float32: ok: 1e-07 of the norm in output; 1.00 us a step", flush=True)
if family == "hanging":
    print("  gru dense T=2 B=1 H=3 tf32: ", end="", flush=True)
    time.sleep(60)
if family == "wrong":
    print("  gru dense T=2 B=1 H=3 tf32: WRONG: 2e-01 of the norm in output, allowed is 3e-03; 1.00 us a step")
    print("  gru dense T=9 B=1 H=3 float32: WRONG: 3e-01 of the norm in output, allowed is 2e-05; 1.00 us a step")
    sys.exit(1)
if family == "trapped":
    print("  gru dense T=2 B=1 H=3 tf32: FAILED: RuntimeError: launch failure")
    print("the device is lost to this process: forward waited in await")
    sys.exit(1)
if family == "killed":
    print("  gru dense T=9 B=1 H=3 float32: ", end="", flush=True)
    os.abort()
"""
NONE = "import sys\nprint('  gru dense T=2 B=1 H=3 float32: refused: no room')"


def fake(families, capsys, *, code=FAKE, limit=5.0, seconds=60.0):
    """Return how many families failed, and the lines behind the last family's."""
    found = run_smoke(
        CPU, tiny=True, seconds=seconds, limit=limit, command=(sys.executable, "-c", code), families=families
    )
    out = capsys.readouterr().out
    return found, [line.strip() for line in out.partition("smoke: ")[2].splitlines()[1:]], out


def test_a_family_that_hangs_is_ended_and_named_and_the_others_report(capsys):
    start = time.monotonic()
    failed, lines, out = fake(["right", "hanging", "wrong", "trapped", "killed", "last"], capsys)
    assert time.monotonic() - start < 5 + 20  # of the hanging one, and of the others' beginnings
    assert failed == 4
    assert lines == [
        "hanging: hung in gru dense T=2 B=1 H=3 tf32, its limit is 5 s",
        "wrong: gru dense T=2 B=1 H=3 tf32: WRONG: 2e-01 of the norm in output, allowed is 3e-03",
        "trapped: gru dense T=2 B=1 H=3 tf32: FAILED: RuntimeError: launch failure; forward waited in await",
        "killed: ended with -6 in gru dense T=9 B=1 H=3 float32",
    ]
    for family in ("right", "last"):
        assert f"\n{family}: ok, " in f"\n{out}"


def test_a_family_of_which_no_layer_was_served_has_failed(capsys):
    assert fake(["diagonal"], capsys, code=NONE)[:2] == (1, ["diagonal: no layer was served: refused: no room"])


def test_families_that_are_not_reached_are_named(capsys):
    assert fake(["a", "b"], capsys, seconds=1e-9)[1] == ["a: not run: time is up", "b: not run: time is up"]


def test_all_families_fit_into_the_time_of_one_that_hangs():
    assert LIMITS["cuda"] <= 25
    for family in FAMILIES:
        for tiny in (False, True):
            found = layers(family, tiny=tiny)
            assert [one.size for one in found] == sorted(one.size for one in found)
            assert not tiny or found[-1].size <= 6 * 3 * 12


@pytest.fixture
def altered(monkeypatch, skip_unless_able):
    """Return what lets the CPU kernels change a tensor after their forward pass, in a layer of more than one sample."""
    skip_unless_able("fused")

    def alter(change):
        made = MAKERS["cpu"]

        def wrapped(*given):
            kernel = made(*given)
            forward = kernel.forward

            def run(work):
                forward(work)
                change(work)

            kernel.forward = run
            return kernel

        monkeypatch.setitem(MAKERS, "cpu", wrapped)
        monkeypatch.setattr("recurlab.fuse.registry._kernels", {})

    return alter


@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_right_layer_has_its_error_and_its_times(precision, altered):
    altered(lambda one: None)
    text = verdict(SMALL, PRECISIONS[precision], CPU)
    assert text.startswith("ok: ")
    assert " us a step forward, " in text


def test_a_wrong_number_is_told_by_the_first_tensor_that_has_it(altered):
    altered(lambda one: one.output[1, 0, 2].add_(1))
    assert " of the norm in output, allowed is 2e-05; " in verdict(SMALL, PRECISIONS["float32"], CPU)


def test_other_bits_in_the_second_run_are_wrong(altered):
    calls = count()
    altered(lambda one: one.output[0, 0, 0].add_(1e-7 * next(calls)))
    assert verdict(SMALL, PRECISIONS["float32"], CPU).startswith("WRONG: output differs from run to run; ")


def test_an_error_of_one_layer_lets_the_others_run(monkeypatch, capsys):
    def fail(layer, precision, device):
        if precision.tf32:
            raise RuntimeError("an illegal\nmemory access")
        return "ok: "

    monkeypatch.setattr(smoke, "verdict", fail)
    assert smoke.run_family("chunks", CPU, tiny=True) == 1
    assert [line.partition("12 ")[2] for line in capsys.readouterr().out.splitlines()] == [
        "float32: ok: ", "tf32: FAILED: RuntimeError: an illegal memory access", "bfloat16: ok: ",
    ]  # fmt: skip


@pytest.mark.parametrize(("kind", "reason"), [("cuda", "CUDA error: unspecified launch failure"), ("cpu", None)])
def test_a_device_is_lost_once_it_answers_with_an_error(kind, reason, monkeypatch):
    def fail(device):
        raise RuntimeError("CUDA error:\nunspecified launch failure")

    monkeypatch.setattr(torch.cuda, "synchronize", fail)
    assert lost(torch.device(kind)) == reason
    monkeypatch.setattr(machine, "fault", lambda: "kernel dense_forward of GRU: block 3 waited in vain")
    assert lost(torch.device(kind)) == (reason and machine.fault())


def test_a_lost_device_ends_the_family(monkeypatch, capsys):
    monkeypatch.setattr(smoke, "verdict", lambda *_: "ok: ")
    monkeypatch.setattr(smoke, "lost", lambda _: "unspecified launch failure")
    assert smoke.run_family("chunks", CPU, tiny=True) == 1
    assert capsys.readouterr().out.splitlines()[1:] == [
        "the device is lost to this process: unspecified launch failure"
    ]


@pytest.mark.slow
def test_faults_planted_in_the_kernels_of_an_emulated_gpu_are_named(capsys, monkeypatch, skip_unless_able):
    skip_unless_able("fused")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
    command = (sys.executable, str(PLANTED))
    start = time.monotonic()
    assert run_smoke(CPU, tiny=False, seconds=300, limit=LIMITS["cuda"], command=command, families=["hanging"]) == 1
    assert time.monotonic() - start <= 25
    assert "hanging: hung in indrnn diagonal T=3 B=2 H=5 float32, its limit is 25 s\n" in capsys.readouterr().out
    # As long as it takes to compile for an emulation.
    assert run_smoke(CPU, tiny=False, seconds=300, limit=120, command=command, families=["wrong", "right"]) == 1
    (_, line) = capsys.readouterr().out.partition("smoke: ")[2].splitlines()
    assert line.startswith("  wrong: indrnn diagonal T=3 B=3 H=4 float32: WRONG: ")
    assert line.endswith(" of the norm in final state 0, allowed is 2e-05")
