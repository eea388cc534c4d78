"""What a layer remembers from call to call is true of the next call, whatever happened to the layer in between."""

import pytest
import torch
from torch import nn
from torch.testing import assert_close

import recurlab

T, B, FEATURES, H = 4, 3, 5, 6


def made(**options):
    torch.manual_seed(1)
    return recurlab.RNN(FEATURES, H, dtype=torch.float64, **options)


@pytest.fixture
def layer():
    """Return a layer that has been called."""
    layer = made()
    layer(torch.zeros(T, B, FEATURES, dtype=torch.float64))
    return layer


def wanted(layer, x):
    """Return what the reference gives for the layer as it is now."""
    twin = made(backend="eager", zoneout=layer.zoneout)
    twin.load_state_dict({name: weight.detach() for name, weight in layer.named_parameters()})
    twin.train(layer.training)
    return twin(x)


@pytest.fixture
def x():
    return torch.randn(T, B, FEATURES, dtype=torch.float64, generator=torch.Generator().manual_seed(2))


def test_a_weight_that_was_moved_is_found(layer, x):
    layer.weight_hh_l0.data = torch.randn_like(layer.weight_hh_l0)
    assert_close(layer(x), wanted(layer, x), rtol=1e-12, atol=1e-12)


def test_a_weight_that_was_changed_in_place_is_read_anew(layer, x):
    with torch.no_grad():
        layer.weight_ih_l0 *= 2
    assert_close(layer(x), wanted(layer, x), rtol=1e-12, atol=1e-12)


def test_a_parameter_put_in_the_place_of_one_with_the_same_memory_has_the_gradient(layer, x):
    before, layer.weight_hh_l0 = layer.weight_hh_l0, nn.Parameter(layer.weight_hh_l0.data)
    layer(x)[0].sum().backward()
    assert before.grad is None
    assert layer.weight_hh_l0.grad.any()


def test_frozen_weights_keep_nothing_for_a_gradient(layer, x):
    layer.requires_grad_(False)
    assert layer(x)[0].grad_fn is None
    layer.weight_hh_l0.requires_grad_()
    layer(x)[0].sum().backward()
    assert [p.grad is not None for p in layer.parameters()] == [name == "weight_hh_l0" for name in layer.state_dict()]


def test_other_weights_for_one_call_are_taken(layer, x):
    others = {name: torch.randn_like(weight) for name, weight in layer.named_parameters()}
    found = torch.func.functional_call(layer, others, (x,))
    layer.load_state_dict(others)
    assert_close(found, wanted(layer, x), rtol=1e-12, atol=1e-12)


def test_options_that_were_changed_are_heeded(layer, x):
    layer.eval()
    layer.zoneout = (0.4,)
    assert_close(layer(x), wanted(layer, x), rtol=1e-12, atol=1e-12)
    layer.train().backend = "eager"
    layer(x)
    assert layer.backends_used == {0: "eager"}
    layer.backend = "none"
    with pytest.raises(recurlab.RecurlabError, match="backend='none'"):
        layer(x)


def test_an_input_of_another_type_or_shape_is_refused_as_at_first(layer):
    for wrong, told in [
        (torch.zeros(T, B, FEATURES), "must be torch.float64"),
        (torch.zeros(T, B, FEATURES + 1, dtype=torch.float64), "must be .T, B, I."),
        (torch.zeros(0, B, FEATURES, dtype=torch.float64), "an empty sequence"),
    ]:
        with pytest.raises(recurlab.RecurlabError, match=told):
            layer(wrong)


@pytest.mark.parametrize("hx", [torch.zeros(1, B + 1, H), torch.zeros(B, H), (torch.zeros(1, B, H),) * 2])
def test_a_state_of_another_shape_is_refused_as_at_first(layer, x, hx):
    with pytest.raises(recurlab.RecurlabError, match="state"):
        layer(x, hx)
