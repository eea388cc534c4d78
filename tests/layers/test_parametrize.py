"""Weights that `torch.nn.utils.parametrize` computes from others, on every backend."""

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, parametrize

from recurlab.errors import RecurlabError
from recurlab.interop import to_arrays
from recurlab.layers.constraints import MaxAbs
from recurlab.layers.initializers import Constant


class Scaled(nn.Module):
    """A transform with no parameters, as haste's `recurrent_transform`."""

    def forward(self, weight):
        return 0.5 * weight.tanh()


def weight_norm(layer, name):
    parametrizations.weight_norm(layer, name)


def spectral_norm(layer, name):
    parametrizations.spectral_norm(layer, name)


def transform(layer, name):
    parametrize.register_parametrization(layer, name, Scaled())


TRANSFORMS = (weight_norm, spectral_norm, transform)


@pytest.fixture(params=TRANSFORMS, ids=lambda f: f.__name__)
def transformed(request, make):
    """Return the maker of layers with transformed weights."""

    def build(names=("weight_ih_l0", "weight_hh_l0", "weight_hh_l1"), **options):
        layer = make(num_layers=2, **options)
        for name in names:
            request.param(layer, name)
        return layer

    return build


@pytest.mark.parametrize("backend", ["eager", "fused"])
def test_outputs_and_gradients_are_those_of_the_transformed_weights(
    variant, backend, transformed, make, everything, same, skip_unless_able
):
    skip_unless_able(backend)
    layer = transformed(backend=backend, **variant).eval()
    plain = make(num_layers=2, backend="eager", **variant)
    plain.load_state_dict({name: getattr(layer, name).detach() for name, _ in plain.named_parameters()})
    x = torch.randn(4, 3, 5, dtype=torch.float64)
    found, wanted = everything(layer, x), everything(plain, x)
    for key in ("output", "finals", "x", "bias_ih_l0", "weight_ih_l1"):
        same(found[key], wanted[key])
    for name in layer.parametrizations:
        leaves = list(layer.parametrizations[name].parameters())
        through = torch.autograd.grad(getattr(layer, name), leaves, wanted[name])
        for leaf, gradient in zip(leaves, through, strict=True):
            same(leaf.grad, gradient)


def test_noise_and_training_steps_reach_the_transformed_weights(transformed, skip_unless_able):
    skip_unless_able("fused")
    finals = []
    for backend in ("eager", "fused"):
        layer = transformed(backend=backend, dropconnect=0.3, recurrent_dropout=0.2, zoneout=0.1, dropout=0.1)
        optimizer = torch.optim.SGD(layer.parameters(), 0.1)
        torch.manual_seed(1)
        for _ in range(3):
            optimizer.zero_grad()
            layer(torch.randn(4, 3, 5, dtype=torch.float64))[0].square().sum().backward()
            optimizer.step()
        finals.append([getattr(layer, f"weight_hh_l{k}") for k in (0, 1)])
    torch.testing.assert_close(*finals, rtol=1e-9, atol=1e-9)


def test_new_numbers_are_drawn_through_a_transform_that_can_be_inverted(make, same):
    layer = make(recurrent_init=Constant(0.25))
    weight_norm(layer, "weight_hh_l0")
    with torch.no_grad():
        layer.parametrizations.weight_hh_l0.original0.fill_(3.0)
    layer.reset_parameters()
    same(layer.weight_hh_l0, torch.full_like(layer.weight_hh_l0, 0.25))


def test_the_numbers_in_use_are_written_for_others(make, same):
    layer = make()
    transform(layer, "weight_ih_l0")
    written = to_arrays(layer, "torch")["weight_ih_l0"]
    same(torch.from_numpy(written), layer.weight_ih_l0.detach())


def test_a_constraint_of_computed_weights_is_refused(make):
    layer = make(recurrent_constraint=MaxAbs(0.5))
    weight_norm(layer, "weight_hh_l0")
    with pytest.raises(RecurlabError, match=r"recurrent_constraint=MaxAbs\(value=0.5\): weight_hh_l0 is parametrized"):
        layer.constrain()
