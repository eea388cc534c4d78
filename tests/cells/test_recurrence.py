"""A diagonal or block recurrence is the dense one with zeros where no weight is."""

import pytest
import torch
from torch.func import functional_call
from torch.testing import assert_close

import recurlab
from cell_forms import forms

T, B, FEATURES, H, HEADS = 7, 3, 5, 6, 3
CELLS = {**forms(activations=False), "rnn_relu": {"cell": "rnn", "activation": "relu"}}


@pytest.fixture(params=CELLS)
def cell(request):
    torch.manual_seed(3)
    return CELLS[request.param]


def layer_of(cell, recurrence, **options):
    return recurlab.RNN(FEATURES, H, bidirectional=True, dtype=torch.float64, recurrence=recurrence, **cell, **options)


def from_diagonal(weight):
    """Return the dense (G*H, H) of a diagonal (G*H,)."""
    return torch.cat([torch.diag(gate) for gate in weight.split(H)])


def from_block(weight, heads=HEADS):
    """Return the dense (G*H, H) of a block (G*H, H/heads)."""
    return torch.cat([torch.block_diag(*gate.split(H // heads)) for gate in weight.split(H)])


def results(layer, weights, convert):
    """Return outputs, final states and every gradient, the recurrent weights converted to those of `layer`."""
    torch.manual_seed(4)
    x = torch.randn(T, B, FEATURES, dtype=torch.float64, requires_grad=True)
    states = [torch.randn(2, B, H, dtype=torch.float64, requires_grad=True) for _ in layer.cell.states]
    used = {name: convert(w) if "weight_hh" in name else w for name, w in weights.items()}
    output, final = functional_call(layer, used, (x, tuple(states) if len(states) > 1 else states[0]))
    finals = final if isinstance(final, tuple) else (final,)
    loss = sum((part * torch.cos(torch.arange(part.numel()) + 1.0).view_as(part)).sum() for part in (output, *finals))
    return output, finals, torch.autograd.grad(loss, [x, *states, *weights.values()])


def assert_same(one, other):
    assert_close(one, other, rtol=1e-10, atol=1e-10)


def test_diagonal_is_dense_with_diagonal_matrices(cell):
    diagonal, dense = layer_of(cell, "diagonal"), layer_of(cell, "dense")
    weights = dict(diagonal.named_parameters())
    assert weights["weight_hh_l0"].shape == (len(diagonal.cell.gates) * H,)
    assert_same(results(diagonal, weights, lambda w: w), results(dense, weights, from_diagonal))


def test_block_is_dense_with_block_diagonal_matrices(cell):
    block, dense = layer_of(cell, "block", heads=HEADS), layer_of(cell, "dense")
    weights = dict(block.named_parameters())
    assert weights["weight_hh_l0"].shape == (len(block.cell.gates) * H, H // HEADS)
    assert_same(results(block, weights, lambda w: w), results(dense, weights, from_block))


def test_block_with_one_head_is_dense(cell):
    block, dense = layer_of(cell, "block", heads=1), layer_of(cell, "dense")
    weights = dict(dense.named_parameters())
    assert {n: w.shape for n, w in block.named_parameters()} == {n: w.shape for n, w in weights.items()}
    assert_same(results(block, weights, lambda w: w), results(dense, weights, lambda w: w))


def test_block_with_a_head_for_each_unit_is_diagonal(cell):
    block, diagonal = layer_of(cell, "block", heads=H), layer_of(cell, "diagonal")
    weights = dict(diagonal.named_parameters())
    assert_same(results(block, weights, lambda w: w.unsqueeze(1)), results(diagonal, weights, lambda w: w))


def test_the_units_of_a_diagonal_recurrence_do_not_see_each_other(cell):
    layer = layer_of(cell, "diagonal")
    x, zeros = torch.randn(T, B, FEATURES, dtype=torch.float64), torch.zeros(2, B, H, dtype=torch.float64)
    other = zeros.clone()
    other[..., 2] = 1.0
    many = len(layer.cell.states) > 1
    plain, moved = (layer(x, (s, zeros) if many else s)[0].view(T, B, 2, H) for s in (zeros, other))
    changed = (plain != moved).any(0).any(0).any(0)
    assert changed.tolist() == [unit == 2 for unit in range(H)]


@pytest.mark.parametrize("recurrence", ["dense", "diagonal", "block"])
def test_without_bias_is_with_biases_of_zero(cell, recurrence):
    heads = HEADS if recurrence == "block" else 1
    bare, full = layer_of(cell, recurrence, heads=heads, bias=False), layer_of(cell, recurrence, heads=heads)
    shared = dict(bare.named_parameters())
    zero = {name: torch.zeros_like(p) for name, p in full.named_parameters() if name.startswith("bias")}
    assert set(shared) | set(zero) == {name for name, _ in full.named_parameters()}
    x = torch.randn(T, B, FEATURES, dtype=torch.float64)
    assert_same(bare(x), functional_call(full, {**shared, **zero}, (x,)))
