"""What a layer computes with is of one dtype and on one device; it may be empty, or shapes without numbers."""

import copy

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

import recurlab
from recurlab.layers.regularizers import L2

T, B, FEATURES, H = 4, 3, 5, 6
DTYPES = [torch.float64, torch.float32, torch.bfloat16, torch.float16]
OTHERS = [torch.int64, torch.bool, torch.complex64]
BACKENDS = ["auto", "eager", "fused"]
OPTIONS = [{}, {"bidirectional": True, "num_layers": 2, "recurrent_dropout": 0.5}, {"layer_norm": True}]


def refused(call, *words):
    with pytest.raises(recurlab.RecurlabError) as caught:
        call()
    message = str(caught.value)
    assert "\n" not in message
    assert all(word in message for word in words), message


@pytest.fixture(params=BACKENDS)
def backend(request, skip_unless_able):
    skip_unless_able(request.param)
    return request.param


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_an_input_of_another_dtype_is_refused_as_torch_refuses_it(backend, dtype, options):
    layer = recurlab.RNN(FEATURES, H, dtype=dtype, backend=backend, **options)
    for other in set(DTYPES + OTHERS[: 2 if "recurrent_dropout" in options else 3]) - {dtype}:
        x = torch.ones(T, B, FEATURES).to(other)
        refused(lambda x=x: layer(x), f"input={other}", "as the layer's weights are")
        if "bidirectional" not in options:
            refused(lambda x=x: layer.step(x[0]), f"input={other}")
        with pytest.raises((RuntimeError, ValueError)):
            torch.nn.GRU(FEATURES, H, dtype=dtype)(x)
    assert layer(torch.ones(T, B, FEATURES, dtype=dtype))[0].dtype == dtype


@pytest.mark.parametrize("other", [*DTYPES[:1], *DTYPES[2:], *OTHERS], ids=str)
def test_a_state_of_another_dtype_is_refused_as_torch_refuses_it(backend, other):
    layer = recurlab.RNN(FEATURES, H, cell="lstm", backend=backend)
    x, states = torch.ones(T, B, FEATURES), (torch.zeros(1, B, H), torch.ones(1, B, H).to(other))
    refused(lambda: layer(x, states), f"state c={other}: must be torch.float32")
    refused(lambda: layer.step(x[0], states), f"state c={other}")
    with pytest.raises((RuntimeError, ValueError)):
        torch.nn.LSTM(FEATURES, H)(x, states)


@pytest.mark.parametrize("name", ["weight_hh_l0", "bias_ih_l0_reverse"])
def test_a_weight_of_another_dtype_is_named(backend, name):
    layer = recurlab.RNN(FEATURES, H, bidirectional=True, backend=backend)
    getattr(layer, name).data = getattr(layer, name).data.double()
    refused(lambda: layer(torch.ones(T, B, FEATURES)), f"{name[: name.index('_l0')]}=torch.float64")


def test_under_autocast_what_it_casts_is_cast_and_the_rest_refused(backend):
    layer, wide = (recurlab.RNN(FEATURES, H, 2, dtype=dtype, backend=backend) for dtype in (None, torch.float64))
    x = torch.randn(T, B, FEATURES)
    with torch.autocast("cpu", torch.bfloat16):
        wanted, state = layer(x)
        for given in (x.bfloat16(), x.half()):
            output, _ = layer(given, state)  # a state of bfloat16
            assert output.dtype == torch.bfloat16
        assert torch.equal(layer(x.bfloat16())[0], wanted)
        refused(lambda: layer(x.double()), "input=torch.float64")
        refused(lambda: wide(x), "input=torch.float32")
        refused(lambda: layer(x.long()), "input=torch.int64")
    refused(lambda: layer(x, state), "state h=torch.bfloat16")


@pytest.mark.parametrize("name", ["input", "state", "mask", "resets"])
def test_what_is_on_another_device_is_refused(backend, name):
    layer = recurlab.RNN(FEATURES, H, backend=backend)
    given = {"input": torch.ones(T, B, FEATURES), "state": torch.zeros(1, B, H)}
    given |= {flag: torch.ones(T, B, dtype=torch.bool) for flag in ("mask", "resets")}
    given[name] = given[name].to("meta")
    x, state = given.pop("input"), given.pop("state")
    refused(lambda: layer(x, state, **given), "on meta" if name != "input" else "on ", "must be on ")


@pytest.mark.parametrize("given", [[[[1.0] * FEATURES]], None])
def test_an_input_that_is_no_tensor_is_refused(given):
    layer = recurlab.RNN(FEATURES, H)
    for call in (layer, layer.step):
        refused(lambda call=call: call(given), f"input={type(given).__name__}: must be a tensor")
    refused(lambda: layer(torch.ones(T, B, FEATURES), (given,)), f"state h={type(given).__name__}: must be a tensor")


def test_whole_numbers_of_any_size_are_lengths(backend):
    layer, x = recurlab.RNN(FEATURES, H, bidirectional=True, backend=backend), torch.randn(T, B, FEATURES)
    wanted = layer(x, lengths=[1, 4, 2])[0]
    for dtype in (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64):
        assert torch.equal(layer(x, lengths=torch.tensor([1, 4, 2], dtype=dtype))[0], wanted)


# ---- nothing in it ------------------------------------------------------------------------------------------


FLAGS = {
    "plain": {},
    "lengths": {"lengths": []},
    "a tensor of lengths": {"lengths": torch.zeros(0, dtype=torch.int64)},
    "masks": {name: torch.zeros(T, 0, dtype=torch.bool) for name in ("mask", "resets")},
}
NOISE = {"zoneout": 0.2, "dropconnect": 0.2, "recurrent_dropout": 0.2, "dropout": 0.2, "num_layers": 2}


CELLS = {
    "gru": {"cell": "gru"},
    "indy_gru": {"cell": "indy_gru"},
    "lstm": {"cell": "lstm", "recurrence": "block", "heads": 3},
}


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("options", [{}, {"bidirectional": True, **NOISE}, {"go_backwards": True}], ids=str)
def test_a_batch_of_no_samples_gives_an_empty_output(cell, backend, options):
    layer = recurlab.RNN(FEATURES, H, backend=backend, **CELLS[cell], **options)
    x = torch.zeros(T, 0, FEATURES, requires_grad=True)
    for flags in FLAGS.values():
        output, state = layer(x, **flags)
        states = state if isinstance(state, tuple) else (state,)
        assert output.shape == (T, 0, H * layer.num_directions)
        assert all(s.shape == (layer.num_layers * layer.num_directions, 0, H) for s in states)
        layer.zero_grad()
        (output.sum() + sum(s.sum() for s in states)).backward()
        assert x.grad.shape == x.shape
        assert all(not weight.grad.any() for weight in layer.parameters())


def test_no_samples_in_a_step_a_penalty_and_a_stateful_layer():
    layer = recurlab.RNN(FEATURES, H, stateful=True, activity_regularizer=L2())
    assert layer.step(torch.zeros(0, FEATURES))[0].shape == (0, H)
    assert layer(torch.zeros(T, 0, FEATURES))[0].shape == (T, 0, H)
    assert layer.penalty() == 0


# ---- shapes without numbers ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cell", "options"),
    [
        ("gru", {"layer_norm": True}),
        ("indy_gru", {"bidirectional": True, "zoneout": 0.2}),
        ("lstm", {"dropconnect": 0.1}),
    ],
)
@pytest.mark.parametrize("kind", ["meta", "fake"])
def test_shapes_without_numbers_give_shapes(cell, options, kind):
    wanted = recurlab.RNN(FEATURES, H, **CELLS[cell], **options)(torch.zeros(2, B, FEATURES))[0]
    with FakeTensorMode() if kind == "fake" else torch.device("meta"):
        layer = recurlab.RNN(FEATURES, H, **CELLS[cell], **options)
        x, flag = torch.zeros(2, B, FEATURES), torch.zeros(2, B, dtype=torch.bool)
        for flags in (
            {"lengths": [1, 2, 2]},
            {"lengths": torch.ones(B, dtype=torch.int64)},
            {"mask": flag, "resets": flag},
        ):
            output, _ = layer(x, **flags)
            assert (output.shape, output.dtype) == (wanted.shape, wanted.dtype)
        output.sum().backward()
        assert layer.weight_hh_l0.grad.shape == layer.weight_hh_l0.shape


def test_a_layer_made_on_meta_is_filled_elsewhere():
    layer = recurlab.RNN(FEATURES, H, cell="indy_lstm")
    empty = recurlab.RNN(FEATURES, H, cell="indy_lstm", device="meta").to_empty(device="cpu")
    empty.load_state_dict(copy.deepcopy(layer.state_dict()))
    x = torch.randn(T, B, FEATURES)
    assert torch.equal(empty(x)[0], layer(x)[0])
