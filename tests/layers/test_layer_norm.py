"""Layer normalisation inside the recurrence, for every cell and recurrence."""

import numpy as np
import pytest
import torch
from scipy.linalg import block_diag
from torch.autograd import gradcheck, gradgradcheck
from torch.func import functional_call
from torch.testing import assert_close

import recurlab
from cell_forms import forms
from recurlab.errors import RecurlabError
from recurlab.layers import LAYER_NORMS

pytestmark = pytest.mark.usefixtures("quick_kernels")  # few other tests have these kernels

T, B, FEATURES, H, HEADS = 7, 3, 5, 6, 2
CELLS = forms(activations=False)
RECURRENCES = {
    "dense": {},
    "diagonal": {"recurrence": "diagonal"},
    "block": {"recurrence": "block", "heads": HEADS},
}
LENGTHS = [7, 1, 4]


def layer_of(features=FEATURES, units=H, dtype=torch.float64, norm=True, **options):
    """Return a layer whose gains and biases are all its own."""
    torch.manual_seed(3)
    layer = recurlab.RNN(features, units, layer_norm=norm, dtype=torch.float64, **options)
    with torch.no_grad():
        for name, p in layer.named_parameters():
            if name.startswith(("gain", "bias_state")):
                p += 0.3 * torch.randn_like(p)
    return layer.to(dtype)


def inputs(steps=T):
    return torch.randn(steps, B, FEATURES, dtype=torch.float64)


def sigmoid(a):
    return 1 / (1 + np.exp(-a))


def normal(a, gain):
    """Equation 4 of arXiv 1607.06450 for one sample, without its bias."""
    return (a - a.mean()) / np.sqrt(a.var() + 1e-5) * gain


def square(weight):
    """Return the recurrent matrix (H, H) of a gate, whatever the recurrence."""
    return np.diag(weight) if weight.ndim == 1 else block_diag(*np.split(weight, H // weight.shape[1]))


def rnn(x, product, w, h):
    return (np.tanh(x[0] + normal(product(0, h), w["gain_hh"]) + w["bias_hh"]),)


def gru_after(x, product, w, h):
    r, z, n = np.split(normal(np.concatenate([product(k, h) for k in range(3)]), w["gain_hh"]) + w["bias_hh"], 3)
    z = sigmoid(x[1] + z)
    return ((1 - z) * np.tanh(x[2] + sigmoid(x[0] + r) * n) + z * h,)


def gru_before(x, product, w, h):
    """Reset and update gate read h and are normalised together, the candidate reads r * h."""
    gain, bias = (np.split(w[name], [2 * H]) for name in ("gain_hh", "bias_hh"))
    r, z = np.split(normal(np.concatenate([product(0, h), product(1, h)]), gain[0]) + bias[0], 2)
    r, z = sigmoid(x[0] + r), sigmoid(x[1] + z)
    return ((1 - z) * np.tanh(x[2] + normal(product(2, r * h), gain[1]) + bias[1]) + z * h,)


def lstm(x, product, w, h, c):
    """Equations 20 to 22."""
    back = np.split(normal(np.concatenate([product(k, h) for k in range(4)]), w["gain_hh"]) + w["bias_hh"], 4)
    i, f, g, o = (a + b for a, b in zip(x, back, strict=True))
    c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
    return sigmoid(o) * np.tanh(normal(c, w["gain_state"]) + w["bias_state"]), c


STEPS = {"rnn": rnn, "gru_after": gru_after, "gru_before": gru_before, "lstm": lstm}


@pytest.mark.parametrize("recurrence", RECURRENCES)
@pytest.mark.parametrize("cell", STEPS)
def test_the_numbers_are_those_of_the_published_equations(cell, recurrence):
    layer, step = layer_of(**CELLS[cell], **RECURRENCES[recurrence]), STEPS[cell]
    gates, states = len(layer.cell.gates), len(layer.cell.states)
    w = {name.removesuffix("_l0"): p.detach().numpy() for name, p in layer.named_parameters()}
    matrices = [square(weight) for weight in np.split(w["weight_hh"], gates)]
    x, start = inputs(), torch.randn(states, 1, B, H, dtype=torch.float64)
    with torch.no_grad():
        found = layer(x, tuple(start) if states > 1 else start[0])[0]
    for b in range(B):
        state = [s[0, b].numpy() for s in start]
        for t in range(T):
            projected = normal(w["weight_ih"] @ x[t, b].numpy(), w["gain_ih"]) + w["bias_ih"]
            state = step(np.split(projected, gates), lambda k, h: matrices[k] @ h, w, *state)
            assert_close(found[t, b].numpy(), state[0], rtol=0, atol=1e-12)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("cell", CELLS)
def test_gains_start_at_one_and_the_bias_of_a_state_at_zero(cell, bias):
    layer = recurlab.RNN(FEATURES, H, 2, bias, bidirectional=True, layer_norm=True, **CELLS[cell])
    plain = recurlab.RNN(FEATURES, H, 2, bias, bidirectional=True, **CELLS[cell])
    rows = len(layer.cell.gates) * H
    wanted = {"gain_ih": (rows,), "gain_hh": (rows,)}
    if layer.cell.normalizes:
        wanted |= {"gain_state": (H,), "bias_state": (H,)} if bias else {"gain_state": (H,)}
    added = {name: p for name, p in layer.named_parameters() if name not in dict(plain.named_parameters())}
    suffixes = ("_l0", "_l0_reverse", "_l1", "_l1_reverse")
    assert {name: tuple(p.shape) for name, p in added.items()} == {
        name + suffix: shape for suffix in suffixes for name, shape in wanted.items()
    }
    with torch.no_grad():
        for p in added.values():
            p.fill_(7)
    layer.reset_parameters()
    assert all((p == name.startswith("gain")).all() for name, p in added.items())


def test_the_size_of_the_weights_does_not_matter():
    layer = layer_of(cell="lstm")
    large = {name: p * 1000 if name.startswith("weight") else p for name, p in layer.named_parameters()}
    x, start = inputs(), (torch.randn(1, B, H, dtype=torch.float64), torch.randn(1, B, H, dtype=torch.float64))
    found, wanted = functional_call(layer, large, (x, start))[0], layer(x, start)[0]
    assert_close(found, wanted, rtol=1e-3, atol=1e-3)


def differentiable(options, noise=False):
    """Return a function of input and weights, and the point to differentiate it at."""
    layer = layer_of(2, 4, bidirectional=True, backend="eager", **options).train(noise)
    names, weights = zip(*((name, p.detach().requires_grad_()) for name, p in layer.named_parameters()), strict=True)
    x = torch.randn(3, 2, 2, dtype=torch.float64, requires_grad=True)
    flags = {"lengths": [3, 2], "resets": torch.tensor([[0, 0], [0, 1], [1, 0]]).bool()}

    def run(x, *weights):
        torch.manual_seed(1)  # the same noise each time
        return functional_call(layer, dict(zip(names, weights, strict=True)), (x,), flags)[0]

    return run, (x, *weights)


@pytest.mark.parametrize(("cell", "recurrence"), [("gru_before", "block"), ("lstm", "dense")])
def test_first_and_second_derivatives_are_those_of_finite_differences(cell, recurrence):
    run, point = differentiable({**CELLS[cell], **RECURRENCES[recurrence]})
    assert gradcheck(run, point, fast_mode=True)
    assert gradgradcheck(run, point, fast_mode=True)


@pytest.mark.parametrize("noise", ["zoneout", "dropconnect", "recurrent_dropout"])
@pytest.mark.parametrize("cell", ["gru_after", "lstm"])
def test_gradients_hold_with_noise(cell, noise):
    run, point = differentiable({**CELLS[cell], noise: 0.4}, noise=True)
    assert not torch.equal(run(*point), differentiable(CELLS[cell])[0](*point))
    assert gradcheck(run, point, fast_mode=True)


@pytest.mark.parametrize("cell", CELLS)
def test_padding_is_as_if_it_were_not_there(cell):
    layer = layer_of(num_layers=2, bidirectional=True, **CELLS[cell])
    x = inputs()
    for b, length in enumerate(LENGTHS):
        x[length:, b] = torch.nan
    x.requires_grad_()
    output = layer(x, lengths=LENGTHS)[0]
    for b, length in enumerate(LENGTHS):
        assert_close(output[:length, b], layer(x[:length, b : b + 1])[0][:, 0], rtol=1e-12, atol=1e-12)
    gradients = torch.autograd.grad(output.square().sum(), [x, *layer.parameters()])
    assert all(gradient.isfinite().all() for gradient in gradients)


@pytest.mark.parametrize("cell", CELLS)
def test_a_boundary_parts_two_sequences(cell):
    layer = layer_of(bidirectional=True, recurrence="diagonal", **CELLS[cell])
    x, resets = inputs(), torch.zeros(T, B, dtype=torch.bool)
    resets[3] = True
    wanted = torch.cat([layer(x[:3])[0], layer(x[3:])[0]])
    assert_close(layer(x, resets=resets)[0], wanted, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("batch", [1, 17])
@pytest.mark.parametrize("cell", CELLS)
def test_steps_are_the_sequence_bit_for_bit(cell, batch):
    layer = layer_of(7, 33, torch.float32, backend="eager", **CELLS[cell]).eval()
    x, state = torch.randn(6, batch, 7), None
    with torch.no_grad():
        wanted, final = layer(x)
        for t in range(len(x)):
            output, state = layer.step(x[t], state)
            assert torch.equal(output, wanted[t])
    assert_close(state, final, rtol=0, atol=0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("cell", CELLS)
def test_in_half_precision_it_normalises_in_float32(cell, dtype):
    gates = len(layer_of(**CELLS[cell]).cell.gates)
    half = layer_of(gates * H, H, dtype, recurrence="diagonal", **CELLS[cell])
    with torch.no_grad():
        half.weight_ih_l0.copy_(torch.eye(gates * H))  # so that the projection is not rounded
    wide = layer_of(gates * H, H, recurrence="diagonal", **CELLS[cell])
    wide.load_state_dict(half.state_dict())
    x = (200 * torch.randn(T, B, gates * H)).to(dtype)  # whose squares are too large for a float16
    found, wanted = half(x)[0], wide(x.double())[0]
    assert found.dtype == dtype
    assert_close(found.double(), wanted, rtol=torch.finfo(dtype).eps, atol=1e-4)


@pytest.mark.slow
def test_the_layer_compiles_as_one_graph():
    layer = layer_of(cell="lstm")
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    x = inputs(3).requires_grad_()
    (wanted,) = torch.autograd.grad(layer(x)[0].square().sum(), x)
    (found,) = torch.autograd.grad(compiled(x)[0].square().sum(), x)
    assert_close(found, wanted, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("cell", CELLS)
def test_auto_takes_the_kernels_on_a_cpu(cell, fastest):
    layer = layer_of(**CELLS[cell])
    layer(inputs())
    assert layer.backends_used == {0: fastest}


@pytest.mark.parametrize("norm", LAYER_NORMS)
@pytest.mark.parametrize("cell", ["gru_before", "lstm"])
def test_other_choices_are_exact_and_differ(cell, norm):
    layer, x = layer_of(norm=norm, **CELLS[cell]), inputs()
    names = {name.removesuffix("_l0") for name, _ in layer.named_parameters() if name.startswith(("gain", "bias_st"))}
    state = {"gain_state", "bias_state"} if cell == "lstm" else set()
    assert names == ({"gain_ih"} if norm == "input" else {"gain_ih", "gain_hh", *state})
    again = layer_of(norm=norm, backend="eager", **CELLS[cell])
    again.load_state_dict(layer.state_dict())
    assert_close(layer(x)[0], again(x)[0], rtol=1e-10, atol=1e-10)
    assert (layer(x)[0] - layer_of(**CELLS[cell])(x)[0]).abs().max() > 0.01
    run, point = differentiable({**CELLS[cell], "norm": norm})
    assert gradgradcheck(run, point, fast_mode=True)


def test_an_indrnn_whose_input_alone_is_normalised_is_that_of_haste():
    layer, x = layer_of(norm="input", cell="indrnn", activation="tanh", bias=False), inputs(2)
    w = {name.removesuffix("_l0"): p.detach().numpy() for name, p in layer.named_parameters()}
    h = np.zeros((B, H))
    for t in range(2):
        rows = np.stack([normal(w["weight_ih"] @ x[t, b].numpy(), w["gain_ih"]) for b in range(B)])
        h = np.tanh(rows + w["weight_hh"] * h)
        assert_close(layer(x)[0][t].detach().numpy(), h, rtol=0, atol=1e-12)


@pytest.mark.parametrize("given", ["gates", "True", 1.0, None])
def test_another_choice_is_refused(given):
    with pytest.raises(RecurlabError, match=r"^layer_norm=.*: allowed are True, False, gate, input, rms"):
        recurlab.RNN(FEATURES, H, layer_norm=given)


class Normalized(recurlab.Cell):
    """A user's cell whose recurrence reads a normalised state."""

    gates = ("gate", "candidate")

    def step(self, x, h, recur):
        n = recur.normalize(h)
        return torch.tanh(x.gate + recur.gate(n)) * (x.candidate + recur.candidate(h))


def test_a_users_cell_has_the_parameters_of_the_state_that_it_normalises():
    assert Normalized().phases == (("gate",), ("candidate",))
    layer = layer_of(cell=Normalized())
    w = {name.removesuffix("_l0"): p.detach().numpy() for name, p in layer.named_parameters()}
    x, start = inputs(1), torch.randn(1, B, H, dtype=torch.float64)
    with torch.no_grad():
        found = layer(x, start)[0]
    for b in range(B):
        gate, candidate = np.split(normal(w["weight_ih"] @ x[0, b].numpy(), w["gain_ih"]) + w["bias_ih"], 2)
        h = start[0, b].numpy()
        operands = normal(h, w["gain_state"]) + w["bias_state"], h
        parts = [np.split(w[name], 2) for name in ("weight_hh", "gain_hh", "bias_hh")]
        back = [normal(R @ a, gain) + bias for a, R, gain, bias in zip(operands, *parts, strict=True)]
        assert_close(found[0, b].numpy(), np.tanh(gate + back[0]) * (candidate + back[1]), rtol=0, atol=1e-12)


def test_a_users_cell_runs_without_it_too(fastest):
    torch.manual_seed(5)
    layers = [recurlab.RNN(FEATURES, H, cell=Normalized(), backend=backend) for backend in (fastest, "eager")]
    layers[0].load_state_dict(layers[1].state_dict())
    assert not any("state" in name for name in layers[0].state_dict())
    x = torch.randn(T, B, FEATURES)
    assert_close(layers[0](x)[0], layers[1](x)[0], rtol=1e-5, atol=1e-6)


class Twice(recurlab.Cell):
    gates = ("only",)

    def step(self, x, h, recur):
        return x.only + recur.only(recur.normalize(recur.normalize(h)))


def test_a_faulty_cell_is_named():
    with pytest.raises(RecurlabError, match=r"^cell Twice: recur.normalize may be applied once a step$"):
        recurlab.RNN(FEATURES, H, cell=Twice(), layer_norm=True)
    with pytest.raises(
        RecurlabError, match=r"^cell Taken: no gate may be called 'normalize', recur has one of its own$"
    ):
        type("Taken", (recurlab.Cell,), {"gates": ("update", "normalize")})
