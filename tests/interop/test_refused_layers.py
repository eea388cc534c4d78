"""Arrays that are no layer are refused by the name of what is wrong; none is taken for another layer."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

import recurlab
from foreign_layers import LAYERS, arrays_of, haste_gru
from our_layers import BASE, OURS, goes
from recurlab import RecurlabError
from recurlab.interop import FORMATS, from_arrays, to_arrays

B, FEATURES, H = 3, 5, 4
STACKS = [(format, name) for format in FORMATS for name in OURS if goes(recurlab.RNN(1, 1, **OURS[name]), format)]


def stack_of(format, name, layers=3):
    """Return the arrays of a stack of both directions, and what `from_arrays` is to be told of them."""
    layer = recurlab.RNN(H, H, layers, bidirectional=True, dtype=torch.float64, **OURS[name])
    cell = OURS[name]["cell"]
    return to_arrays(layer, format), {"cell": BASE.get(cell, cell), "reset": getattr(layer.cell, "reset", None)}


def of_place(format, number, direction=None):
    """Return what tells whether an array is of a layer, or of one direction of it."""

    def test(key):
        reverse = any(word in key for word in ("_reverse", "backward", "bw/"))
        here = f"_l{number}" in key or f"layer_{number}/" in key or f"cell_{number}/" in key
        return here and (direction is None or reverse == (direction == "backward"))

    return test


@pytest.mark.parametrize(("format", "name"), STACKS)
def test_a_layer_that_is_left_out_is_named(format, name):
    arrays, hints = stack_of(format, name)
    for number in (0, 1):  # of the last nothing tells
        gone = of_place(format, number)
        left = {key: array for key, array in arrays.items() if not gone(key)}
        others = ", ".join(str(k) for k in range(3) if k != number)
        with pytest.raises(RecurlabError, match=rf"^[\w/]+: is missing beside the layers {others}$") as caught:
            from_arrays(left, format, **hints)
        key = str(caught.value).partition(":")[0]
        assert key in arrays
        assert gone(key)


@pytest.mark.parametrize(("format", "name"), STACKS)
def test_a_direction_or_the_biases_of_a_layer_that_are_left_out_are_named(format, name):
    arrays, hints = stack_of(format, name)
    for direction in ("forward", "backward"):
        gone = of_place(format, 1, direction)
        left = {key: array for key, array in arrays.items() if not gone(key)}
        said = rf"^[\w/]+: there are no arrays of the {direction} direction beside it$"
        with pytest.raises(RecurlabError, match=said) as caught:
            from_arrays(left, format, **hints)
        assert str(caught.value).partition(":")[0] in left
        for where in (gone, of_place(format, 1)):
            biases = [key for key in arrays if where(key) and ("bias" in key)]
            left = {key: array for key, array in arrays.items() if key not in biases}
            with pytest.raises(RecurlabError, match=r"^[\w/]+: is missing") as caught:
                from_arrays(left, format, **hints)
            assert str(caught.value).partition(":")[0] in biases


@pytest.mark.parametrize(("format", "name"), STACKS)
def test_any_array_that_is_left_out_or_of_another_shape_is_named(format, name):
    arrays, hints = stack_of(format, name, layers=2)
    for key, array in arrays.items():
        for change in ("left out", "cut", "no number"):
            damaged = {name: value for name, value in arrays.items() if (name, change) != (key, "left out")}
            damaged |= {"cut": {key: array[..., :-1]}, "no number": {key: torch.empty(array.shape, device="meta")}}.get(
                change, {}
            )
            if change == "cut" and key.endswith(("weight_ih_l0", "weight_ih_l0_reverse")):
                continue  # a layer of fewer features
            with pytest.raises(RecurlabError) as caught:
                from_arrays(damaged, format, **hints)
            assert "\n" not in str(caught.value)
            if change != "cut":  # where layers do not fit on each other it is said in our names
                assert str(caught.value).startswith(f"{key}: "), (change, str(caught.value))


@pytest.mark.parametrize(("heads", "missing"), [
    (["gru", "gru_1", "gru_2"], None), (["gru_3", "gru_4"], None), (["a/gru", "b/gru"], None),
    (["layers/gru_12"], None),
    (["gru_3", "gru_5"], "gru_4/kernel"), (["layers/gru_1/cell", "layers/gru_3/cell"], "layers/gru_2/cell/kernel"),
    (["layer_1"], "layer_0/kernel"), (["m/layer_0", "m/layer_2"], "m/layer_1/kernel"),
    (["bidirectional_1/forward_gru_3", "bidirectional_2/forward_gru_5"], None),
])  # fmt: skip
def test_numbers_of_keras_layers(heads, missing):
    arrays = {f"{head}/{key}": array for head in heads for key, array in arrays_of("keras GRU", H, H).items()}
    if missing is None:
        assert from_arrays(arrays, "keras").num_layers == len(heads)
        return
    with pytest.raises(RecurlabError, match=rf"^{missing}: is missing beside the layers "):
        from_arrays(arrays, "keras")


@pytest.mark.parametrize("key", ["weight_ih_l01", "weight_ih_l²", "weight_ih_l" + "9" * 5000, "weight_ih_l-1"])
def test_numbers_that_are_none_are_refused(key):
    arrays = {name: array.numpy() for name, array in recurlab.RNN(H, H).state_dict().items()}
    with pytest.raises(RecurlabError):
        from_arrays({**arrays, key: arrays["weight_ih_l0"]}, "torch")


REFUSED = {
    "missing": (lambda a: a.pop("bias"), {"format": "haste"}, "bias: is missing"),
    "extra": (lambda a: a.update(gamma=a["bias"]), {}, "gamma: is no array of this layer"),
    "transposed": (
        lambda a: a.update(kernel=a["kernel"].T), {},
        "kernel: must be of shape (5, 12), as its transpose is, not (12, 5)"),
    "whole numbers": (
        lambda a: a.update(bias=np.zeros((2, 12), int)), {}, "bias: must be of float16, float32, float64, not int64"),
    "another dtype": (
        lambda a: a.update(bias=a["bias"].astype("float32")), {},
        "bias: is of float32, but kernel of float64: all need the same dtype"),
    "not finite": (lambda a: a["kernel"].__setitem__((1, 2), np.nan), {}, "kernel: 1 of its 60 numbers are not finite"),
    "other units": (
        lambda a: a.update(recurrent_kernel=np.zeros((5, 15))), {},
        "recurrent_kernel: must be of shape (4, 12), not (5, 15)"),
    "a list of lists": (lambda a: a.update(bias=[[1.0], [2.0, 3.0]]), {}, "bias: is no array: "),
    "an unknown format": (lambda a: None, {"format": "kears"}, "format='kears': allowed are "),
    "a cell that there is not": (lambda a: None, {"cell": "mgu"}, "cell='mgu': allowed are rnn, gru, lstm"),
    "no such layer": (
        lambda a: None, {"format": "haste", "reset": "before"}, "reset='before': format='haste' has no such layer; "),
    "nothing": (lambda a: a.clear(), {}, "there are no arrays"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused_is_named(name):
    damage, options, said = REFUSED[name]
    arrays = arrays_of("keras GRU", FEATURES, H)
    damage(arrays)
    with pytest.raises(RecurlabError) as caught:
        from_arrays(arrays, **{"format": "keras", **options})
    assert str(caught.value).startswith(said), caught.value
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "kinds"), [("LSTMCell", "rnn or lstm"), ("IndRNNCell", "diagonal lstm or diagonal rnn")]
)
def test_what_fits_several_layers_is_refused_until_it_is_said(name, kinds):
    arrays = arrays_of(name, 20, H)
    with pytest.raises(RecurlabError) as caught:
        from_arrays(arrays, "tensorflow")
    assert str(caught.value) == f"these arrays of format='tensorflow' are those of {kinds}: say cell= or reset="
    assert from_arrays(arrays, "tensorflow", **LAYERS[name][1]).hidden_size == H


def test_a_scope_tells_the_cell():
    arrays = {f"rnn/indy_lstm_cell/{key}": array for key, array in arrays_of("IndyLSTMCell", FEATURES, H).items()}
    assert from_arrays(arrays, "tensorflow").cell == recurlab.RNN(1, 1, cell="lstm").cell


def test_a_lone_direction_and_layers_that_do_not_fit():
    arrays = {f"bw/{key}": array for key, array in arrays_of("GRUCell", FEATURES, H).items()}
    with pytest.raises(RecurlabError, match=r"^bw/gates/kernel: there are no arrays of the forward direction"):
        from_arrays(arrays, "tensorflow")
    stack = {f"cell_{k}/{key}": array for k in (0, 1) for key, array in arrays_of("GRUCell", FEATURES, H).items()}
    with pytest.raises(RecurlabError, match=r"^weight_ih_l1=\(12, 5\): must be \(12, 4\) in a stack of 2 layers$"):
        from_arrays(stack, "tensorflow")


@pytest.mark.parametrize("cell", ["block", "own"])
def test_layers_that_no_package_has(cell):
    options = {"cell": "gru", "recurrence": "block", "heads": 2} if cell == "block" else {"cell": Own()}
    with pytest.raises(RecurlabError, match=r"^format='keras' has no block gru reset=after; |^cell=.*: other packages"):
        to_arrays(recurlab.RNN(FEATURES, H, **options), "keras")


class Own(recurlab.Cell):
    gates = ("only",)

    def step(self, x, h, recur):
        return x.only + recur.only(h)


def damaged(draw, arrays):
    """Return arrays of which one is damaged; and whether the damage can be seen in what is left."""
    key = draw(st.sampled_from(sorted(arrays)))
    kind = draw(
        st.sampled_from(["missing", "transposed", "dtype", "nan", "extra", "renamed", "cut", "empty", "object"])
    )
    array = arrays.pop(key)
    if kind == "transposed":
        arrays[key] = array.T.copy()
    elif kind == "dtype":
        arrays[key] = array.astype(draw(st.sampled_from(["float32", "int64", "complex128", "bool"])))
    elif kind == "nan":
        array = array.copy()
        array.flat[draw(st.integers(0, array.size - 1))] = draw(st.sampled_from([np.nan, np.inf, -np.inf]))
        arrays[key] = array
    elif kind == "extra":
        arrays[key], arrays[f"{key}_2"] = array, array
    elif kind == "renamed":
        arrays[key[:-1]] = array
    elif kind == "cut":
        axis = draw(st.integers(0, array.ndim - 1))
        arrays[key] = np.delete(array, 0, axis=axis)
    elif kind == "empty":
        arrays[key] = array[:0]
    elif kind == "object":
        arrays[key] = array.astype(object)
    return kind


@settings(max_examples=400, deadline=None)
@given(st.data())
def test_damaged_arrays_are_refused_or_converted_right(data):
    name = data.draw(st.sampled_from(sorted(LAYERS)))
    format, hints, layer, _ = LAYERS[name]
    arrays = arrays_of(name, FEATURES, H)
    kind = damaged(data.draw, arrays)
    # Without its cell, three rows of four of a GRU's are an LSTM's.
    cell = next(cell for cell in ("gru", "lstm", "rnn") if cell in layer.__name__)
    try:
        made = from_arrays(arrays, format, **{"cell": cell, **hints})
    except RecurlabError as error:
        assert "\n" not in str(error)  # noqa: PT017
        return
    # What can't be seen in the arrays: a square matrix or a vector that is turned, biases that a layer may have not,
    # and whatever is a layer as it is.
    assert kind in ("transposed", "missing", "cut"), (name, arrays.keys())
    x = np.random.default_rng(1).normal(size=(2, B, made.input_size))
    with torch.no_grad():
        found = made(torch.from_numpy(x))[0].numpy()
    if name == "haste LayerNormGRU" and kind == "missing":  # the gains, without which it is a GRU
        layer = haste_gru
    elif kind == "missing":
        arrays = {**{key: np.zeros_like(array) for key, array in arrays_of(name, FEATURES, H).items()}, **arrays}
    assert_close(found, layer(arrays, x), rtol=0, atol=1e-12)
