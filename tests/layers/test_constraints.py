"""What holds the recurrent weights in bounds."""

import pytest
import torch

import recurlab
from recurlab.layers.constraints import IndRNNBound, MaxAbs, MaxNorm, NonNegative, UnitNorm
from recurlab.layers.initializers import Uniform


def spread(layer):
    """Set every parameter to values far on both sides of any bound."""
    for parameter in layer.parameters():
        parameter.data.copy_(torch.linspace(-5, 5, parameter.numel()).view_as(parameter))


@pytest.mark.parametrize(
    ("constraint", "bound"),
    [
        (MaxAbs(0.75), 0.75),
        (MaxAbs(), 1.0),
        (IndRNNBound(2.0, 64), 2 ** (1 / 64)),
        (IndRNNBound(0.5, 3), 0.5 ** (1 / 3)),
    ],
)
def test_constrain_cuts_every_recurrent_weight_and_no_other(variant, constraint, bound, make, same):
    layer = make(num_layers=2, bidirectional=True, recurrent_constraint=constraint, **variant)
    spread(layer)
    before = {name: p.clone() for name, p in layer.named_parameters()}
    layer.constrain()
    for name, parameter in layer.named_parameters():
        wanted = before[name].clamp(-bound, bound) if "weight_hh" in name else before[name]
        same(parameter.detach(), wanted.detach())


def rows(layer):
    """Return the weights that feed each gate of each unit."""
    return layer.weight_hh_l0.detach().reshape(len(layer.weight_hh_l0), -1)


def test_no_row_is_longer_than_the_greatest_norm(variant, make, same):
    layer = make(recurrent_constraint=MaxNorm(1.5), **variant)
    spread(layer)
    before = rows(layer).clone()
    layer.constrain()
    for old, new in zip(before, rows(layer), strict=True):
        length = old.square().sum().sqrt()
        same(new, old if length <= 1.5 else old * (1.5 / length))
    assert (before.norm(dim=1) < 1.5).any() or layer.recurrence.kind == "dense"


def test_every_row_is_of_norm_one(variant, make, same):
    layer = make(recurrent_constraint=UnitNorm(), **variant)
    spread(layer)
    layer.weight_hh_l0.data[0] = 0
    before = rows(layer).clone()
    layer.constrain()
    assert not rows(layer)[0].any()
    for old, new in zip(before[1:], rows(layer)[1:], strict=True):
        same(new, old / old.square().sum().sqrt())


def test_no_weight_is_negative(variant, make):
    layer = make(recurrent_constraint=NonNegative(), **variant)
    spread(layer)
    before = layer.weight_hh_l0.detach().clone()
    layer.constrain()
    assert torch.equal(layer.weight_hh_l0, before.where(before > 0, 0))


def test_constrain_without_a_constraint_changes_nothing(make):
    layer = make()
    spread(layer)
    before = layer.weight_hh_l0.clone()
    layer.constrain()
    assert torch.equal(layer.weight_hh_l0, before)


def test_the_constraint_holds_from_the_first_draw(variant, make):
    layer = make(recurrent_constraint=MaxAbs(0.5), recurrent_init=Uniform(-3, 3), **variant)
    assert layer.weight_hh_l0.abs().max() == 0.5


def test_weights_stay_in_bounds_over_training_and_still_learn(make):
    layer = make(cell="indrnn", recurrent_constraint=IndRNNBound(2.0, 11))
    optimizer = torch.optim.SGD(layer.parameters(), lr=1.0)
    x, start = torch.randn(11, 3, 5, dtype=torch.float64), layer.weight_hh_l0.clone()
    for _ in range(5):
        optimizer.zero_grad()
        (-layer(x)[0].sum()).backward()  # pushes the recurrent weights up
        optimizer.step()
        layer.constrain()
        assert layer.weight_hh_l0.abs().max() <= 2 ** (1 / 11)
    assert not torch.equal(layer.weight_hh_l0, start)
    assert layer.weight_hh_l0.requires_grad


BAD = [
    (lambda: MaxAbs(0), ["max_abs.value=0", "greater than 0"]),
    (lambda: MaxNorm(0.0), ["max_norm.value=0.0", "greater than 0"]),
    (lambda: IndRNNBound(gamma=-1.0), ["indrnn.gamma=-1.0", "greater than 0"]),
    (lambda: IndRNNBound(steps=2.5), ["indrnn.steps=2.5", "whole number of at least 1"]),
]


@pytest.mark.parametrize(("faulty", "words"), BAD, ids=[words[0] for _, words in BAD])
def test_a_bad_bound_is_named(faulty, words):
    with pytest.raises(recurlab.RecurlabError) as caught:
        faulty()
    assert all(word in str(caught.value) for word in words)
