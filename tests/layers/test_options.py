"""Initialisers, constraints and regularisers: as `Weights` of a kind of weight, and each as an argument of its own."""

import copy
import io

import pytest
import torch

import recurlab
from recurlab.layers import Weights
from recurlab.layers.constraints import MaxAbs, NonNegative, UnitNorm
from recurlab.layers.initializers import Constant, Identity, Normal, Orthogonal
from recurlab.layers.regularizers import L1, L2

SINGLE = {
    "input_init": Normal(0.3),
    "recurrent_init": Orthogonal(),
    "last_recurrent_init": Identity(2.0),
    "bias_init": Constant(-0.5),
    "input_constraint": MaxAbs(0.2),
    "recurrent_constraint": UnitNorm(),
    "bias_constraint": NonNegative(),
    "input_regularizer": L1(0.1),
    "recurrent_regularizer": L2(0.2),
    "bias_regularizer": L1(0.3),
}
WHOLE = {
    "input_weights": Weights(init=Normal(0.3), constraint=MaxAbs(0.2), regularizer=L1(0.1)),
    "recurrent_weights": Weights(Orthogonal(), Identity(2.0), UnitNorm(), L2(0.2)),
    "biases": Weights(init=Constant(-0.5), constraint=NonNegative(), regularizer=L1(0.3)),
}


def build(**options):
    torch.manual_seed(4)
    return recurlab.RNN(3, 4, num_layers=2, **options)


def numbers(layer):
    """Return the weights as they start, what they cost, and the weights where the constraints have moved them."""
    start = copy.deepcopy(layer.state_dict())
    with torch.no_grad():
        for weight in layer.parameters():
            weight.sub_(0.3)
    cost = layer.penalty()
    layer.constrain()
    return start, cost, layer.state_dict()


def test_an_argument_of_its_own_is_that_attribute_of_the_weights():
    torch.testing.assert_close(numbers(build(**SINGLE)), numbers(build(**WHOLE)), rtol=0, atol=0)


@pytest.mark.parametrize("argument", WHOLE)
def test_the_last_layer_may_start_otherwise(argument):
    layer = build(**{argument: Weights(init=Constant(1.0), last_init=Constant(2.0))})
    name = {"input_weights": "weight_ih", "recurrent_weights": "weight_hh", "biases": "bias_hh"}[argument]
    assert (getattr(layer, f"{name}_l0") == 1).all()
    assert (getattr(layer, f"{name}_l1") == 2).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"recurrent_init": Orthogonal(), "recurrent_weights": Weights()},
         "recurrent_init=Orthogonal(gain=1.0, per_gate=True): give it as recurrent_weights=Weights(init=...), "
         "which is given too"),
        ({"last_recurrent_init": Orthogonal(), "recurrent_weights": Weights()}, "Weights(last_init=...), which"),
        ({"bias_regularizer": L1(), "biases": Weights()}, "L1(value=0.01): give it as biases=Weights("),
        ({"input_constraint": L1()}, "input_constraint=L1(value=0.01): must be an instance of Constraint"),
        ({"recurrent_weights": Orthogonal()}, "per_gate=True): must be an instance of Weights"),
        ({"recurrent_weight": Weights()}, "did you mean 'recurrent_weights'?"),
        ({"recurent_init": Orthogonal()}, "did you mean 'recurrent_init'?"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_said_in_a_line(options, message):
    with pytest.raises(recurlab.RecurlabError) as caught:
        build(**options)
    assert message in str(caught.value)


@pytest.mark.parametrize("key", ["init", "last_init", "constraint", "regularizer"])
def test_an_attribute_of_another_class_is_an_error(key):
    with pytest.raises(recurlab.RecurlabError, match=f"^{key}='l2': must be an instance of"):
        Weights(**{key: "l2"})


def test_none_leaves_an_argument_open():
    build(recurrent_init=None, recurrent_weights=Weights(init=Constant(1.0)))
    build(recurrent_init=Constant(1.0), recurrent_weights=None)


def test_copies_keep_the_rules():
    layer, file = build(**WHOLE), io.BytesIO()
    torch.save(layer, file)
    file.seek(0)
    for twin in (copy.deepcopy(layer), torch.load(file, weights_only=False)):
        torch.testing.assert_close(numbers(twin), numbers(copy.deepcopy(layer)), rtol=0, atol=0)
