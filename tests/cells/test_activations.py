"""Every activation that can be named is the function of that name."""

import math

import pytest
import torch
from torch.testing import assert_close

import recurlab
from recurlab.cells.activations import ACTIVATIONS

pytestmark = pytest.mark.usefixtures("quick_kernels")  # few other tests have these kernels

# Written with the standard library only, from each function's definition.
DEFINITIONS = {
    "linear": lambda a: a,
    "tanh": math.tanh,
    "relu": lambda a: max(a, 0.0),
    "sigmoid": lambda a: 1 / (1 + math.exp(-a)),
    "leaky_relu": lambda a: a if a > 0 else 0.01 * a,
    "elu": lambda a: a if a > 0 else math.expm1(a),
    "selu": lambda a: 1.0507009873554805 * (a if a > 0 else 1.6732632423543772 * math.expm1(a)),
    "gelu": lambda a: a * 0.5 * (1 + math.erf(a / math.sqrt(2))),
    "silu": lambda a: a / (1 + math.exp(-a)),
    "mish": lambda a: a * math.tanh(math.log1p(math.exp(a))),
    "softplus": lambda a: math.log1p(math.exp(a)),
    "softsign": lambda a: a / (1 + abs(a)),
    "hardtanh": lambda a: min(max(a, -1.0), 1.0),
    "hardsigmoid": lambda a: min(max(a / 6 + 0.5, 0.0), 1.0),
    "sin": math.sin,
}


def test_every_activation_has_a_definition_here():
    assert set(ACTIVATIONS) == set(DEFINITIONS)


@pytest.mark.parametrize("name", DEFINITIONS)
def test_an_rnn_applies_the_activation_that_is_named(name):
    layer = recurlab.RNN(1, 1, cell="rnn", activation=name, bias=False, dtype=torch.float64)
    layer.load_state_dict({"weight_ih_l0": torch.ones(1, 1), "weight_hh_l0": torch.zeros(1, 1)})
    points = torch.linspace(-4.5, 4.5, 11, dtype=torch.float64)
    wanted = torch.tensor([DEFINITIONS[name](a) for a in points.tolist()], dtype=torch.float64)
    assert_close(layer(points.view(-1, 1, 1))[0].flatten(), wanted, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("name", DEFINITIONS)
@pytest.mark.parametrize("cell", ["rnn", "gru", "lstm"])
def test_every_cell_runs_and_learns_with_every_activation(cell, name):
    torch.manual_seed(8)
    layer = recurlab.RNN(3, 4, cell=cell, activation=name, dtype=torch.float64, backend="eager")
    layer(torch.randn(5, 2, 3, dtype=torch.float64))[0].square().sum().backward()
    assert all(p.grad.isfinite().all() and p.grad.any() for p in layer.parameters())


def at(cell, *points, **options):
    """Return h' of one unit whose gates are given, from a state of one half whose recurrent weights are all 1."""
    layer = recurlab.RNN(len(points), 1, cell=cell, bias=False, dtype=torch.float64, backend="eager", **options)
    layer.load_state_dict({"weight_ih_l0": torch.eye(len(points)), "weight_hh_l0": torch.ones(len(points), 1)})
    start = tuple(torch.full((1, 1), 0.5, dtype=torch.float64) for _ in layer.cell.states)
    return layer(torch.tensor([points], dtype=torch.float64), start if len(start) > 1 else start[0])[0].item()


@pytest.mark.parametrize("name", DEFINITIONS)
def test_the_gates_have_an_activation_of_their_own(name):
    sigma = DEFINITIONS[name]
    r, z = sigma(0.5 - 0.7), sigma(0.5 + 0.3)
    wanted = (1 - z) * math.tanh(0.9 + r * 0.5) + z * 0.5
    for reset in ("after", "before"):  # the same without biases and with weights of 1
        found = at("gru", -0.7, 0.3, 0.9, reset=reset, recurrent_activation=name)
        assert found == pytest.approx(wanted, abs=1e-12)
    i, f, o = (sigma(0.5 + a) for a in (-0.7, 0.3, 1.1))
    wanted = o * math.tanh(f * 0.5 + i * math.tanh(0.5 + 0.9))
    assert at("lstm", -0.7, 0.3, 0.9, 1.1, recurrent_activation=name) == pytest.approx(wanted, abs=1e-12)


def test_none_is_linear():
    both = {"activation": None, "recurrent_activation": None}
    for options in (both, dict.fromkeys(both, "linear")):
        r, z = 0.5 - 0.7, 0.5 + 0.3
        wanted = (1 - z) * (0.9 + r * 0.5) + z * 0.5
        assert at("gru", -0.7, 0.3, 0.9, **options) == pytest.approx(wanted, abs=1e-12)
    assert at("rnn", -0.7, activation=None) == pytest.approx(-0.2, abs=1e-12)


@pytest.mark.parametrize("cell", ["gru", "lstm"])
def test_an_unknown_recurrent_activation_is_refused(cell):
    with pytest.raises(recurlab.RecurlabError, match=r"^recurrent_activation='sigmod': .*did you mean 'sigmoid'\?$"):
        recurlab.RNN(1, 1, cell=cell, recurrent_activation="sigmod")


@pytest.mark.parametrize("cell", ["gru", "indy_gru", "lstm", "indy_lstm"])
def test_kernels_of_other_gates_give_the_numbers_of_the_reference(cell, skip_unless_able):
    skip_unless_able("fused")
    results = []
    for backend in ("fused", "eager"):
        torch.manual_seed(8)
        layer = recurlab.RNN(3, 4, cell=cell, recurrent_activation="softsign", dtype=torch.float64, backend=backend)
        output = layer(torch.randn(5, 2, 3, dtype=torch.float64))[0]
        output.square().sum().backward()
        results.append([output, *(p.grad for p in layer.parameters())])
    assert_close(*results, rtol=0, atol=1e-10)


def test_the_activation_of_a_gru_is_that_of_its_candidate():
    layer = recurlab.RNN(1, 1, cell="gru", activation="linear", dtype=torch.float64)
    for parameter in layer.parameters():
        torch.nn.init.zeros_(parameter)
    layer.bias_ih_l0.data[2] = 6.0  # the candidate; the update gate is at one half
    assert layer(torch.zeros(1, 1, 1, dtype=torch.float64))[0].item() == 3.0


def test_the_activation_of_an_lstm_shapes_its_candidate_and_its_output():
    layer = recurlab.RNN(1, 1, cell="lstm", activation="linear", dtype=torch.float64)
    for parameter in layer.parameters():
        torch.nn.init.zeros_(parameter)
    layer.bias_ih_l0.data[2] = 8.0  # the candidate; all gates are at one half
    output, (_, c) = layer(torch.zeros(1, 1, 1, dtype=torch.float64))
    assert (output.item(), c.item()) == (2.0, 4.0)
