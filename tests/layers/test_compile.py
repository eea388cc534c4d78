"""torch.compile takes the layer as one graph."""

import pytest
import torch

import recurlab


@pytest.mark.parametrize("cell", ["indrnn", "gru", "lstm"])
def test_the_layer_compiles_as_one_graph_and_gives_the_same_numbers(cell):
    torch.manual_seed(0)
    layer = recurlab.RNN(3, 4, 2, bidirectional=True, cell=cell, dtype=torch.float64)
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    x = torch.randn(5, 2, 3, dtype=torch.float64, requires_grad=True)
    mask = torch.tensor([[1, 1], [1, 0], [0, 1], [1, 1], [1, 0]], dtype=torch.bool)
    (wanted,) = torch.autograd.grad(layer(x, mask=mask)[0].square().sum(), x)
    (found,) = torch.autograd.grad(compiled(x, mask=mask)[0].square().sum(), x)
    torch.testing.assert_close(found, wanted, rtol=1e-12, atol=1e-12)
