"""The cells against loops in NumPy that follow the published equations.

w and m (u where it is diagonal) hold a matrix a gate, b and d the biases of the input and of the recurrence.
"""

import numpy as np
import pytest
import torch

import recurlab

T, B, FEATURES, H = 11, 3, 5, 7


def sigmoid(a):
    return 1 / (1 + np.exp(-a))


def numpy_weights(layer):
    """Return w, m or u, b and d of a one-layer network, an array per gate in each."""
    tensors = (layer.weight_ih_l0, layer.weight_hh_l0, layer.bias_ih_l0, layer.bias_hh_l0)
    return [np.split(t.detach().numpy(), len(layer.cell.gates)) for t in tensors]


def gru_after(w, m, b, d, x, h):
    """Cho et al., arXiv 1406.1078v1: the reset gate acts on R h."""
    r = sigmoid(w[0] @ x + b[0] + m[0] @ h + d[0])
    z = sigmoid(w[1] @ x + b[1] + m[1] @ h + d[1])
    n = np.tanh(w[2] @ x + b[2] + r * (m[2] @ h + d[2]))
    return (1 - z) * n + z * h


def gru_before(w, m, b, d, x, h):
    """Cho et al., arXiv 1406.1078v3, equations 5 to 8: the reset gate acts on h."""
    r = sigmoid(w[0] @ x + b[0] + m[0] @ h + d[0])
    z = sigmoid(w[1] @ x + b[1] + m[1] @ h + d[1])
    n = np.tanh(w[2] @ x + b[2] + m[2] @ (r * h) + d[2])
    return (1 - z) * n + z * h


def indy_gru(w, u, b, d, x, h):
    """IndyGRU: the GRU with a weight per unit in place of each recurrent matrix, the reset gate before it."""
    r = sigmoid(w[0] @ x + b[0] + u[0] * h + d[0])
    z = sigmoid(w[1] @ x + b[1] + u[1] * h + d[1])
    n = np.tanh(w[2] @ x + b[2] + u[2] * r * h + d[2])
    return (1 - z) * n + z * h


def indrnn(w, u, b, d, x, h):
    """Li et al., arXiv 1803.04831, equation 2."""
    return np.maximum(0, w[0] @ x + u[0] * h + b[0] + d[0])


def elman(w, m, b, d, x, h):
    return np.tanh(w[0] @ x + m[0] @ h + b[0] + d[0])


EQUATIONS = {
    "gru_after": ({"cell": "gru", "reset": "after"}, gru_after),
    "gru_before": ({"cell": "gru", "reset": "before"}, gru_before),
    "indy_gru": ({"cell": "indy_gru"}, indy_gru),
    "indrnn": ({"cell": "indrnn"}, indrnn),
    "elman": ({"cell": "rnn"}, elman),
}


@pytest.mark.parametrize("name", EQUATIONS)
def test_a_cell_follows_its_published_equations(name):
    options, equation = EQUATIONS[name]
    torch.manual_seed(5)
    layer = recurlab.RNN(FEATURES, H, dtype=torch.float64, **options)
    x, start = torch.randn(T, B, FEATURES, dtype=torch.float64), torch.randn(1, B, H, dtype=torch.float64)
    found, final = layer(x, start)
    weights = numpy_weights(layer)
    for b in range(B):
        h = start[0, b].numpy()
        for t in range(T):
            h = equation(*weights, x[t, b].numpy(), h)
            np.testing.assert_allclose(found[t, b].detach().numpy(), h, rtol=1e-10, atol=1e-10)
        np.testing.assert_allclose(final[0, b].detach().numpy(), h, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("recurrence", ["dense", "diagonal"])
def test_the_lstm_follows_its_published_equations(recurrence):
    torch.manual_seed(6)
    layer = recurlab.RNN(FEATURES, H, dtype=torch.float64, cell="lstm", recurrence=recurrence)
    x = torch.randn(T, B, FEATURES, dtype=torch.float64)
    start = [torch.randn(1, B, H, dtype=torch.float64) for _ in range(2)]
    found, (last_h, last_c) = layer(x, tuple(start))
    W, R, b, d = numpy_weights(layer)
    for sample in range(B):
        h, c = (s[0, sample].numpy() for s in start)
        for t in range(T):
            back = [matrix @ h if recurrence == "dense" else matrix * h for matrix in R]
            i, f, g, o = (W[k] @ x[t, sample].numpy() + b[k] + back[k] + d[k] for k in range(4))
            c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
            h = sigmoid(o) * np.tanh(c)
            np.testing.assert_allclose(found[t, sample].detach().numpy(), h, rtol=1e-10, atol=1e-10)
        np.testing.assert_allclose(last_h[0, sample].detach().numpy(), h, rtol=1e-10, atol=1e-10)
        np.testing.assert_allclose(last_c[0, sample].detach().numpy(), c, rtol=1e-10, atol=1e-10)


def test_the_two_grus_differ_where_the_reset_gate_matters():
    torch.manual_seed(7)
    after, before = (recurlab.RNN(FEATURES, H, reset=reset, dtype=torch.float64) for reset in ("after", "before"))
    before.load_state_dict(after.state_dict())
    x = torch.randn(T, B, FEATURES, dtype=torch.float64)
    assert (after(x)[0] - before(x)[0]).abs().max() > 1e-3
