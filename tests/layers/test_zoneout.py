"""Zoneout keeps a unit's previous value: drawn in training, in expectation in evaluation."""

import pytest
import torch
from torch import nn, sigmoid, tanh

P = 0.3
T, B, FEATURES, H = 40, 10, 5, 16  # enough draws for a frequency to be within 0.03 of its probability


@pytest.fixture
def x():
    torch.manual_seed(17)
    return torch.randn(T, B, FEATURES, dtype=torch.float64)


def torch_cell(kind, layer, suffix=""):
    """Return torch's cell with the weights of one direction of a layer."""
    cell = kind(layer.input_size, layer.hidden_size, dtype=torch.float64)
    cell.load_state_dict({name: getattr(layer, f"{name}_l0{suffix}") for name in cell.state_dict()})
    return cell


def kept(output, cell, x, start):
    """Return where each output (T, B, H) is the previous one; everywhere else it must be a full step from that."""
    rows = []
    for t in range(len(x)):
        before = output[t - 1] if t > 0 else start
        stepped = cell(x[t], before)
        is_old, is_new = output[t] == before, (output[t] - stepped).abs() < 1e-12
        assert (is_old | is_new).all(), "a unit is neither kept nor stepped from the zoned-out value"
        rows.append(is_old)
    return torch.stack(rows)


def test_in_training_each_unit_is_kept_or_stepped(make, x):
    layer = make(units=H, zoneout=P)
    output, final = layer(x)
    old = kept(output, torch_cell(nn.GRUCell, layer), x, torch.zeros(B, H, dtype=torch.float64))
    assert abs(old.double().mean() - P) < 0.03
    assert torch.equal(final[0], output[-1])
    for axis in range(3):  # drawn anew for each step, sample and unit
        assert not (old == old.narrow(axis, 0, 1)).all()


def test_the_directions_draw_masks_of_their_own(make, x):
    layer = make(units=H, zoneout=P, bidirectional=True)
    forward, backward = layer(x)[0].split(H, dim=-1)
    zeros = torch.zeros(B, H, dtype=torch.float64)
    one = kept(forward, torch_cell(nn.GRUCell, layer), x, zeros)
    other = kept(backward.flip(0), torch_cell(nn.GRUCell, layer, "_reverse"), x.flip(0), zeros)
    assert abs(other.double().mean() - P) < 0.03
    assert abs((one & other.flip(0)).double().mean() - P * P) < 0.03


def lstm_step(layer, x, h, c):
    """Return h, c after one step; the output gate reads the new c before any zoneout."""
    gates = x @ layer.weight_ih_l0.T + layer.bias_ih_l0 + h @ layer.weight_hh_l0.T + layer.bias_hh_l0
    i, f, g, o = gates.chunk(4, dim=-1)
    c = sigmoid(f) * c + sigmoid(i) * tanh(g)
    return sigmoid(o) * tanh(c), c


def test_an_lstm_keeps_h_and_c_with_probabilities_of_their_own(make, x):
    layer = make(units=H, cell="lstm", zoneout=(0.2, 0.5))
    h, c = (torch.randn(B, H, dtype=torch.float64) for _ in range(2))
    kept_h, kept_c = [], []
    for t in range(T):  # a step at a time, to see c
        _, (new_h, new_c) = layer(x[t : t + 1], (h.unsqueeze(0), c.unsqueeze(0)))
        stepped = lstm_step(layer, x[t], h, c)
        moves = [(new_h[0], h, stepped[0], kept_h), (new_c[0], c, stepped[1], kept_c)]
        for new, old, step, rows in moves:
            assert ((new == old) | ((new - step).abs() < 1e-12)).all()
            rows.append(new == old)
        h, c = new_h[0], new_c[0]
    one, other = torch.stack(kept_h), torch.stack(kept_c)
    assert abs(one.double().mean() - 0.2) < 0.03
    assert abs(other.double().mean() - 0.5) < 0.03
    assert abs((one & other).double().mean() - 0.1) < 0.03


def test_in_evaluation_each_unit_is_the_expectation(make, x):
    layer = make(units=H, zoneout=P).eval()
    output, final = layer(x)
    cell, h = torch_cell(nn.GRUCell, layer), torch.zeros(B, H, dtype=torch.float64)
    for t in range(T):
        h = P * h + (1 - P) * cell(x[t], h)
        torch.testing.assert_close(output[t], h, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(final[0], h, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("rates", [(0.2, 0.5), (0.0, 0.5), (0.2, 0.0)])
def test_in_evaluation_an_lstm_takes_both_expectations(make, x, rates):
    layer = make(units=H, cell="lstm", zoneout=rates).eval()
    output, final = layer(x)
    h = c = torch.zeros(B, H, dtype=torch.float64)
    for t in range(T):
        new_h, new_c = lstm_step(layer, x[t], h, c)
        h, c = rates[0] * h + (1 - rates[0]) * new_h, rates[1] * c + (1 - rates[1]) * new_c
        torch.testing.assert_close(output[t], h, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(final, (h.unsqueeze(0), c.unsqueeze(0)), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("training", [True, False])
def test_a_probability_of_one_keeps_the_initial_state(variant, training, make, states_for):
    layer = make(zoneout=1.0, num_layers=2, **variant).train(training)
    state = states_for(layer, 3)
    output, final = layer(torch.randn(7, 3, FEATURES, dtype=torch.float64), state)
    torch.testing.assert_close(final, state, rtol=0, atol=0)
    last = state[0] if isinstance(state, tuple) else state
    assert torch.equal(output, last[1].expand(7, -1, -1))


@pytest.mark.parametrize("training", [True, False])
def test_a_probability_of_zero_is_no_zoneout(variant, training, make):
    with_zero, without = make(zoneout=0.0, **variant).train(training), make(**variant)
    x = torch.randn(7, 3, FEATURES, dtype=torch.float64)
    torch.testing.assert_close(with_zero(x), without(x), rtol=0, atol=0)


def test_a_seed_gives_the_same_numbers_and_another_seed_others(variant, make):
    layer = make(zoneout=P, bidirectional=True, **variant)
    x, outputs = torch.randn(7, 3, FEATURES, dtype=torch.float64), []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        outputs.append(layer(x)[0])
    assert torch.equal(outputs[0], outputs[1])
    assert not torch.equal(outputs[0], outputs[2])


def test_the_value_kept_at_a_boundary_is_the_zero_of_the_reset(make, states_for):
    layer = make(zoneout=1.0)
    resets = torch.zeros(4, 2, dtype=torch.bool)
    resets[2, 0] = True
    state = states_for(layer, 2)
    output, _ = layer(torch.randn(4, 2, FEATURES, dtype=torch.float64), state, resets=resets)
    assert torch.equal(output[:2], state.expand(2, -1, -1))
    assert not output[2:, 0].any()
    assert torch.equal(output[2:, 1], state[:, 1].expand(2, -1))


def test_one_number_stands_for_every_state(make):
    assert make(cell="lstm", zoneout=0.2).zoneout == (0.2, 0.2)
    assert make(cell="lstm", zoneout=[0.2, 0.4]).zoneout == (0.2, 0.4)
