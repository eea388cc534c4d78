"""Weights of layers with layer normalisation."""

import numpy as np
import pytest
import torch

import recurlab
from foreign_layers import arrays_of
from recurlab import RecurlabError
from recurlab.interop import from_arrays, to_arrays

FEATURES, H = 5, 4
DAMAGES = {
    "no gain of the state": (lambda a: a.pop("gamma_h"), "gamma_h: is missing"),
    "no gains": (lambda a: a.pop("gamma"), "gamma: is missing"),
    "gains of one product": (
        lambda a: a.update(gamma=a["gamma"][:1]), "gamma: must be of shape (2, 16), not (1, 16)"),
    "gains that are turned": (
        lambda a: a.update(gamma=a["gamma"].T), "gamma: must be of shape (2, 16), as its transpose is, not (16, 2)"),
    "gains of all gates": (lambda a: a.update(gamma_h=np.ones(16)), "gamma_h: must be of shape (4,), not (16,)"),
    "another name": (
        lambda a: a.update(beta=a.pop("beta_h")), "beta: is no array of this layer, which has kernel, "),
}  # fmt: skip


@pytest.mark.parametrize("name", DAMAGES)
def test_arrays_that_do_not_fit_are_refused_by_name(name):
    damage, said = DAMAGES[name]
    arrays = arrays_of("haste LayerNormLSTM", FEATURES, H)
    damage(arrays)
    with pytest.raises(RecurlabError) as caught:
        from_arrays(arrays, "haste")
    assert str(caught.value).startswith(said)
    assert "\n" not in str(caught.value)


def test_the_arrays_of_a_plain_layer_are_no_normalised_one():
    with pytest.raises(RecurlabError, match=r"^layer_norm=True: these arrays are of a layer with layer_norm=False$"):
        from_arrays(arrays_of("haste GRU", FEATURES, H), "haste", layer_norm=True)
    assert from_arrays(arrays_of("haste LayerNormGRU", FEATURES, H), "haste", layer_norm=True).layer_norm


@pytest.mark.parametrize("cell", ["gru", "lstm"])
def test_a_layer_without_biases_has_zeros_for_them(cell):
    torch.manual_seed(0)
    layer = recurlab.RNN(FEATURES, H, bias=False, cell=cell, layer_norm=True)
    arrays = to_arrays(layer, "haste")
    assert not any(array.any() for name, array in arrays.items() if "bias" in name or name == "beta_h")
    x = torch.randn(6, 3, FEATURES)
    torch.testing.assert_close(from_arrays(arrays, "haste")(x), layer(x), rtol=0, atol=1e-6)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("cell", ["indrnn", "indy_gru", "indy_lstm"])
def test_a_diagonal_layer_goes_to_its_own_format_alone(cell, bias):
    layer = recurlab.RNN(FEATURES, H, 2, bias, bidirectional=True, cell=cell, activation="tanh", layer_norm=True)
    arrays = to_arrays(layer, "recurlab")
    back = from_arrays(arrays, "recurlab", reset="before" if cell == "indy_gru" else None)
    assert (back.cell, back.bias, back.layer_norm) == (layer.cell, bias, True)
    for name, weight in layer.state_dict().items():
        assert torch.equal(back.state_dict()[name], weight)
    with pytest.raises(
        RecurlabError, match=r"^format='haste' has no layer-normalised diagonal .*; it has gru reset=aft"
    ):
        to_arrays(layer, "haste")


def test_torch_and_keras_have_none():
    layer = recurlab.RNN(FEATURES, H, layer_norm=True)
    for format in ("torch", "keras", "tensorflow", "cudnn"):
        with pytest.raises(
            RecurlabError, match=rf"^format='{format}' has no layer-normalised gru reset=after; it has "
        ):
            to_arrays(layer, format)
    with pytest.raises(RecurlabError, match=r"^gain_ih_l0: is no array of this layer"):
        from_arrays(layer.state_dict(), "torch")
