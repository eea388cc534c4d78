"""Our layer beside others: who is asked, what is kept of them, and that no peer ends the run."""

import csv
import sys
from itertools import count
from types import ModuleType, SimpleNamespace

import pytest
import torch
from torch import nn

from measured import rows_in
from recurlab.bench import machine, others, peers
from recurlab.bench.layers import LayerCall
from recurlab.bench.measure import Timings
from recurlab.bench.others import PEERS, Peer
from recurlab.bench.peers import FIELDS, peers_summary, run_peers
from recurlab.bench.plan import FULL
from recurlab.bench.settings import Shape


def stacked(module, workload):
    """Build a peer of one product."""
    layer = nn.Linear(workload.shape.features, workload.shape.hidden)
    return LayerCall(layer, lambda x: (layer(x),), torch.randn(workload.shape.steps, 2, workload.shape.features), {})


def broken(module, workload):
    raise OSError("no\ncompiler")


@pytest.fixture
def ask(monkeypatch, tmp_path):
    """Run with these peers, and with our layer in its place a result that is known; return the code and the rows."""

    def ask(peers_of_test, *, ours=None, seconds=60):
        monkeypatch.setattr(peers, "PEERS", peers_of_test)
        monkeypatch.setattr(machine, "_plain_name", lambda: "Some GPU (TM)")
        result = ours or Timings("ok", forward=[2.0, 1.0, 9.0], both=[4.0, 4.0, 4.0])
        monkeypatch.setattr(peers, "_ours", lambda workload: result)
        return run_peers("cpu", str(tmp_path), tiny=True, seconds=seconds), rows_in(tmp_path, "some-gpu-peers.csv")

    return ask


def test_an_installed_package_is_a_row_beside_ours(ask, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "fast_rnns", ModuleType("fast_rnns"))
    sys.modules["fast_rnns"].__version__ = "7.1"
    monkeypatch.setattr(peers, "seconds", lambda program, work: {"forward": 3.0, "both": 6.0}[work.__name__])
    code, rows = ask({"fast": Peer("fast_rnns", ("lstm",), ("tf32", "float32"), stacked)})
    assert code == 0
    assert [(row["peer"], row["cell"], row["dtype"], row["tf32"]) for row in rows] == [
        (peer, "lstm", "float32", wide) for wide in ("true", "false") for peer in ("recurlab", "fast")
    ]
    ours, theirs, *_ = rows
    assert tuple(theirs) == FIELDS
    shared = {"shape": "3x2x6x6", "status": "ok", "device": "Some GPU (TM)", "torch": torch.__version__}
    assert theirs.items() >= shared.items() >= {"shape": ours["shape"]}.items()
    assert (theirs["version"], theirs["forward_ms"], theirs["forward_backward_ms"]) == ("7.1", "3000", "6000")
    assert (theirs["forward_ratio_to_ours"], theirs["forward_backward_ratio_to_ours"]) == ("1.5", "1.5")
    assert (ours["forward_ms"], ours["forward_backward_ratio_to_ours"]) == ("2000", "1")
    assert theirs["date"]
    out = capsys.readouterr().out
    assert "lstm tf32 3x2x6x6 fast: 6000 ms, 1.5 times ours\n" in out
    assert "     1.5      1.5      1.5  fast lstm float32, 1 shapes\n" in out


def test_no_peer_ends_the_run(ask, monkeypatch, capsys):
    class Odd:
        def find_spec(self, name, *_):
            if name == "odd_rnns":
                raise RuntimeError("no CUDA\nhere")

    monkeypatch.setattr(sys, "meta_path", [Odd(), *sys.meta_path])
    found = {
        "absent": Peer("no_such_rnns", ("gru",), ("float32",), stacked),
        "odd": Peer("odd_rnns", ("gru",), ("float32",), stacked),
        "broken": Peer("json", ("gru",), ("float32",), broken),
        "good": Peer("torch", ("gru",), ("float32",), stacked),
    }
    code, rows = ask(found)
    assert code == 0
    out = capsys.readouterr().out
    assert "skipped: absent: not installed\n" in out
    assert "skipped: odd: can't be imported: RuntimeError: no CUDA here\n" in out
    assert "gru float32 3x2x6x6 broken: failed: OSError: no compiler\n" in out
    assert [(row["peer"], row["status"]) for row in rows] == [
        ("recurlab", "ok"), ("broken", "failed: OSError: no compiler"), ("good", "ok")
    ]  # fmt: skip
    assert {name for name in FIELDS if name.endswith(("_ms", "_ours")) and rows[1][name]} == set()


def test_wrong_numbers_of_ours_are_timed_and_compared_with_nothing(ask, capsys):
    code, rows = ask(
        {"good": Peer("torch", ("gru",), ("float32",), stacked)},
        ours=Timings("parity failed", forward=[1.0], both=[2.0]),
    )
    assert code == 1
    assert [row["status"] for row in rows] == ["parity failed", "ok"]
    assert rows[0]["forward_ms"] == "1000"
    assert not [row for row in rows if row["forward_ratio_to_ours"] or row["forward_backward_ratio_to_ours"]]
    assert "recurlab gru float32: parity failed: 1 shapes\n" in capsys.readouterr().out


def test_nothing_is_begun_when_the_time_is_up_and_what_is_known_is_kept(ask, monkeypatch, capsys):
    monkeypatch.setattr(peers, "time", SimpleNamespace(monotonic=count().__next__))
    code, rows = ask({"good": Peer("torch", ("gru", "lstm"), ("float32",), stacked)}, seconds=3)
    assert (code, [(row["peer"], row["cell"]) for row in rows]) == (
        0, [("recurlab", "gru"), ("good", "gru"), ("recurlab", "lstm")]
    )  # fmt: skip
    out = capsys.readouterr().out
    assert "time is up: the last 1 of 4 were not begun, from lstm float32 3x2x6x6 good on\n" in out


def test_a_device_that_a_peer_has_broken_ends_it_after_its_row(ask, monkeypatch, capsys):
    monkeypatch.setattr(peers, "lost", lambda device: "an illegal memory access")
    code, rows = ask({"broken": Peer("torch", ("gru", "lstm"), ("float32",), broken)})
    assert (code, [row["peer"] for row in rows]) == (0, ["recurlab", "broken"])
    assert "the device is lost to this process: an illegal memory access\n" in capsys.readouterr().out


def test_a_row_is_on_disk_before_the_next_is_begun(ask, tmp_path):
    seen = []

    def look(module, workload):
        with (tmp_path / "some-gpu-peers.csv").open() as file:
            seen.append([row["peer"] for row in csv.DictReader(file)])
        return stacked(module, workload)

    ask({name: Peer("torch", ("gru",), ("float32",), look) for name in ("a", "b")})
    assert seen == [["recurlab"], ["recurlab", "a"]]


def test_torchs_layer_and_ours_are_timed(tmp_path, monkeypatch, skip_unless_able):
    skip_unless_able("fused")
    monkeypatch.setattr(peers, "PEERS", {"torch": Peer("torch", ("gru",), ("float32",), PEERS["torch"].build)})
    assert run_peers("cpu", str(tmp_path), tiny=True, seconds=60) == 0
    rows = rows_in(tmp_path)
    assert [(row["peer"], row["version"], row["status"]) for row in rows] == [
        ("recurlab", "0.1.0", "ok"), ("torch", torch.__version__, "ok")
    ]  # fmt: skip
    ratio = float(rows[1]["forward_backward_ms"]) / float(rows[0]["forward_backward_ms"])
    assert float(rows[1]["forward_backward_ratio_to_ours"]) == pytest.approx(ratio, rel=1e-3)


def test_the_plan_has_every_dense_shape_and_what_compiles_long_comes_last():
    plan = list(peers.order(FULL, "cuda", ["torch", "torch.compile", "haste_pytorch"]))
    shapes = {(p.cell, p.precision, p.shape) for p, name in plan if name == "torch"}
    assert shapes == {
        (cell, precision, Shape(512, b, h, h))
        for cell in ("gru", "lstm") for precision in others.PRECISIONS
        for b in (1, 16, 64, 128) for h in (128, 256, 512, 1024)
    }  # fmt: skip
    names = [name for _, name in plan]
    assert set(names[names.index("torch.compile") :]) == {"torch.compile"}
    assert {p.precision for p, _ in plan if p.cell == "indrnn"} == {"float32"}
    for workload in {p for p, _ in plan}:
        assert next(name for p, name in plan if p == workload) == peers.OURS
    assert peers_summary([]) == ["peers: times as long as ours, forward and backward: median, least and most"]


# How each package is called: doubles that hold what is given against the shapes that its documentation tells


def built(name, module, cell, precision="float32"):
    work = PEERS[name].build(module, peers.workload_of(cell, Shape(7, 3, 4, 5), precision, "cpu", 1))
    output = work.call(work.input)[0]
    output.sum().backward()
    assert all(p.grad is not None for p in work.layer.parameters())
    return output.shape


@pytest.mark.parametrize(("cell", "gates", "states"), [("gru", 3, 1), ("lstm", 4, 2)])
def test_flashrnn_is_given_projections_batch_first_with_one_head(cell, gates, states):
    def flashrnn(projected, weight, bias, *, function, backend, dtype):
        assert (projected.shape, weight.shape, bias.shape) == ((3, 7, gates, 1, 4), (gates, 1, 4, 4), (4, 1, 4))
        assert (function, backend, dtype) == (cell, "cuda_fused", "float16")
        hidden = projected[:, :, 0] + weight.sum() + bias.sum()
        return torch.stack([hidden] * states), None

    assert built("flashrnn", SimpleNamespace(flashrnn=flashrnn), cell, "float16") == (3, 7, 1, 4)


@pytest.mark.parametrize("cell", ["gru", "lstm", "indrnn"])
def test_haste_is_given_the_time_first(cell):
    names = {"gru": "GRU", "lstm": "LSTM", "indrnn": "IndRNN"}
    kinds = dict.fromkeys(names.values()) | {names[cell]: nn.RNN}
    assert built("haste_pytorch", SimpleNamespace(**kinds), cell) == (7, 3, 4)
    assert set(PEERS["haste_pytorch"].precisions) == {"float32"}


def test_xlstms_cell_is_given_projections_time_first(monkeypatch):
    class Cell(nn.Module):
        def __init__(self, config):
            super().__init__()
            given = {"hidden_size": 4, "num_heads": 1, "batch_size": 3, "function": "lstm", "dtype": "float32"}
            assert vars(config).items() >= given.items()
            self.weight = nn.Parameter(torch.ones(4))

        def forward(self, x):
            assert x.shape == (7, 3, 16)
            return self.weight * x[..., :4], None

    name = "xlstm.blocks.slstm.cell"
    monkeypatch.setitem(sys.modules, name, SimpleNamespace(sLSTMCell=Cell, sLSTMCellConfig=SimpleNamespace))
    assert built("xlstm", ModuleType("xlstm"), "lstm") == (7, 3, 4)


@pytest.mark.parametrize(("cell", "states"), [("gru", ["h"]), ("lstm", ["h", "c"])])
@pytest.mark.parametrize(("precision", "products"), [("tf32", "tf32"), ("float32", "ieee")])
def test_torchrls_module_is_given_a_batch_without_a_start_in_it(cell, states, precision, products, monkeypatch):
    class Module(nn.GRU):
        def __init__(self, *, input_size, hidden_size, device, in_keys, out_keys, **options):
            super().__init__(input_size, hidden_size, batch_first=True)
            assert in_keys == ["x", *states]
            assert out_keys == ["y", *(("next", state) for state in states)]
            assert options == {"default_recurrent_mode": True, "recurrent_backend": "triton",
                               "recurrent_matmul_precision": products}  # fmt: skip

        def forward(self, batch):
            assert batch["is_init"].shape == (3, 7, 1)
            assert not batch["is_init"].any()
            return {"y": super().forward(batch["x"])[0]}

    kind = {"gru": "GRUModule", "lstm": "LSTMModule"}[cell]
    modules = SimpleNamespace(**{"GRUModule": None, "LSTMModule": None, kind: Module})
    monkeypatch.setitem(sys.modules, "torchrl.modules", modules)
    monkeypatch.setitem(sys.modules, "tensordict", SimpleNamespace(TensorDict=lambda items, batch: items))
    assert built("torchrl", ModuleType("torchrl"), cell, precision) == (3, 7, 4)
