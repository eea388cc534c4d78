"""Layers beside those of Keras itself, with its weights: needs `pip install -e .[parity]`."""

import os

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from recurlab.data.japanese_vowels import JapaneseVowels
from recurlab.interop import from_arrays, read_file, to_arrays
from recurlab.layers.constraints import MaxNorm, NonNegative, UnitNorm
from recurlab.layers.regularizers import L1, L1L2, L2, Orthogonal

pytestmark = pytest.mark.filterwarnings("ignore")  # of Keras' own code
B, T, FEATURES, H = 4, 9, 5, 6
LAYERS = {
    "GRU": ("GRU", {}),
    "GRU, reset before": ("GRU", {"reset_after": False}),
    "LSTM": ("LSTM", {}),
    "SimpleRNN": ("SimpleRNN", {}),
    "GRU without biases": ("GRU", {"use_bias": False, "reset_after": False}),
    "LSTM, relu": ("LSTM", {"activation": "relu"}),
    "GRU, hard_sigmoid": ("GRU", {"recurrent_activation": "hard_sigmoid", "activation": None}),
}
HINTS = {"GRU without biases": {"reset": "before"}, "LSTM, relu": {"activation": "relu"},
         "GRU, hard_sigmoid": {"recurrent_activation": "hardsigmoid", "activation": None}}  # fmt: skip
KERNELS = ("kernel", "recurrent_kernel", "bias")
TOLERANCE = {"rtol": 0, "atol": 2e-6}


@pytest.fixture(scope="module")
def keras():
    """Keras on torch; imported here, as it takes seconds."""
    os.environ.setdefault("KERAS_BACKEND", "torch")
    return pytest.importorskip("keras", reason="Keras is not installed: pip install -e .[parity]")


@pytest.fixture
def x():
    return np.random.default_rng(0).normal(size=(B, T, FEATURES)).astype("float32")


def own_options(options):
    return {key: value for key, value in options.items() if key in ("go_backwards", "stateful")}


def pair(keras, name, x, **options):
    """Return a layer of Keras and ours with its weights."""
    keras.utils.set_random_seed(1)
    kind, own = LAYERS[name]
    given = {"return_state": True, "bias_initializer": "random_normal", **own, **options}
    theirs = getattr(keras.layers, kind)(H, return_sequences=True, **given)
    theirs(x)
    arrays = {weight.name: weight.numpy() for weight in theirs.weights}
    ours = from_arrays(
        arrays, "keras", batch_first=True, masked_output="hold", **own_options(options), **HINTS.get(name, {})
    )
    return theirs, ours


def numbers(outcome):
    """Return an output and all states of Keras' or of ours, (B, T, H) and (B, H) each."""
    first, *states = outcome
    if len(states) == 1 and isinstance(states[0], tuple):
        states = states[0]
    return [first.detach(), *(state.detach().reshape(state.shape[-2:]) for state in states)]


def assert_same(ours, theirs):
    for mine, wanted in zip(numbers(ours), numbers(theirs), strict=True):
        assert_close(mine, wanted, **TOLERANCE)


@pytest.mark.parametrize("name", LAYERS)
def test_outputs_and_states(keras, name, x):
    theirs, ours = pair(keras, name, x)
    assert_same(ours(torch.from_numpy(x)), theirs(x))


@pytest.mark.parametrize("name", LAYERS)
def test_masks_with_gaps(keras, name, x):
    theirs, ours = pair(keras, name, x)
    mask = np.random.default_rng(2).random((B, T)) < 0.6
    mask[0], mask[1, :3] = True, False
    assert_same(ours(torch.from_numpy(x), mask=torch.from_numpy(mask)), theirs(x, mask=mask))


@pytest.mark.parametrize("name", LAYERS)
def test_going_backwards(keras, name, x):
    theirs, ours = pair(keras, name, x, go_backwards=True)
    assert_same(ours(torch.from_numpy(x)), theirs(x))
    mask = np.random.default_rng(3).random((B, T)) < 0.6
    assert_same(ours(torch.from_numpy(x), mask=torch.from_numpy(mask)), theirs(x, mask=mask))


@pytest.mark.parametrize("name", LAYERS)
def test_states_that_are_carried_over_three_batches(keras, name, x):
    theirs, ours = pair(keras, name, x, stateful=True)
    theirs.reset_state()
    for shift in range(3):
        part = np.roll(x, shift, axis=1)
        assert_same(ours(torch.from_numpy(part)), theirs(part))


@pytest.mark.parametrize("name", ["GRU", "LSTM"])
def test_regularizers(keras, name, x):
    l1, l2 = keras.regularizers.L1(0.03), keras.regularizers.L2(0.02)
    orthogonal = keras.regularizers.OrthogonalRegularizer(0.7)
    theirs, ours = pair(
        keras, name, x, kernel_regularizer=l1, recurrent_regularizer=orthogonal, bias_regularizer=l2,
        activity_regularizer=keras.regularizers.L1L2(0.01, 0.02), return_state=False,  # of which it has activities, too
    )  # fmt: skip
    ours = from_arrays(
        to_arrays(ours, "keras"), "keras", batch_first=True, input_regularizer=L1(0.03),
        recurrent_regularizer=Orthogonal(0.7), bias_regularizer=L2(0.02), activity_regularizer=L1L2(0.01, 0.02),
    )  # fmt: skip
    theirs(x)
    ours(torch.from_numpy(x))
    assert ours.penalty().item() == pytest.approx(sum(loss.item() for loss in theirs.losses), rel=2e-6)


@pytest.mark.parametrize("name", ["GRU", "LSTM"])
def test_constraints(keras, name, x):
    ours = pair(keras, name, x)[1]
    bounds = keras.constraints.MaxNorm(0.4), keras.constraints.UnitNorm(), keras.constraints.NonNeg()
    wanted = [
        bound(weight).numpy(force=True) for bound, weight in zip(bounds, to_arrays(ours, "keras").values(), strict=True)
    ]
    options = {"input_constraint": MaxNorm(0.4), "recurrent_constraint": UnitNorm(), "bias_constraint": NonNegative()}
    ours = from_arrays(to_arrays(ours, "keras"), "keras", **options)
    ours.constrain()
    for found, array in zip(to_arrays(ours, "keras").values(), wanted, strict=True):
        np.testing.assert_allclose(found, array, rtol=0, atol=2e-6)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("name", ["GRU", "GRU, reset before", "LSTM"])
def test_both_directions(keras, name, x, masked):
    kind, own = LAYERS[name]
    theirs = keras.layers.Bidirectional(
        getattr(keras.layers, kind)(H, return_sequences=True, bias_initializer="random_normal", **own)
    )
    mask = np.arange(T) < np.array([[T], [3], [5], [1]]) if masked else None
    wanted = theirs(x, mask=mask)
    arrays = {weight.path: weight.numpy() for weight in theirs.weights}
    ours = from_arrays(arrays, "keras", batch_first=True)
    lengths = torch.from_numpy(mask.sum(1)) if masked else None
    found = ours(torch.from_numpy(x), lengths=lengths)[0]
    valid = torch.ones(B, T, dtype=torch.bool) if mask is None else torch.from_numpy(mask)
    assert_close(found[valid].detach(), wanted[valid].detach(), **TOLERANCE)
    back = to_arrays(ours, "keras")
    theirs.set_weights([back[f"{way}_layer/{name}"] for way in ("forward", "backward") for name in KERNELS])
    assert_close(theirs(x, mask=mask).detach(), wanted.detach(), rtol=0, atol=0)


def test_a_model_trained_in_keras_goes_on_here_from_the_same_loss(keras, tiny_data, tmp_path):
    vowels = JapaneseVowels(dir=os.environ.get("RECURLAB_DATA", str(tiny_data)) + "/japanese-vowels", verify=False)
    split = vowels.split("train", 0, 0)
    ends = np.cumsum(split.lengths)
    longest = int(split.lengths.max())
    inputs = np.zeros((len(ends), longest, split.inputs.shape[1]), "float32")
    for place, (end, length) in enumerate(zip(ends, split.lengths, strict=True)):
        inputs[place, :length] = split.inputs[end - length : end]
    labels = np.asarray(split.targets)
    mask = np.arange(longest) < split.lengths[:, None]
    recurrent, head = keras.layers.GRU(16), keras.layers.Dense(9)
    given, seen = keras.Input((longest, inputs.shape[2])), keras.Input((longest,), dtype="bool")
    model = keras.Model([given, seen], head(recurrent(given, mask=seen)))
    model.compile(keras.optimizers.Adam(0.01), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    model.fit([inputs, mask], labels, epochs=4, batch_size=16, verbose=0)
    model.save(tmp_path / "model.keras")
    wanted = model.evaluate([inputs, mask], labels, verbose=0, batch_size=len(labels))

    arrays = read_file(tmp_path / "model.keras")
    own = {name.removeprefix("layers/gru/"): array for name, array in arrays.items() if "/gru/" in name}
    layer, linear = from_arrays(own, "keras", batch_first=True), torch.nn.Linear(16, 9)
    linear.load_state_dict({
        "weight": torch.from_numpy(arrays["layers/dense/vars/0"].T.copy()),
        "bias": torch.from_numpy(arrays["layers/dense/vars/1"]),
    })  # fmt: skip
    optimizer = torch.optim.Adam([*layer.parameters(), *linear.parameters()], 0.01)
    losses = []
    for _ in range(5):
        _, state = layer(torch.from_numpy(inputs), lengths=torch.from_numpy(split.lengths.astype("int64")))
        loss = torch.nn.functional.cross_entropy(linear(state[-1]), torch.from_numpy(labels).long())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[0] == pytest.approx(wanted, rel=1e-5)
    assert losses == sorted(losses, reverse=True)
