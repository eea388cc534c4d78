"""Layers to export, what runs a file of ONNX, and a comparison of both."""

import warnings
from collections import Counter

import onnx
import onnxruntime
import torch
from torch import nn
from torch.testing import assert_close
from torch.utils import _pytree as pytree

import recurlab as package

FEATURES, H = 3, 6
SIZES = [(7, 5), (1, 1), (4, 1), (1, 3)]  # T and B, none of them that of the export
DENSE = {
    "gru": {"cell": "gru"},
    "gru_before": {"cell": "gru", "reset": "before"},
    "lstm": {"cell": "lstm"},
    "tanh": {"cell": "rnn"},
    "relu": {"cell": "rnn", "activation": "relu"},
}


def layer_of(**options):
    torch.manual_seed(len(str(options)))
    layer = package.RNN(FEATURES, H, **options)
    with torch.no_grad():
        for weight in layer.parameters():
            weight.uniform_(-0.6, 0.6)
    return layer


def arguments(layer, steps, batch, names):
    """Return a sequence, padded with NaN, and what else is named."""
    count = layer.num_layers * layer.num_directions
    hx = tuple(torch.randn(count, batch, H) for _ in layer.cell.states)
    lengths = torch.randint(1, steps + 1, (batch,))
    lengths[0] = steps
    every = {
        "hx": hx if len(hx) > 1 else hx[0],
        "lengths": lengths,
        "mask": torch.rand(steps, batch) > 0.4,
        "resets": torch.rand(steps, batch) > 0.7,
    }
    x = torch.randn(steps, batch, FEATURES)
    if "lengths" in names:
        x[torch.arange(steps).unsqueeze(1) >= lengths] = torch.nan
    return x, {name: every[name] for name in names}


def kinds(path):
    """Return how often each operator is in a file of ONNX, bodies of loops included."""

    def count(graph):
        for node in graph.node:
            yield node.op_type
            for attribute in node.attribute:
                yield from count(attribute.g)

    model = onnx.load(path)
    onnx.checker.check_model(model)
    assert not model.functions
    return Counter(count(model.graph))


def onnx_of(path):
    """Return what runs a file of ONNX."""
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    names = [entry.name for entry in session.get_inputs()]

    def run(*inputs, **others):
        given = [tensor.numpy() for tensor in pytree.tree_leaves((inputs, others))]
        return [torch.from_numpy(array) for array in session.run(None, dict(zip(names, given, strict=True)))]

    return run


@torch.no_grad()
def check(layer, path, names):
    """Export a layer, and compare what the graph gives with what the layer gives in evaluation."""
    package.export(layer, path, names)
    graph = onnx_of(path) if path.suffix == ".onnx" else torch.export.load(path).module()
    layer.eval()
    for steps, batch in SIZES:
        x, others = arguments(layer, steps, batch, names)
        x = x.transpose(0, 1).contiguous() if layer.batch_first else x
        given, expected = graph(x, **others), layer(x, **others)
        assert_close(pytree.tree_leaves(given), pytree.tree_leaves(expected), rtol=1e-6, atol=1e-6)


class Bank(nn.Module):
    """A user's module: several layers side by side."""

    def __init__(self, cases):
        super().__init__()
        self.layers = nn.ModuleList(layer_of(**case) for case in cases)

    def forward(self, input, h, c, lengths):
        hx = [(h, c) if len(layer.cell.states) == 2 else h for layer in self.layers]
        return [layer(input, state, lengths=lengths) for layer, state in zip(self.layers, hx, strict=True)]


@torch.no_grad()
def check_bank(bank, path):
    """Export a user's module by torch's own function."""
    steps, batch = torch.export.Dim("T"), torch.export.Dim("B")
    shapes = ({0: steps, 1: batch}, {1: batch}, {1: batch}, {0: batch})

    def example(steps, batch):
        x, others = arguments(bank.layers[0], steps, batch, ("lengths",))
        return x, torch.randn(1, batch, H), torch.randn(1, batch, H), others["lengths"]

    with warnings.catch_warnings(action="ignore"):  # torch's own
        torch.onnx.export(bank.eval(), example(3, 2), path, dynamo=True, dynamic_shapes=shapes, verbose=False)
    graph = onnx_of(path)
    for size in SIZES:
        given = example(*size)
        assert_close(graph(*given), pytree.tree_leaves(bank(*given)), rtol=1e-6, atol=1e-6)
