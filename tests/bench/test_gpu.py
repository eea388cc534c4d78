"""The plan for a GPU and the command around it, tried on the CPU; and without what a bare machine lacks."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

import recurlab as package
from measured import rows_in
from recurlab.bench import clock, gpu
from recurlab.bench.candidates import candidates
from recurlab.bench.clock import copy_bandwidth, elapsed
from recurlab.bench.gpu import BROKEN
from recurlab.bench.machine import prepared
from recurlab.bench.measure import measure
from recurlab.bench.plan import FULL, TINY, items
from recurlab.bench.settings import Shape, parse_bench
from recurlab.bench.stages import CALLS, PARITY
from recurlab.errors import RecurlabError

SOURCE = Path(package.__file__).parents[1]
CHECKOUT = SOURCE.parent
# What is installed where torch is, and nothing else.
BARE = """
import sys
for name in ("hydra", "omegaconf", "pytorch_lightning", "lightning", "rich", "matplotlib", "scipy", "datasets"):
    sys.modules[name] = None
"""


@pytest.fixture
def short(monkeypatch):
    """Keep three items of the plan."""
    monkeypatch.setattr(gpu, "items", lambda *given: [items(*given)[place] for place in (8, 10, 4)])


@pytest.mark.usefixtures("pictures")
@pytest.mark.slow
def test_the_plan_runs_and_says_what_was_missed(tmp_path, capsys, monkeypatch, skip_unless_able):
    skip_unless_able("fused")
    some = (8, 10, 11, 6, 12, 15, 22, 24)  # of each kind; test_the_whole_command_on_a_small_trial has all
    monkeypatch.setattr(gpu, "items", lambda *given: [items(*given)[place] for place in some])
    gpu.run_gpu_plan("cpu", str(tmp_path), tiny=True, seconds=600)
    out = capsys.readouterr().out
    rows = rows_in(tmp_path)
    assert {row["status"] for row in rows} == {"ok"}
    assert {row["backend"] for row in rows} == {"fused", "torch"}
    assert {row["option"] for row in rows} == {"none", "zoneout", "mask", "resets", "recurrent_dropout"}
    assert {row["dtype"] for row in rows} == {"float32", "bfloat16", "float16"}
    assert all(float(row["copy_gb_s"]) > 0 and row["recurrence_forward_ms"] for row in rows)
    assert "nothing measured" not in out
    assert "missed: diagonal, B*H < 16384: ns a step: at most 100\n" in out
    assert next(tmp_path.glob("*.png")).read_bytes().startswith(b"\x89PNG")


def test_time_that_is_up_leaves_what_was_measured(short, tmp_path, capsys, monkeypatch):
    clock = iter([0, 1])
    monkeypatch.setattr(gpu.time, "monotonic", lambda: next(clock, 100))
    assert gpu.run_gpu_plan("cpu", str(tmp_path), tiny=True, seconds=50) == 1
    out = capsys.readouterr().out
    assert "time is up: the last 2 of 3 items were not measured, from indy_gru float32 4x2x9x2 on\n" in out
    assert {row["shape"] for row in rows_in(tmp_path)} == {str(TINY.many[0])}


def test_an_item_that_was_lost_is_noted_and_the_next_ones_are_measured(short, tmp_path, capsys):
    assert gpu.run_gpu_plan("cpu", str(tmp_path), tiny=True, seconds=600, first=2, lost=True) == 1
    status = {(row["cell"], row["backend"]): row["status"] for row in rows_in(tmp_path)}
    assert status.pop(("indy_gru", "fused")) == "failed: it did not end"
    assert status == {("gru", "torch"): "ok", ("gru", "fused"): status["gru", "fused"]}
    assert "item 2: " in capsys.readouterr().out


def test_a_lost_device_ends_the_process_after_its_rows_are_kept(short, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(gpu.machine, "lost", lambda device: "an illegal memory access")
    assert gpu.run_gpu_plan("cpu", str(tmp_path), tiny=True, seconds=600) == BROKEN
    assert "the device is lost to this process: an illegal memory access\n" in capsys.readouterr().out
    assert rows_in(tmp_path)


def test_what_no_kernel_serves_is_a_row_with_its_reason(short, tmp_path, monkeypatch):
    monkeypatch.setattr("recurlab.backends.fused.supports", lambda call: "there is no room")
    gpu.run_gpu_plan("cpu", str(tmp_path), tiny=True, seconds=600)
    found = {row["status"] for row in rows_in(tmp_path) if row["backend"] == "fused"}
    assert found == {"not supported: there is no room"}


def test_a_shape_that_no_kernel_has_room_for_is_not_supported_and_no_failure(monkeypatch):
    def run(call):
        raise RecurlabError("backend='eager': no room")

    settings = parse_bench(["cells=rnn", "backends=eager", "shapes=5x2x3x4"])
    found, _ = candidates(settings, beside=False)
    monkeypatch.setattr("recurlab.backends.eager.run", run)
    (result,) = measure(found, settings.shapes[0], settings).values()
    assert result.status == "not supported: backend='eager': no room"


def test_the_full_plan_covers_the_goals():
    plan = items(FULL, "cuda", "somewhere")
    dense = {(item.settings.cells[0], item.settings.dtype, item.shape) for item in plan if item.beside}
    for cell in ("gru", "lstm"):
        for dtype in ("float32", "bfloat16", "float16"):
            shapes = {shape for name, kind, shape in dense if (name, kind) == (cell, dtype)}
            assert shapes == {Shape(512, b, h, h) for b in (1, 16, 64, 128) for h in (128, 256, 512, 1024)}
    assert ("indy_gru", "float32", Shape(1024, 32, 1024, 64)) in dense
    assert all(shape.batch * shape.hidden >= 16_384 for shape in FULL.many)
    assert all(shape.batch * shape.hidden < 16_384 for shape in FULL.few)


def test_the_clock_returns_what_the_work_gave():
    device = torch.device("cpu")
    seconds, result = elapsed(lambda: 3, device, queued=True)
    assert (seconds > 0, result) == (True, 3)
    assert copy_bandwidth(device, size=2**12, repeats=3) > 0


def test_the_time_alone_is_that_of_a_layer_less_its_projection(monkeypatch):
    # No other process lengthens the processor's time, of one thread that waits for none.
    monkeypatch.setattr(clock.time, "perf_counter", time.process_time)
    words = ["cells=gru", "backends=eager", "alone=true", "shapes=40x2x3x4", "repeats=3", "options=bidirectional"]
    settings = parse_bench([*words, "threads=1"])
    found, _ = candidates(settings, beside=False)
    with prepared(settings):
        results = measure(found, settings.shapes[0], settings)
    for result in results.values():
        assert len(result.passes) == len(result.projection) == 3
        for place, alone in enumerate(result.alone):
            assert 0 < alone < max(times[place] for times in result.passes)


def test_an_epoch_is_timed_end_to_end(tiny_mnist):
    from recurlab.bench.epoch import epoch
    from recurlab.data.mnist import MNIST
    from recurlab.data.module import DataModule

    data = DataModule(MNIST(batch_size=16, valid_size=10, dir=str(tiny_mnist), verify=False), seed=0)
    data.setup()
    (line,) = epoch("cpu", data)
    assert line.startswith("epoch of pixel MNIST, 6 layers of IndRNN, 128 units, batches of 16, backend ")
    assert ", 4 steps, " in line


# A machine with torch, numpy, pytest and hypothesis alone


def bare(code, *arguments, **environment):
    return subprocess.run(
        [sys.executable, "-c", BARE + code, *arguments], capture_output=True, text=True, cwd=CHECKOUT,
        env=os.environ | {"PYTHONPATH": str(SOURCE)} | environment,
    )  # fmt: skip


def test_layer_and_bench_need_torch_and_numpy_only(tmp_path):
    code = "from recurlab.cli import main\nimport recurlab\nrecurlab.RNN(2, 3)\nsys.exit(main(sys.argv[1:]))"
    words = ["cells=gru,indrnn", "backends=eager", "shapes=5x2x3x4", "repeats=1", f"output={tmp_path}"]
    done = bare(code, "bench", *words)
    assert done.returncode == 0, done.stderr
    assert "picture: none: " in done.stdout
    assert {row["cell"] for row in rows_in(tmp_path)} == {"gru", "indrnn"}


@pytest.mark.skipif(not (CHECKOUT / "tests").is_dir(), reason="installed without its tests")
def test_the_parity_tests_need_pytest_and_hypothesis_beside_them():
    code = "import pytest\nsys.exit(pytest.main(sys.argv[1:]))"
    words = [PARITY, *CALLS, "--collect-only", "-q", "-p", "no:cacheprovider"]
    done = bare(code, *words, PYTEST_DISABLE_PLUGIN_AUTOLOAD="1")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "test_cuda.py" in done.stdout
