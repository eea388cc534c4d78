"""Every cell, recurrence, option, input and kind of model as a graph of either format."""

import pytest
import torch
from torch.testing import assert_close
from torch.utils import _pytree as pytree

import recurlab as package
from graphs import DENSE, FEATURES, SIZES, Bank, H, arguments, check, check_bank, kinds, layer_of, onnx_of
from recurlab.cells.activations import ACTIVATIONS
from recurlab.models.sequence_model import SequenceModel

pytestmark = pytest.mark.slow

RECURRENCES = {
    "dense": {},
    "diagonal": {"recurrence": "diagonal"},
    "block": {"recurrence": "block", "heads": 2},
}
LAYERS = {
    **{f"{name} {kind}": {**cell, **recurrence, "num_layers": 2, "bidirectional": True}
       for name, cell in DENSE.items() for kind, recurrence in RECURRENCES.items()},
    "a dense LSTM of another activation": {"cell": "lstm", "activation": "elu", "recurrent_activation": "hardsigmoid"},
    "without a bias": {"cell": "gru", "bias": False, "bidirectional": True},
    "zoneout": {"cell": "gru", "zoneout": 0.2, "bidirectional": True},
    "hold": {"cell": "lstm", "masked_output": "hold", "bidirectional": True},
    "backwards": {"cell": "gru", "go_backwards": True},
    "layer normalisation": {"cell": "lstm", "layer_norm": True, "bidirectional": True},
    "noise of the training": {"cell": "gru", "dropconnect": 0.5, "recurrent_dropout": 0.5, "dropout": 0.5},
    "another layout": {"cell": "lstm", "batch_first": True, "num_layers": 2},
}  # fmt: skip


@pytest.mark.parametrize("suffix", ["onnx", "pt2"])
@pytest.mark.parametrize("case", LAYERS)
def test_every_layer_with_lengths_and_a_state(tmp_path, case, suffix):
    options = LAYERS[case]
    check(layer_of(**options), tmp_path / f"layer.{suffix}", ("hx", "lengths"))
    if suffix == "onnx":
        has_operator = case.endswith((" dense", "bias", "training", "backwards", "layout"))
        found = kinds(tmp_path / "layer.onnx")
        directions = options.get("num_layers", 1) * (2 if options.get("bidirectional") else 1)
        assert found["Scan"] == (0 if has_operator else directions)
        assert found["GRU"] + found["LSTM"] + found["RNN"] == (options.get("num_layers", 1) if has_operator else 0)


@pytest.mark.parametrize("suffix", ["onnx", "pt2"])
@pytest.mark.parametrize("names", [(), ("mask",), ("resets",), ("mask", "resets"), ("lengths", "resets")], ids=str)
@pytest.mark.parametrize("options", [{}, {"go_backwards": True, "masked_output": "hold"}], ids=str)
def test_every_input(tmp_path, names, options, suffix):
    check(layer_of(cell="gru", bidirectional=True, **options), tmp_path / f"layer.{suffix}", names)


def test_every_activation(tmp_path):
    cases = [{"activation": name, "cell": "rnn", "recurrence": "diagonal"} for name in ACTIVATIONS]
    check_bank(Bank(cases), tmp_path / "bank.onnx")
    assert kinds(tmp_path / "bank.onnx")["Scan"] == len(ACTIVATIONS)


def test_double_precision_is_a_scan_as_runtimes_have_no_such_operator(tmp_path):
    layer = layer_of(cell="lstm", dtype=torch.float64, bidirectional=True)
    package.export(layer, tmp_path / "lstm.onnx")
    assert kinds(tmp_path / "lstm.onnx")["Scan"] == 2
    x = torch.randn(7, 5, FEATURES, dtype=torch.float64)
    with torch.no_grad():
        expected = pytree.tree_leaves(layer(x))
    assert_close(onnx_of(tmp_path / "lstm.onnx")(x), expected, rtol=1e-14, atol=1e-14)


MODELS = {
    "plain": {"hidden_size": H, "cell": "gru", "num_layers": 2, "stateful": True},
    "batchnorm": {"hidden_size": H, "cell": "indrnn", "num_layers": 2, "bidirectional": True, "dropout": 0.3},
    "residual": {"hidden_size": H, "cell": "lstm", "num_layers": 4},
}


@pytest.mark.parametrize("suffix", ["onnx", "pt2"])
@pytest.mark.parametrize(
    ("stack", "encoder", "head"),
    [("plain", "embedding", "every"), ("plain", "none", "last"), ("batchnorm", "one_hot", "last"),
     ("residual", "linear", "every")],
)  # fmt: skip
@torch.no_grad()
def test_every_model(tmp_path, stack, encoder, head, suffix):
    options = MODELS[stack]
    units = [(3.0, 20.0), (0.0, 1.0), (-500.0, 0.01), (7.0, 2.0)] if head == "last" else ()
    model = SequenceModel(5, 4, head=head, layer=options, encoder=encoder, stack=stack, output_dropout=0.2, units=units)
    symbols = encoder in ("embedding", "one_hot")
    model(torch.randint(0, 5, (3, 2)) if symbols else torch.randn(3, 2, 5))  # for the statistics of normalisation
    path, names = tmp_path / f"model.{suffix}", ["lengths", "resets"]
    package.export(model, path, names if stack == "plain" else ["hx", *names])
    graph = onnx_of(path) if suffix == "onnx" else torch.export.load(path).module()
    layers = [part for part in model.eval().modules() if isinstance(part, package.RNN)]
    counts = [layer.num_layers * layer.num_directions for layer in layers]
    for steps, batch in SIZES:
        x = torch.randint(0, 5, (batch, steps)) if symbols else torch.randn(batch, steps, 5)
        others = arguments(layer_of(), steps, batch, names)[1]
        others["resets"] = others["resets"].T.contiguous()
        hx = tuple(torch.randn(sum(counts), batch, H) for _ in layers[0].cell.states)
        for layer, state in zip(layers, zip(*(s.split(counts) for s in hx), strict=True), strict=True):
            layer.stateful, layer.carried_state = True, state
        expected = [model(x, **others)]
        expected += [torch.cat(parts) for parts in zip(*(layer.carried_state for layer in layers), strict=True)]
        given = graph(x, hx=hx if len(hx) > 1 else hx[0], **others)
        assert_close(pytree.tree_leaves(given), expected, rtol=1e-6, atol=1e-6)
