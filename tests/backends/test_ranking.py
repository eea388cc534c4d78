"""Which of cuDNN and the fused kernels `auto` takes on a GPU, by a table of what was measured; no GPU is needed."""

import warnings

import pytest
import torch

import recurlab
from recurlab.backends import cudnn, eager, fused
from recurlab.bench.machine import tf32
from recurlab.cells.gru import GRU
from recurlab.fuse import measured
from recurlab.fuse.cuda import gpu
from recurlab.fuse.cuda import kernel as cuda

HEADER = "cell,recurrence,capability,dtype,hidden,batch,forward_ratio,forward_backward_ratio,device,date"
ROWS = """
gru,dense,9.0,bfloat16,64,1,0.5,1.41,NVIDIA H200,2026-12-01T09:30:00+00:00
gru,dense,9.0,bfloat16,64,64,1.5,0.62,NVIDIA H200,2026-12-01T09:30:00+00:00
gru,dense,9.0,bfloat16,16,64,0.9,1,NVIDIA H200,2026-12-01T09:30:00+00:00
gru,dense,9.0,tf32,64,64,0.9,0.75,NVIDIA H200,2026-12-01T09:30:00+00:00
lstm,dense,9.0,float32,64,16,0.9,1.2,NVIDIA H200,2026-12-01T09:30:00+00:00
lstm,dense,9.0,float32,64,64,0.9,0.8,NVIDIA H200,2026-12-01T09:30:00+00:00
rnn_relu,dense,8.0,bfloat16,64,64,0.9,0.33,NVIDIA A100,2026-12-02T09:30:00+00:00
"""
SUPPORTS = fused.supports
DEVICES = {"9.0": (9, 0), "8.0": (8, 0), "12.0": (12, 0)}


@pytest.fixture
def table(monkeypatch, tmp_path):
    """Give the package a table of its own; return a function that writes it."""

    def write(rows):
        path = tmp_path / f"{len(list(tmp_path.iterdir()))}.csv"
        path.write_text(f"{HEADER}\n{rows.lstrip()}")
        monkeypatch.setattr(measured, "PATH", path)

    return write


@pytest.fixture
def on_gpu(monkeypatch):
    """Let the CPU pass for a GPU that both backends serve; return a function that sets its compute capability."""
    monkeypatch.setattr(cudnn, "supports", lambda call: None)
    monkeypatch.setattr(fused, "supports", lambda call: None)

    def capability(text):
        found = gpu.Properties("NVIDIA H200", DEVICES[text], 132, 232_448)
        monkeypatch.setattr(gpu, "properties", lambda device: found)

    capability("9.0")
    return capability


def explained(hidden, batch, dtype=torch.bfloat16, **options):
    """Return what a layer takes, and its reason against the other of the two."""
    lines = recurlab.RNN(3, hidden, dtype=dtype, **options).explain(batch_size=batch).splitlines()
    taken = lines[0].rpartition(" ")[2]
    other = {"cudnn": "fused", "fused": "cudnn"}[taken]
    return taken, *[line.partition(": ")[2] for line in lines if line.startswith(f"  not {other}: ")]


FIRST = "cudnn comes before it: "


@pytest.mark.parametrize(
    ("hidden", "batch", "taken", "reason"),
    [
        (64, 64, "fused", "takes 0.62 of cuDNN's time (gru dense bfloat16, H=64 B=64 on NVIDIA H200, 2026-12-01)"),
        (64, 1, "cudnn", "takes 1.41 of cuDNN's time (gru dense bfloat16, H=64 B=1 on NVIDIA H200, 2026-12-01)"),
        # as long is not faster
        (16, 64, "cudnn", "takes 1 of cuDNN's time (gru dense bfloat16, H=16 B=64 on NVIDIA H200, 2026-12-01)"),
        (128, 256, "fused", "H=64 B=64"), (33, 16, "fused", "H=64 B=64"), (64, 4, "cudnn", "H=64 B=1 "),
        # as near to 16 as to 64
        (32, 100, "cudnn", "H=16 B=64"),
        (8, 64, "cudnn", "H=16 B=64"),
        (129, 64, "cudnn", "has not been measured near gru dense bfloat16, H=129 B=64 on compute capability 9.0"),
        (7, 64, "cudnn", "has not been measured near gru dense bfloat16, H=7 B=64 on compute capability 9.0"),
        (64, 257, "cudnn", "has not been measured near gru dense bfloat16, H=64 B=257 on compute capability 9.0"),
        (64, 5, "cudnn", "has not been measured near gru dense bfloat16, H=64 B=5 on compute capability 9.0"),
    ],
)  # fmt: skip
def test_the_nearest_row_decides(table, on_gpu, hidden, batch, taken, reason):
    table(ROWS)
    found, line = explained(hidden, batch)
    assert found == taken
    assert reason in line
    assert line.startswith(FIRST) == (taken == "cudnn")


@pytest.mark.parametrize(
    ("capability", "options", "allowed", "batch", "reason"),
    [
        ("9.0", {"cell": "lstm"}, (False, False), 32, FIRST + "fused takes 1.2 of"),  # as near to 16 as to 64
        ("9.0", {"cell": "lstm"}, (False, False), 33, "fused takes 0.8 of"),
        ("9.0", {}, (True, True), 64, "fused takes 0.75 of cuDNN's time (gru dense tf32, "),
        ("9.0", {}, (False, False), 64, FIRST + "fused has not been measured near gru dense float32, "),
        # what torch allows by default
        ("9.0", {}, (True, False), 64, FIRST + "fused has not been measured near gru dense float32 beside tf32, "),
        ("9.0", {"cell": "rnn"}, (True, True), 64, FIRST + "fused has not been measured near rnn_tanh dense tf32, "),
        ("8.0", {"cell": "rnn", "activation": "relu", "dtype": torch.bfloat16}, (True, True), 64, "fused takes 0.33"),
        ("12.0", {}, (True, True), 64, FIRST + "fused has not been measured on compute capability 12.0"),
    ],
)
def test_cell_precision_and_compute_capability_have_to_be_those_of_the_row(
    table, on_gpu, capability, options, allowed, batch, reason
):
    table(ROWS)
    on_gpu(capability)
    with tf32(False):
        torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = allowed
        taken, line = explained(64, batch, **{"dtype": torch.float32} | options)
    assert line.startswith(reason)
    assert taken == ("cudnn" if reason.startswith(FIRST) else "fused")


@pytest.mark.skipif(
    not hasattr(torch.backends.cudnn.rnn, "fp32_precision"), reason="torch 2.8 has the older flag alone"
)
def test_the_precision_of_cudnns_recurrent_layers_may_be_another_than_its_convolutions(table, on_gpu, monkeypatch):
    table(ROWS)
    monkeypatch.setattr(torch.backends.cudnn.rnn, "fp32_precision", "ieee")
    assert explained(64, 64, torch.float32, cell="lstm")[0] == "fused"


def test_under_autocast_its_precision_counts(table, on_gpu):
    table(ROWS)
    with torch.autocast("cpu", torch.bfloat16):
        assert explained(64, 64, torch.float32)[0] == "fused"


def test_a_row_chooses_among_the_two_only_where_both_serve_and_none_is_named(table, on_gpu, monkeypatch):
    table(ROWS)
    assert explained(64, 64, backend="cudnn") == ("cudnn", "backend='cudnn' was asked for")
    assert "  not eager: fused comes before it" in recurlab.RNN(3, 64, dtype=torch.bfloat16).explain(batch_size=64)
    monkeypatch.setattr(fused, "supports", lambda call: "no room")
    assert explained(64, 64) == ("cudnn", "no room")
    monkeypatch.setattr(fused, "supports", lambda call: None)
    monkeypatch.setattr(cudnn, "supports", lambda call: "no such cell")
    assert explained(64, 1) == ("fused", "no such cell")
    with pytest.raises(recurlab.RecurlabError, match="batch_size=0: must be a whole number of at least 1"):
        explained(64, 0)


@pytest.mark.slow
def test_a_compiled_graph_holds_for_all_batches_of_the_same_choice(table, on_gpu, monkeypatch, skip_unless_able):
    skip_unless_able("fused")
    monkeypatch.setattr(fused, "supports", SUPPORTS)
    monkeypatch.setattr(cudnn, "run", eager.run)  # which a graph can hold
    table("rnn_tanh,dense,9.0,float32,6,2,1,0.5,X,2026\nrnn_tanh,dense,9.0,float32,6,32,1,1.5,X,2026")
    layer = recurlab.RNN(3, 6, cell="rnn")
    x, graphs = torch.ones(5, 9, 3), []

    def backend(graph, _):
        graphs.append(graph)
        return graph

    with tf32(False):
        compiled = torch.compile(layer, fullgraph=True, dynamic=True, backend=backend)
        for batch, taken, made in ((4, "fused", 1), (8, "fused", 1), (9, "cudnn", 2)):
            torch.testing.assert_close(compiled(x[:, :batch])[0], layer(x[:, :batch])[0])
            assert layer.backends_used == {0: taken}
            assert len(graphs) == made


def test_a_gpu_of_no_row_is_warned_of_whatever_the_recurrence(table, monkeypatch):
    table(ROWS)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for number in ((9, 0), (12, 0)):
            device = gpu.Properties(f"GPU of {number}", number, 132, 232_448)
            monkeypatch.setattr(gpu, "properties", lambda _, found=device: found)
            cuda.CudaKernel(GRU(), "diagonal", torch.float32, torch.device("cuda"))
    (one,) = caught
    assert "not been measured on GPU of (12, 0) (compute capability 12.0)" in str(one.message)


def test_the_table_of_the_package_can_be_read_and_has_one_row_of_each_point_in_order():
    rows = measured.read(measured.PATH)
    assert measured.PATH.read_text().splitlines()[0] == HEADER
    assert list(rows) == sorted(rows)
    assert len({row.point for row in rows}) == len(rows)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("a,b\n1,2\n", "its columns must be cell, recurrence, "),
        (f"{HEADER}\ngru,dense,9.0,tf32,64,x,1,1,X,2026\n", "line 2: invalid literal for int"),
        (f"{HEADER}\ngru,dense,9.0,tf32,64,1,1,1,X,2026\ngru,dense,9.0,tf32,64,64,nan,1,X,2026\n",
         "line 3: forward_ratio=nan: must be a number, greater than 0"),
        (f"{HEADER}\ngru,dense\n", "line 2: invalid literal for int"),
    ],
)  # fmt: skip
def test_a_table_that_holds_no_measurements_is_named_with_the_line(tmp_path, text, reason):
    (tmp_path / "table.csv").write_text(text)
    with pytest.raises(recurlab.RecurlabError, match="table.csv: " + reason):
        measured.read(tmp_path / "table.csv")
