"""Graphs of ONNX and torch.export give the numbers of the layer that they are of, at any T and B."""

import subprocess
import sys
import warnings

import onnx
import pytest
import torch
from torch import nn
from torch.testing import assert_close
from torch.utils import _pytree as pytree

import recurlab as package
from graphs import DENSE, SIZES, Bank, H, arguments, check, check_bank, kinds, layer_of, onnx_of
from recurlab.errors import RecurlabError
from recurlab.models.sequence_model import SequenceModel


class Peephole(package.Cell):
    """A cell of a user, of three states."""

    gates = ("input", "forget")
    states = ("h", "c", "n")

    def step(self, x, state, recur):
        h, c, n = state
        i = torch.sigmoid(x.input + recur.input(h) + c)
        f = torch.sigmoid(x.forget + recur.forget(h * n))
        return torch.tanh(c) * i, f * c + i, n


def test_a_layer_becomes_its_operator_or_one_scan(tmp_path):
    cases = [
        DENSE["gru"], DENSE["gru_before"], DENSE["relu"],
        {"cell": "indrnn", "bias": False},
        {"cell": "lstm", "recurrence": "block", "heads": 2, "zoneout": (0.3, 0.2)},
    ]  # fmt: skip
    check_bank(Bank(cases), tmp_path / "bank.onnx")
    found = kinds(tmp_path / "bank.onnx")
    assert [found[kind] for kind in ("GRU", "RNN", "Scan", "Loop")] == [2, 1, 2, 0]
    assert (found["Relu"], found["Tanh"]) == (1, 2)  # no chain of steps


def test_a_stateful_layer_of_two_has_its_state_as_input_and_output(tmp_path):
    layer = layer_of(cell="lstm", num_layers=2, bidirectional=True, stateful=True, dropout=0.5)
    layer.carried_state = before = (torch.randn(4, 9, H), torch.randn(4, 9, H))
    said = package.export(layer, tmp_path / "lstm.onnx", ["lengths"])
    assert said == (
        f"{tmp_path / 'lstm.onnx'}: input (T, B, 3) float32, h_0 (4, B, 6) float32, c_0 (4, B, 6) float32, "
        "lengths (B) int64 -> output, h_n, c_n"
    )
    assert layer.training
    assert layer.stateful
    assert all(weight.requires_grad for weight in layer.parameters())
    assert all(now is then for now, then in zip(layer.carried_state, before, strict=True))
    assert kinds(tmp_path / "lstm.onnx")["LSTM"] == 2
    model = onnx.load(tmp_path / "lstm.onnx")
    assert [entry.name for entry in model.graph.input] == ["input", "h_0", "c_0", "lengths"]
    assert [entry.name for entry in model.graph.output] == ["output", "h_n", "c_n"]
    assert b"recurlab/" not in (tmp_path / "lstm.onnx").read_bytes()  # no folder of this machine
    layer.eval()
    x, others = arguments(layer, 7, 5, ("hx", "lengths"))
    with torch.no_grad():
        expected = pytree.tree_leaves(layer(x, **others))
    assert_close(onnx_of(tmp_path / "lstm.onnx")(x, **others), expected, rtol=1e-6, atol=1e-6)


@pytest.mark.slow
def test_a_cell_of_a_user_with_a_mask_and_resets(tmp_path):
    check(layer_of(cell=Peephole()), tmp_path / "own.onnx", ("hx", "mask", "resets"))
    found = kinds(tmp_path / "own.onnx")
    assert (found["Tanh"], found["Scan"]) == (1, 2)  # no chain of steps; the other one finds the resets between masks


ALONE = """
import sys, torch
graph = torch.export.load(sys.argv[1]).module()
for x, others, expected in torch.load(sys.argv[2]):
    torch.testing.assert_close(graph(x, **others), expected, rtol=1e-6, atol=1e-6)
assert not any(name.startswith("recurlab") for name in sys.modules)
assert "torch._inductor.compile_fx" not in sys.modules  # which a graph with a gradient would ask to compile it
"""


@pytest.mark.slow
def test_a_pt2_runs_without_recurlab(tmp_path):
    layer = layer_of(cell="indy_gru", bidirectional=True, masked_output="hold", backend="fused")
    package.export(layer, tmp_path / "gru.pt2", ("mask", "resets"))
    cases = [arguments(layer, *size, ("mask", "resets")) for size in SIZES]
    with torch.no_grad():
        torch.save([(x, others, layer(x, **others)) for x, others in cases], tmp_path / "numbers.pt")
    command = [sys.executable, "-I", "-c", ALONE, tmp_path / "gru.pt2", tmp_path / "numbers.pt"]
    subprocess.run(command, check=True, cwd=tmp_path)


def test_a_trained_run_is_exported_by_a_command(recurlab, tiny_data, tmp_path, monkeypatch):
    monkeypatch.setenv("RECURLAB_DATA", str(tiny_data))
    code, _, err = recurlab(
        "train", "experiment=japanese_vowels/gru", "data.verify=false", "data.valid_size=9", "trainer.max_epochs=1",
        "trainer.accelerator=cpu", "trainer.enable_progress_bar=false", "model.hidden_size=8",
        "model.bidirectional=true",
    )  # fmt: skip
    assert (code, err) == (0, "")
    (status,) = tmp_path.rglob("status.json")
    run = status.parent
    (tmp_path / "model.onnx").write_text("an old one")
    code, out, err = recurlab("export", str(run), "model.onnx", "--inputs", "lengths")
    assert (code, err) == (0, "")
    assert out == "model.onnx: input (B, T, 12) float32, lengths (B) int64 -> output\n"
    assert {path.name for path in tmp_path.iterdir()} == {"model.onnx", "runs"}
    model, lengths = package.load_run(run), torch.tensor([5, 1, 3, 9])
    x = torch.randn(4, 9, 12)
    with torch.no_grad():
        expected = model(x, lengths)
    assert_close(onnx_of("model.onnx")(x, lengths), [expected], rtol=1e-6, atol=1e-6)
    assert kinds("model.onnx")["GRU"] == 1


class Asks(package.Cell):
    """A cell whose path depends on numbers, as no graph can."""

    gates = ("hidden",)

    def step(self, x, h, recur):
        new = torch.tanh(x.hidden + recur.hidden(h))
        return new if new.sum() >= 0 else -new


def test_a_step_that_no_graph_can_hold_is_refused_in_a_line(tmp_path, capfd):
    layer = package.RNN(2, 3, cell=Asks())
    with pytest.raises(RecurlabError, match=r"asks\.pt2': this model can't be exported: .*data-dependent") as caught:
        package.export(layer, tmp_path / "asks.pt2")
    assert "\n" not in str(caught.value)
    assert capfd.readouterr() == ("", "")
    assert not list(tmp_path.iterdir())
    assert layer.training
    assert all(weight.requires_grad for weight in layer.parameters())


def test_what_cant_be_written_is_refused(tmp_path, monkeypatch):
    layer = package.RNN(2, 3, cell="rnn")
    (tmp_path / "folder.onnx").mkdir()
    (tmp_path / "taken").write_text("mine")
    refused = {
        "a.onx": r"a\.onx': must end in \.onnx or \.pt2; did you mean '\.onnx'\?$",
        "model": r"model': must end in \.onnx or \.pt2$",
        "folder.onnx": r"folder\.onnx': is a folder$",
        "taken/a.pt2": r"taken/a\.pt2': can't be written: ",
    }
    for name, text in refused.items():
        with pytest.raises(RecurlabError, match=text):
            package.export(layer, tmp_path / name)
    for given, text in ((["length"], "inputs='length': allowed are hx, lengths, mask, resets; did you mean 'lengths'"),
                        (["lengths", "mask"], "inputs='mask': not together with 'lengths'")):  # fmt: skip
        with pytest.raises(RecurlabError, match=text):
            package.export(layer, tmp_path / "a.pt2", given)
    model = SequenceModel(2, 1, head="last", layer={"hidden_size": 3})
    with pytest.raises(RecurlabError, match="inputs='mask': allowed are hx, lengths, resets"):
        package.export(model, tmp_path / "a.pt2", ["mask"])
    with pytest.raises(RecurlabError, match=r"module=GRU: must be a recurlab\.RNN or the model of a run"):
        package.export(nn.GRU(2, 3), tmp_path / "a.pt2")
    monkeypatch.setattr("recurlab.deploy.find_spec", lambda name: None)
    with pytest.raises(RecurlabError, match=r"needs the package onnx: pip install 'recurlab\[export\]'"):
        package.export(layer, tmp_path / "a.onnx")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["folder.onnx", "taken"]


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["nowhere", "a.onnx"], "run='nowhere': not a run directory"),
        (["nowhere", "a.onx"], "file='a.onx': must end in .onnx or .pt2"),
        (["nowhere"], "'nowhere': export takes a run's directory and a file"),
        (["nowhere", "a.pt2", "--inputs", "lenghts"], "inputs='lenghts': allowed are hx, lengths, resets"),
    ],
)
def test_a_wrong_command_is_one_line(recurlab, tmp_path, words, text):
    code, out, err = recurlab("export", *words)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert err.startswith(f"recurlab: {text}")
    assert not list(tmp_path.iterdir())


class Around(nn.Module):
    def __init__(self):
        super().__init__()
        self.rnn = package.RNN(3, H)

    def forward(self, x):
        return self.rnn(x)[0]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("make", [lambda: package.RNN(3, H), lambda: package.RNN(3, H, backend="eager"), Around])
def test_the_old_exporter_is_told_of_the_way_that_works(tmp_path, make):
    with pytest.raises(RecurlabError, match=r"^torch\.onnx\.export\(dynamo=False\): .*dynamo=True.*recurlab\.export"):
        torch.onnx.export(make().eval(), (torch.zeros(4, 2, 3),), tmp_path / "layer.onnx", dynamo=False)


def test_a_trace_of_the_reference_is_still_one():
    layer = package.RNN(3, H, backend="eager").eval()
    x = torch.randn(4, 2, 3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        traced = torch.jit.trace(layer, (x,))
    assert torch.equal(traced(x)[0], layer(x)[0])
