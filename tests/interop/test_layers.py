"""Weights of other packages give the same numbers here, and come back as they were."""

import numpy as np
import pytest
import torch
from torch.testing import assert_close

import recurlab
from foreign_layers import LAYERS, arrays_of
from our_layers import BASE, OURS, goes
from recurlab import RecurlabError
from recurlab.interop import FORMATS, from_arrays, to_arrays

T, B, FEATURES, H = 6, 3, 5, 4
TWO_BIASES = {"torch", "cudnn", "recurlab"}


def equal_bits(found, wanted):
    assert found.keys() == wanted.keys()
    for key, array in wanted.items():
        assert found[key].dtype == array.dtype
        assert found[key].tobytes() == array.tobytes(), key


@pytest.mark.parametrize("name", LAYERS)
def test_the_numbers_are_those_of_the_published_equations(name):
    format, hints, layer, _ = LAYERS[name]
    arrays = arrays_of(name, FEATURES, H)
    x = np.random.default_rng(1).normal(size=(T, B, FEATURES))
    with torch.no_grad():
        found = from_arrays(arrays, format, **hints)(torch.from_numpy(x))[0]
    assert_close(found.numpy(), layer(arrays, x), rtol=0, atol=1e-12)


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("name", LAYERS)
def test_what_came_in_goes_out_bit_for_bit(name, dtype):
    format, hints, _, _ = LAYERS[name]
    arrays = arrays_of(name, 7, 3, dtype)
    next(iter(arrays.values()))[0] = -0.0
    arrays[list(arrays)[-1]][-1] = -0.0
    equal_bits(to_arrays(from_arrays(arrays, format, **hints), format), arrays)


@pytest.mark.parametrize(("layers", "bidirectional"), [(1, False), (1, True), (3, True), (11, False)])
@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("name", OURS)
def test_what_went_out_comes_in_bit_for_bit(name, format, layers, bidirectional):
    torch.manual_seed(0)
    layer = recurlab.RNN(FEATURES, H, layers, bidirectional=bidirectional, dtype=torch.float64, **OURS[name])
    try:
        arrays = to_arrays(layer, format)
    except RecurlabError as error:
        assert str(error).startswith(f"format={format!r} has no ")  # noqa: PT017
        return
    cell = OURS[name]["cell"]
    reset = getattr(layer.cell, "reset", None)
    back = from_arrays(arrays, format, cell=BASE.get(cell, cell), reset=reset)
    again = from_arrays(to_arrays(back, format), format, cell=BASE.get(cell, cell), reset=reset)
    assert back.cell == layer.cell
    assert back.recurrence == layer.recurrence
    equal_bits(state(again), state(back))
    if format in TWO_BIASES:
        equal_bits(state(back), state(layer))
    x = torch.randn(T, B, FEATURES, dtype=torch.float64)
    assert_close(back(x)[0], layer(x)[0], rtol=0, atol=1e-12)


def state(layer):
    return {name: weight.numpy() for name, weight in layer.state_dict().items()}


def test_every_layer_goes_to_some_package():
    for options in OURS.values():
        layer = recurlab.RNN(FEATURES, H, **options)
        assert [format for format in FORMATS if format != "recurlab" and goes(layer, format)] or options == {
            "cell": "indy_gru", "reset": "after"
        }  # fmt: skip


@pytest.mark.parametrize("format", ["torch", "keras", "recurlab"])
@pytest.mark.parametrize("cell", ["rnn", "gru", "lstm"])
def test_a_layer_without_biases(cell, format):
    layer = recurlab.RNN(FEATURES, H, bias=False, cell=cell)
    arrays = to_arrays(layer, format)
    back = from_arrays(arrays, format, reset="after" if cell == "gru" else None)
    assert not back.bias
    equal_bits(state(back), state(layer))


def test_biases_of_zero_where_a_package_has_no_layer_without():
    layer = recurlab.RNN(FEATURES, H, bias=False, cell="indy_gru")
    arrays = to_arrays(layer, "tensorflow")
    assert not arrays["gates/bias"].any()
    x = torch.randn(T, B, FEATURES)
    assert_close(from_arrays(arrays, "tensorflow")(x), layer(x), rtol=0, atol=1e-6)


def test_what_torch_has_is_taken_by_torch():
    layer = recurlab.RNN(FEATURES, H, 2, cell="lstm", bidirectional=True)
    theirs = torch.nn.LSTM(FEATURES, H, 2, bidirectional=True)
    theirs.load_state_dict({name: torch.from_numpy(array) for name, array in to_arrays(layer, "torch").items()})
    x = torch.randn(T, B, FEATURES)
    assert_close(theirs(x)[0], layer(x)[0], rtol=0, atol=1e-6)
    assert_close(from_arrays(theirs.state_dict(), "torch")(x)[0], layer(x)[0], rtol=0, atol=1e-6)


def test_a_stack_as_the_variables_of_a_checkpoint_are_called():
    def named(place, seed):
        return {f"{place}/{key}": array for key, array in arrays_of("GRUCell", FEATURES, H, seed=seed).items()}

    top = "model/stack_bidirectional_rnn"
    names = [f"{top}/cell_0/bidirectional_rnn/{way}/gru_cell" for way in ("bw", "fw")]
    arrays = {**named(names[0], 0), **named(names[1], 1)}
    layer = from_arrays(arrays, "tensorflow")
    forward, backward = (from_arrays(arrays_of("GRUCell", FEATURES, H, seed=seed), "tensorflow") for seed in (1, 0))
    x = torch.randn(T, B, FEATURES, dtype=torch.float64)
    output = layer(x)[0]
    assert_close(output[..., :H], forward(x)[0])
    assert_close(output[..., H:], backward(x.flip(0))[0].flip(0))


def test_layers_are_ordered_as_numbers():
    layer = recurlab.RNN(H, H, 12, cell="lstm", dtype=torch.float64)
    arrays = to_arrays(layer, "keras")
    shuffled = dict(sorted(arrays.items()))
    assert next(iter(shuffled)) == "layer_0/bias"
    equal_bits(to_arrays(from_arrays(shuffled, "keras"), "keras"), arrays)


def test_the_forget_bias_of_an_lstm_cell():
    arrays = arrays_of("LSTMCell", FEATURES, H)
    layer = from_arrays(arrays, "tensorflow", cell="lstm", forget_bias=0.25)
    total = (layer.bias_ih_l0 + layer.bias_hh_l0).detach().numpy()
    assert np.array_equal(total[H : 2 * H], arrays["bias"][2 * H : 3 * H] + 0.25)
    equal_bits(to_arrays(layer, "tensorflow", forget_bias=0.25), arrays)


def test_options_of_the_layer_are_passed_on():
    layer = from_arrays(
        arrays_of("haste IndRNN", FEATURES, H), "haste", activation="relu", zoneout=0.25, batch_first=True
    )
    assert (layer.cell.activation, layer.zoneout, layer.batch_first) == ("relu", (0.25,), True)


def test_numbers_of_the_other_byte_order():
    arrays = arrays_of("keras GRU", FEATURES, H)
    swapped = {name: array.astype(">f8") for name, array in arrays.items()}
    equal_bits(to_arrays(from_arrays(swapped, "keras"), "keras"), arrays)


@pytest.mark.parametrize("format", ["torch", "keras"])
def test_bfloat16_comes_in_and_goes_out_as_float32(format):
    layer = recurlab.RNN(FEATURES, H, 2, dtype=torch.bfloat16)
    wide = recurlab.RNN(FEATURES, H, 2)
    wide.load_state_dict(layer.state_dict())
    equal_bits(to_arrays(layer, format), to_arrays(wide, format))
    equal_bits(state(from_arrays(layer.state_dict(), "torch")), state(wide))


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.bfloat16])
def test_weights_as_a_module_holds_them(dtype):
    theirs = torch.nn.LSTM(FEATURES, H, 2, bidirectional=True, dtype=dtype)
    for name, weight in theirs.named_parameters():
        if "weight" in name:
            weight.data = weight.data.t().contiguous().t()  # the same numbers, laid out otherwise
    layer = from_arrays(dict(theirs.named_parameters()), "torch")
    assert all(torch.equal(layer.state_dict()[name], weight.to(layer.weight_ih_l0.dtype))
               for name, weight in theirs.state_dict().items())  # fmt: skip
