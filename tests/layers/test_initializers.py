"""How weights start, for each form of the recurrent weight."""

import pytest
import torch

import recurlab
from recurlab.layers.constraints import MaxAbs
from recurlab.layers.initializers import Constant, Glorot, Identity, IndRNN, Normal, Orthogonal, Uniform

FEATURES, H, HEADS, GATES = 5, 48, 4, 3
SHAPES = {
    "dense": {"recurrence": "dense"},
    "diagonal": {"recurrence": "diagonal"},
    "block": {"recurrence": "block", "heads": HEADS},
}
WIDTH = {"dense": H, "diagonal": 1, "block": H // HEADS}


@pytest.fixture(params=SHAPES)
def shape(request):
    torch.manual_seed(18)
    return request.param


def layer_of(shape, **options):
    return recurlab.RNN(FEATURES, H, dtype=torch.float64, **SHAPES[shape], **options)


def matrices(layer, shape):
    """Return the recurrent weight as (gates, heads, rows, columns)."""
    width = WIDTH[shape]
    return layer.weight_hh_l0.detach().view(GATES, H // width, width, width)


def test_uniform_fills_its_range(shape):
    layer = layer_of(shape, recurrent_init=Uniform(0.2, 0.7), input_init=Uniform(-3, -2), bias_init=Uniform(4, 5))
    for weight, low, high in [(layer.weight_hh_l0, 0.2, 0.7), (layer.weight_ih_l0, -3, -2), (layer.bias_hh_l0, 4, 5)]:
        assert low <= weight.min() < low + 0.05
        assert high - 0.05 < weight.max() <= high


def test_normal_has_its_mean_and_deviation(shape):
    weight = layer_of(shape, recurrent_init=Normal(std=0.5, mean=2.0)).weight_hh_l0
    spread = 5 * 0.5 / weight.numel() ** 0.5
    assert abs(weight.mean() - 2.0) < spread
    assert abs(weight.std() - 0.5) < spread


def test_constant_fills_every_kind_of_weight(shape):
    layer = layer_of(shape, recurrent_init=Constant(0.25), input_init=Constant(-1), bias_init=Constant(3))
    assert layer.weight_hh_l0.unique().tolist() == [0.25]
    assert layer.weight_ih_l0.unique().tolist() == [-1]
    assert layer.bias_ih_l0.unique().tolist() == layer.bias_hh_l0.unique().tolist() == [3]


@pytest.mark.parametrize("per_gate", [True, False])
def test_glorot_is_bounded_by_its_fans(shape, per_gate):
    layer = layer_of(shape, recurrent_init=Glorot(2.0, per_gate), input_init=Glorot(1.0, per_gate))
    width, gates = WIDTH[shape], 1 if per_gate else GATES
    for weight, gain, fan_in, fan_out in [
        (layer.weight_hh_l0, 2.0, width, gates * width),
        (layer.weight_ih_l0, 1.0, FEATURES, gates * H),
    ]:
        bound = gain * (6 / (fan_in + fan_out)) ** 0.5
        assert 0.95 * bound < weight.abs().max() <= bound


def test_orthogonal_gates_are_orthogonal_each(shape, same):
    found = matrices(layer_of(shape, recurrent_init=Orthogonal(gain=1.5)), shape)
    identity = torch.eye(WIDTH[shape], dtype=torch.float64).expand_as(found)
    same(found @ found.transpose(-1, -2), 1.5**2 * identity)
    assert WIDTH[shape] == 1 or not torch.allclose(found[0], found[1])


def test_orthogonal_over_all_gates_has_orthonormal_columns(shape, same):
    found = matrices(layer_of(shape, recurrent_init=Orthogonal(per_gate=False)), shape)
    width = WIDTH[shape]
    whole = found.transpose(0, 1).flatten(1, 2)  # (heads, gates * rows, columns)
    same(whole.transpose(-1, -2) @ whole, torch.eye(width, dtype=torch.float64).expand(H // width, -1, -1))


def test_an_orthogonal_input_weight_has_orthonormal_columns(same):
    gates = layer_of("dense", input_init=Orthogonal()).weight_ih_l0.detach().view(GATES, H, FEATURES)
    same(gates.transpose(-1, -2) @ gates, torch.eye(FEATURES, dtype=torch.float64).expand(GATES, -1, -1))


def test_identity_is_the_identity_of_each_gate_and_head(shape):
    found = matrices(layer_of(shape, recurrent_init=Identity(0.5)), shape)
    assert torch.equal(found, 0.5 * torch.eye(WIDTH[shape], dtype=torch.float64).expand_as(found))


@pytest.mark.parametrize(("low", "least"), [(0.0, 0.0), (0.5, 0.5 ** (1 / 50))])
def test_the_indrnn_range_is_that_of_the_paper(low, least):
    weight = layer_of("diagonal", recurrent_init=IndRNN(gamma=2.0, min_gamma=low, steps=50)).weight_hh_l0
    most = 2.0 ** (1 / 50)
    assert least <= weight.min() < least + 0.1 * (most - least)
    assert most - 0.1 * (most - least) < weight.max() <= most


def test_without_an_initializer_the_bound_follows_the_units_that_feed_a_unit(shape):
    layer = layer_of(shape)
    for weight, fan in [(layer.weight_hh_l0, WIDTH[shape]), (layer.weight_ih_l0, H), (layer.bias_hh_l0, H)]:
        bound = fan**-0.5
        assert 0.9 * bound < weight.abs().max() <= bound


def test_the_last_layer_may_start_otherwise(shape):
    layer = layer_of(
        shape, num_layers=3, bidirectional=True, recurrent_init=Constant(1), last_recurrent_init=Constant(2)
    )
    for name, weight in layer.named_parameters():
        if "weight_hh" in name:
            assert weight.unique().tolist() == [2 if "_l2" in name else 1], name


@pytest.mark.parametrize("bias_init", [None, Constant(7)])
def test_a_gate_bias_is_the_sum_of_both_biases_of_that_gate(bias_init):
    layer = recurlab.RNN(
        FEATURES, H, 2, bidirectional=True, cell="lstm", gate_bias={"forget": 1.5}, bias_init=bias_init
    )
    for suffix in ("_l0", "_l0_reverse", "_l1", "_l1_reverse"):
        total = (getattr(layer, "bias_ih" + suffix) + getattr(layer, "bias_hh" + suffix)).detach().view(4, H)
        assert total[1].unique().tolist() == [1.5]
        assert not (total[[0, 2, 3]] == 1.5).any()
        assert bias_init is None or total[[0, 2, 3]].unique().tolist() == [14]


class SomeEntries(recurlab.Cell):
    """Gates that enter by their input and recurrence, by one of them, and by none."""

    gates = ("both", "recurrent", "input", "compared", "none")

    def step(self, x, h, recur):
        recur.none(h)
        n = torch.tanh(x.both + recur.both(h)) * torch.sigmoid(recur.recurrent(h))
        return torch.where(x.compared + recur.compared(h) > 0, n, n + x.input)


@pytest.mark.parametrize("layer_norm", [False, True])
@pytest.mark.parametrize("gate", ["both", "recurrent", "input", "compared"])
def test_a_gate_starts_from_the_bias_that_its_step_looks_at(gate, layer_norm):
    layer = recurlab.RNN(FEATURES, H, cell=SomeEntries(), gate_bias={gate: 1.5}, layer_norm=layer_norm)
    index = SomeEntries.gates.index(gate)
    biases = {name: getattr(layer, name).detach().view(5, H)[index] for name in ("bias_ih_l0", "bias_hh_l0")}
    seen, rest = ("bias_hh_l0", "bias_ih_l0") if gate == "recurrent" else ("bias_ih_l0", "bias_hh_l0")
    assert biases[seen].unique().tolist() == [1.5]
    assert not biases[rest].any()


def test_the_gate_without_an_input_is_what_was_asked_for():
    layer = recurlab.RNN(FEATURES, H, cell=SomeEntries(), gate_bias={"recurrent": 2.0, "both": 0.5, "input": 0.0})
    n = torch.tanh(torch.tensor(0.5)) * torch.sigmoid(torch.tensor(2.0))
    output, _ = layer.eval()(torch.zeros(1, 1, FEATURES))
    torch.testing.assert_close(output, n.expand(1, 1, H))


def test_reset_parameters_starts_again_the_same_way():
    layer = layer_of("diagonal", recurrent_init=IndRNN(), gate_bias={"update": 2.0}, recurrent_constraint=MaxAbs(0.5))
    torch.manual_seed(1)
    layer.reset_parameters()
    first = {name: p.clone() for name, p in layer.named_parameters()}
    layer.weight_hh_l0.data.fill_(9)
    torch.manual_seed(1)
    layer.reset_parameters()
    assert all(torch.equal(first[name], p) for name, p in layer.named_parameters())
    assert first["weight_hh_l0"].max() == 0.5  # the constraint holds from the start


BAD = [
    (lambda: Uniform(1.0, 1.0), ["uniform.low=1.0", "uniform.high=1.0"]),
    (lambda: Normal(std=-1.0), ["normal.std=-1.0", "at least 0"]),
    (lambda: IndRNN(gamma=0.0), ["indrnn.gamma=0.0", "greater than 0"]),
    (lambda: IndRNN(min_gamma=3.0), ["indrnn.min_gamma=3.0", "at most 2"]),
    (lambda: IndRNN(steps=0), ["indrnn.steps=0", "at least 1"]),
    (lambda: layer_of("dense", bias_init=Identity()), ["bias_init=Identity(gain=1.0)", "Uniform, Normal, Constant"]),
    (lambda: layer_of("dense", gate_bias={"updat": 1.0}), ["gate_bias='updat'", "did you mean 'update'"]),
    (lambda: layer_of("dense", bias=False, gate_bias={"update": 1.0}), ["gate_bias=", "no bias"]),
    (lambda: recurlab.RNN(5, 3, cell=SomeEntries(), gate_bias={"none": 1}), ["gate_bias['none']=1", "no bias of this"]),
]


@pytest.mark.parametrize(("faulty", "words"), BAD, ids=[words[0] for _, words in BAD])
def test_a_bad_start_is_named(faulty, words):
    with pytest.raises(recurlab.RecurlabError) as caught:
        faulty()
    assert all(word in str(caught.value) for word in words), str(caught.value)
