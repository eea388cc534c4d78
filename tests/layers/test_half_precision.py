"""Half precision is for storage: the state and the sums are float32. Copies and saved weights."""

import copy
import io

import pytest
import torch
from torch import nn
from torch.testing import assert_close

import recurlab

T, B, FEATURES, H = 11, 3, 5, 6
HALVES = [torch.bfloat16, torch.float16]


@pytest.mark.parametrize("dtype", HALVES)
def test_a_half_layer_is_close_to_the_float64_one(variant, dtype, make, states_for):
    layer = make(num_layers=2, bidirectional=True, **variant)
    x, state = torch.randn(T, B, FEATURES, dtype=torch.float64).to(dtype), states_for(layer, B)
    states = tuple(s.to(dtype) for s in (state if isinstance(state, tuple) else (state,)))
    half = copy.deepcopy(layer).to(dtype)
    layer.load_state_dict(half.state_dict())  # the rounded weights, so that only the arithmetic differs
    output, final = half(x, states if len(states) > 1 else states[0])
    wide = tuple(s.double() for s in states)
    wanted, wanted_final = layer(x.double(), wide if len(wide) > 1 else wide[0])
    finals, wanted_finals = (f if isinstance(f, tuple) else (f,) for f in (final, wanted_final))
    assert output.dtype == dtype
    assert all(f.dtype == dtype for f in finals)
    tolerance = 8 * torch.finfo(dtype).eps
    assert_close(output.double(), wanted, rtol=tolerance, atol=tolerance)
    assert_close([f.double() for f in finals], list(wanted_finals), rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("masked", [False, True])
def test_small_steps_add_up_where_a_half_state_would_stall(dtype, masked):
    layer = recurlab.RNN(1, 1, cell="indrnn", activation="linear", bias=False, dtype=dtype)
    small = torch.finfo(dtype).eps / 4
    assert torch.ones((), dtype=dtype) + small == 1, "the increment is lost in a half state"
    layer.load_state_dict({"weight_ih_l0": torch.full((1, 1), small), "weight_hh_l0": torch.ones(1)})
    steps = round(0.5 / small)
    mask = torch.ones(steps, 1, dtype=torch.bool) if masked else None
    output, final = layer(torch.ones(steps, 1, 1, dtype=dtype), torch.ones(1, 1, 1, dtype=dtype), mask=mask)
    assert output[-1].item() == final.item() == 1.5


def test_a_half_layer_trains_with_every_regulariser(variant):
    torch.manual_seed(19)
    noise = {"zoneout": 0.2, "dropconnect": 0.2, "recurrent_dropout": 0.2, "dropout": 0.2, "variational": True}
    layer = recurlab.RNN(FEATURES, H, 2, bidirectional=True, dtype=torch.bfloat16, **noise, **variant)
    x = torch.randn(T, B, FEATURES, dtype=torch.bfloat16, requires_grad=True)
    output, _ = layer(x, lengths=[11, 4, 1])
    output.float().square().sum().backward()
    for leaf in (x, *layer.parameters()):
        assert leaf.grad.dtype == torch.bfloat16
        assert leaf.grad.isfinite().all()
        assert leaf.grad.any()


def test_autocast_runs_and_gives_finite_gradients(variant):
    torch.manual_seed(20)
    layer = recurlab.RNN(FEATURES, H, 2, bidirectional=True, **variant)
    x = torch.randn(T, B, FEATURES, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        output, _ = layer(x, lengths=[11, 4, 1])
    assert output.dtype == torch.bfloat16
    assert_close(output.float(), layer(x, lengths=[11, 4, 1])[0], rtol=0.05, atol=0.05)
    output.float().square().sum().backward()
    for leaf in (x, *layer.parameters()):
        assert leaf.grad.dtype == torch.float32
        assert leaf.grad.isfinite().all()
        assert leaf.grad.any()


def test_a_float64_layer_computes_in_float64(make):
    x = torch.randn(T, B, FEATURES, dtype=torch.float64)
    layer = make()
    output, final = layer(x)
    assert output.dtype == final.dtype == torch.float64
    assert 0 < (output - copy.deepcopy(layer).float()(x.float())[0].double()).abs().max() < 1e-5


def test_a_deep_copy_is_equal_and_on_its_own(variant, make):
    layer = make(stateful=True, **variant)
    x = torch.randn(T, B, FEATURES, dtype=torch.float64)
    layer(x)
    other = copy.deepcopy(layer)
    assert torch.equal(other(x)[0], layer(x)[0])  # the carried state was copied too
    other.weight_ih_l0.data.zero_()
    assert layer.weight_ih_l0.any()


def test_weights_survive_saving_and_loading(variant, make):
    layer, other = make(num_layers=2, **variant), make(num_layers=2, **variant)
    other.load_state_dict({name: torch.zeros_like(p) for name, p in layer.state_dict().items()})
    stream = io.BytesIO()
    torch.save(layer.state_dict(), stream)
    stream.seek(0)
    other.load_state_dict(torch.load(stream, weights_only=True), strict=True)
    x = torch.randn(T, B, FEATURES, dtype=torch.float64)
    assert torch.equal(other(x)[0], layer(x)[0])


def test_the_layer_shows_what_distinguishes_it():
    shown = repr(nn.Sequential(recurlab.RNN(5, 6, cell="lstm", zoneout=(0.1, 0.2), bidirectional=True)))
    for part in ("5, 6", "LSTM", "recurrence='dense'", "bidirectional=True", "zoneout=(0.1, 0.2)"):
        assert part in shown
    assert "dropout" not in shown
