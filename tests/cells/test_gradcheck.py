"""First and second derivatives against finite differences, for every cell with every recurrence."""

import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck
from torch.func import functional_call

import recurlab
from cell_forms import forms
from recurlab.backends import BACKENDS

T, B, FEATURES, HEADS = 4, 2, 2, 2
UNITS = {"dense": 3, "diagonal": 2, "block": 4}
CELLS = {**forms(activations=False), "rnn_relu": {"cell": "rnn", "activation": "relu"}}
# Sample 0 skips steps 1 and 3, sample 1 is reset before step 2.
FLAGS = {
    "mask": torch.tensor([[True, True], [False, True], [True, True], [False, True]]),
    "resets": torch.tensor([[False, False], [False, False], [False, True], [False, False]]),
}


@pytest.fixture(params=CELLS)
def cell(request):
    return CELLS[request.param]


FIRST_ORDER = [name for name in BACKENDS if name != "cudnn"]


def differentiable(cell, recurrence, flags, backend, **options):
    """Return a function of input, states and weights, and the point to differentiate it at."""
    torch.manual_seed(9)
    heads = HEADS if recurrence == "block" else 1
    made = {"recurrence": recurrence, "heads": heads, "backend": backend, "dtype": torch.float64}
    layer = recurlab.RNN(FEATURES, UNITS[recurrence], **made, **cell, **options).eval()
    names, weights = zip(*((name, p.detach().requires_grad_()) for name, p in layer.named_parameters()), strict=True)
    count = len(layer.cell.states)
    x = torch.randn(T, B, FEATURES, dtype=torch.float64, requires_grad=True)
    places = layer.num_layers * layer.num_directions
    states = [torch.randn(places, B, layer.hidden_size, dtype=torch.float64, requires_grad=True) for _ in range(count)]

    def run(x, *rest):
        state = rest[0] if count == 1 else rest[:count]
        output, final = functional_call(layer, dict(zip(names, rest[count:], strict=True)), (x, state), flags)
        return (output, *final) if count > 1 else (output, final)

    return run, (x, *states, *weights)


@pytest.mark.parametrize("backend", FIRST_ORDER)
@pytest.mark.parametrize("recurrence", ["dense", "diagonal", "block"])
@pytest.mark.parametrize("flags", [{}, FLAGS], ids=["plain", "masked"])
def test_gradients_are_those_of_finite_differences(cell, recurrence, flags, backend, skip_unless_able):
    skip_unless_able(backend)
    assert gradcheck(*differentiable(cell, recurrence, flags, backend))


@pytest.mark.parametrize("recurrence", ["dense", "diagonal", "block"])
def test_second_derivatives_are_those_of_finite_differences(cell, recurrence):
    run, point = differentiable(cell, recurrence, FLAGS, "eager")
    assert gradgradcheck(run, point, fast_mode=True)


@pytest.mark.parametrize("recurrence", ["dense", "diagonal", "block"])
def test_the_fused_kernels_refuse_a_second_derivative_by_name(cell, recurrence, skip_unless_able):
    skip_unless_able("fused")
    run, point = differentiable(cell, recurrence, {}, "fused")
    first = torch.autograd.grad(run(*point)[0].square().sum(), point[0], create_graph=True)[0]
    with pytest.raises(recurlab.RecurlabError, match="backend='fused': it has no second derivative; backend='eager'"):
        first.square().sum().backward()


@pytest.mark.parametrize("backend", FIRST_ORDER)
@pytest.mark.parametrize("masked_output", ["zero", "hold"])
def test_gradients_hold_through_two_directions_zoneout_and_masked_outputs(
    cell, masked_output, backend, skip_unless_able
):
    skip_unless_able(backend)
    options = {"bidirectional": True, "masked_output": masked_output, "zoneout": 0.3}
    run, point = differentiable(cell, "dense", FLAGS, backend, **options)
    assert gradcheck(run, point, fast_mode=True)
