"""Other packages beside ours: who is asked for what, what is kept of each, and who is the best."""

import subprocess
import sys
import time
from dataclasses import replace
from importlib.util import find_spec
from types import ModuleType

import pytest
import torch

from measured import rows_in
from recurlab.bench import floor as floors
from recurlab.bench import measure, others, settings
from recurlab.bench.beside import beside_peers
from recurlab.bench.floor import floor
from recurlab.bench.layers import Case
from recurlab.bench.others import PEERS, Peer
from recurlab.bench.program import Program
from recurlab.bench.settings import Shape, parse_bench

TINY = ["shapes=5x2x3x4", "repeats=1"]


def rows_of(folder):
    return {(row["cell"], row["backend"]): row for row in rows_in(folder / "experiments" / "speed")}


@pytest.fixture
def stand_in(monkeypatch):
    """Put a package of the test in the place of JAX: its forward pass is ours, passed through `change`."""

    def put(change=lambda output: output, wait=0.0, **options):
        def build(module, workload):
            time.sleep(wait)
            work = workload.layer("eager")

            def output():
                with torch.no_grad():
                    return work.call(work.input)[0]

            return Program({"forward": output}, lambda cotangent: {"output": change(output())})

        package = ModuleType("fast_scan")
        package.__version__ = "7.1"
        monkeypatch.setitem(sys.modules, "fast_scan", package)
        usual = {"cells": ("gru", "rnn"), "precisions": ("float32",), "devices": ("cpu",), "extra": "bench"}
        monkeypatch.setitem(PEERS, "jax", Peer("fast_scan", build=build, **(usual | options)))

    return put


def test_all_candidates_can_be_asked_for():
    assert {*settings.OTHERS} == {*PEERS}


def test_a_package_without_a_backward_pass_is_beside_ours_in_the_forward_pass(recurlab, tmp_path, stand_in):
    stand_in()
    code, out, err = recurlab("bench", "cells=rnn", "backends=eager,torch,jax", *TINY)
    assert (code, err) == (0, "")
    rows = rows_of(tmp_path)
    theirs, ours = rows["rnn", "jax"], rows["rnn", "eager"]
    assert (theirs["status"], theirs["version"], theirs["parity_gap"]) == ("ok", "7.1", "0")
    assert float(theirs["forward_ms"]) > 0
    empty = ("forward_backward_ms", "forward_backward_ratio", "step_us", "peak_mib", "forward_best_peer")
    assert {theirs[name] for name in empty} == {""}
    times = {name: float(rows["rnn", name]["forward_ms"]) for name in ("jax", "torch")}
    best = min(times, key=times.get)
    assert ours["forward_best_peer"] == best
    assert float(ours["forward_to_best_peer"]) == pytest.approx(float(ours["forward_ms"]) / times[best], rel=1e-3)
    assert ours["forward_backward_best_peer"] == "torch"
    assert "forward / forward + backward:\n" in out
    assert "forward + backward, beside the best peer: " in out


def test_wrong_numbers_of_a_package_are_no_yardstick(recurlab, tmp_path, stand_in):
    stand_in(change=lambda output: output + 1e-3)
    code, out, _ = recurlab("bench", "cells=rnn", "backends=eager,jax", *TINY)
    assert code == 1
    rows = rows_of(tmp_path)
    assert rows["rnn", "jax"]["status"] == "parity failed"
    assert rows["rnn", "eager"]["forward_best_peer"] == ""
    assert "rnn dense jax 5x2x3x4: parity failed: output is off by " in out


def test_a_package_that_is_not_installed_is_a_line(recurlab, tmp_path, stand_in, monkeypatch):
    stand_in()
    monkeypatch.setitem(sys.modules, "fast_scan", None)
    code, out, _ = recurlab("bench", "cells=rnn", "backends=eager,jax", *TINY)
    assert code == 0
    assert "jax: not measured for rnn dense: not installed: pip install 'recurlab[bench]'\n" in out
    assert ("rnn", "jax") not in rows_of(tmp_path)


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["cells=rnn", "dtype=float64"], "it is measured in float32 alone"),
        (["cells=lstm"], "it has only gru, rnn, without options"),
        (["cells=rnn", "recurrences=diagonal"], "it has only gru, rnn, without options"),
    ],
)
def test_what_a_package_does_not_have_is_a_line(recurlab, stand_in, words, reason):
    stand_in()
    code, out, _ = recurlab("bench", "backends=eager,jax", *words, *TINY)
    assert code == 0
    assert f": {reason}\n" in out


def test_a_package_that_is_never_ready_costs_its_limit(recurlab, tmp_path, stand_in):
    stand_in(wait=30)
    start = time.monotonic()
    code, out, _ = recurlab("bench", "cells=rnn", "backends=eager,jax", "limit=1", *TINY)
    assert code == 0
    assert time.monotonic() - start < 25
    assert "rnn dense jax 5x2x3x4: not supported: it was not ready after limit=1 s\n" in out
    assert rows_of(tmp_path)["rnn", "eager"]["status"] == "ok"


def test_a_step_is_timed_where_it_is_asked_for(recurlab, tmp_path):
    words = ["cells=gru,lstm,rnn", "backends=eager,torch", "options=bidirectional", "step=true"]
    assert recurlab("bench", *words, *TINY)[0] == 0
    rows = rows_in(tmp_path / "experiments" / "speed")
    assert len(rows) == 12
    for row in rows:
        assert (row["step_us"] == "") == (row["option"] == "bidirectional")
    assert all(0 < float(row["step_min_us"]) <= float(row["step_us"]) for row in rows if row["step_us"])
    ours = [row for row in rows if row["backend"] == "eager" and row["option"] == "none"]
    assert {row["step_best_peer"] for row in ours} == {"torch"}


@pytest.mark.parametrize("cell", ["gru", "lstm", "rnn"])
def test_steps_give_what_the_layer_gives(cell):
    wanted = replace(parse_bench([]), step=True)
    for backend in ("eager", "torch"):
        work = others.Workload(Case(cell, "dense", 1, "none"), Shape(1, 2, 3, 4), wanted).layer(backend)
        rows = torch.cat([work.input] * 3)
        right, _ = work.call(rows)
        found = torch.stack([work.step() for _ in range(3)])
        torch.testing.assert_close(found, right)


def test_a_shape_takes_no_more_rounds_than_its_seconds_allow(monkeypatch, recurlab, tmp_path):
    now = iter(range(0, 10_000, 7))
    monkeypatch.setattr(measure.time, "monotonic", lambda: next(now))
    words = ["cells=rnn", "backends=eager", "shapes=5x2x3x4", "repeats=20"]
    assert recurlab("bench", *words, "seconds=30")[0] == 0
    assert {row["repeats"] for row in rows_of(tmp_path).values()} == {"7"}
    assert recurlab("bench", *words, "seconds=1")[0] == 0
    assert {row["repeats"] for row in rows_of(tmp_path).values()} == {"3"}


@pytest.mark.parametrize(
    ("case", "flops", "floats"),
    [
        (Case("indrnn", "diagonal", 1, "none"), (6 * 3, 6 * 3), (2, 4)),
        (Case("gru", "dense", 1, "none"), (18 * 3 + 18 * 6, 18 * 3 + 2 * 18 * 6), (4, 8)),
        (Case("lstm", "block", 2, "none"), (24 * 3 + 24 * 3, 24 * 3 + 2 * 24 * 3), (6, 11)),
    ],
    ids=str,
)
def test_a_floor_is_products_at_their_speed_and_bytes_at_that_of_a_copy(monkeypatch, case, flops, floats):
    shape, rows = Shape(5, 2, 6, 3), 5 * 2
    monkeypatch.setattr(floors, "_product_speed", lambda size, *_: 1e6 + size[0] % 1024)  # of the fastest
    monkeypatch.setattr(floors, "copy_speed", lambda device: 1e5)
    fastest = 1e6 + max(rows, 6 * len(case.built()[0].gates))
    forward, backward = (
        2 * rows * products / fastest + 4 * rows * 6 * moved / 1e5
        for products, moved in zip(flops, floats, strict=True)
    )
    found = floor(case, shape, parse_bench([]))
    assert (found.forward, found.both) == pytest.approx((forward, forward + backward))
    both_ways = floor(replace(case, option="bidirectional"), shape, parse_bench([]))
    assert both_ways.both == pytest.approx(2 * found.both)


def test_the_comparison_takes_our_fastest_and_counts_who_is_ahead():
    def row(backend, forward, both, **values):
        names = (
            "version", "step_us", "forward_floor_ms", "forward_backward_floor_ms",
            *(f"{n}_{what}" for n in ("forward", "forward_backward", "step") for what in ("best_peer", "to_best_peer")),
        )  # fmt: skip
        usual = {"cell": "gru", "recurrence": "dense", "heads": "1", "option": "none", "shape": "5x2x3x4",
                 "status": "ok", "backend": backend, "forward_ms": forward, "forward_backward_ms": both}  # fmt: skip
        return dict.fromkeys(names, "") | usual | values

    ahead = {"forward_best_peer": "torch", "forward_to_best_peer": "0.5", "forward_backward_best_peer": "torch",
             "forward_backward_to_best_peer": "1.5"}  # fmt: skip
    rows = [row("torch", "2", "4"), row("fused", "1", "6", **ahead), row("eager", "9", "9"), row("keras", "4", "")]
    lines = "\n".join(beside_peers(rows)).splitlines()
    (line,) = [line for line in lines if line.startswith("gru dense")]
    assert [cell.strip() for cell in line.split("│")[1:]] == ["5x2x3x4", "fused", "0.50 / 1.50", "0.25 / -"]
    assert (
        "forward, beside the best peer: 1 of 1 at most 1, median 0.50, largest 0.50 (gru dense 5x2x3x4, torch)" in lines
    )
    assert any(line.startswith("forward + backward, beside the best peer: 0 of 1") for line in lines)
    assert beside_peers(rows[1:3]) == []


# The packages themselves, each in a process of its own: they keep threads, and settings made once.


@pytest.mark.slow
@pytest.mark.parametrize(
    ("package", "cells", "passes"),
    [
        ("jax", "gru,lstm,rnn,indrnn,indy_gru,indy_lstm,cudnn_gru", ("forward_ms", "forward_backward_ms", "step_us")),
        ("onnxruntime", "gru,lstm,rnn,indrnn,indy_gru", ("forward_ms", "step_us")),
        ("keras", "gru,lstm,rnn", ("forward_ms", "forward_backward_ms")),
        ("compile", "gru", ("forward_ms", "forward_backward_ms")),
    ],
)
def test_a_package_gives_our_numbers(package, cells, passes, tmp_path):
    if find_spec(PEERS[package].module) is None:
        pytest.skip(f"{package} is not installed: pip install -e .[bench]")
    words = [f"cells={cells}", f"backends=eager,{package}", "step=true", "limit=300", "options=reset_before", *TINY]
    command = [sys.executable, "-m", "recurlab", "bench", *words]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    rows = [row for row in rows_in(tmp_path / "experiments" / "speed") if row["backend"] == package]
    assert {row["cell"] for row in rows} == {*cells.split(",")}
    for row in rows:
        assert row["status"] == "ok", row
        assert row["version"]
        assert all((row[name] != "") == (name in passes) for name in ("forward_ms", "forward_backward_ms", "step_us"))
