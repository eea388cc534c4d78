"""DropConnect, recurrent dropout and dropout between layers, made visible by linear networks with known weights."""

import pytest
import torch

P, H = 0.3, 18
SHAPES = {"dense": {"recurrence": "dense"}, "diagonal": {"recurrence": "diagonal"}}
SHAPES["block"] = {"recurrence": "block", "heads": 3}


@pytest.fixture
def linear(make):
    """Return the maker of h' = x + R h without bias, x (T, B, H); the recurrent weight is left to the test."""

    def build(**options):
        layer = make(features=H, units=H, cell="rnn", activation="linear", bias=False, **options)
        layer.weight_ih_l0.data.copy_(torch.eye(H))
        return layer

    return build


def recurrent_matrix(layer, steps):
    """Return the effective R after each number of steps, read off by sending every unit vector through."""
    nothing, units = torch.zeros(steps, H, H, dtype=torch.float64), torch.eye(H, dtype=torch.float64)
    return layer(nothing, units.unsqueeze(0))[0].transpose(1, 2)  # sample k holds column k


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_dropconnect_masks_the_recurrent_weight_once_for_all_steps_and_samples(shape, linear, same):
    full = recurrent_matrix(linear(**shape), 1)[0]
    layer = linear(dropconnect=P, **shape)
    dropped, total = 0, 0
    for _ in range(30):
        powers = recurrent_matrix(layer, 4)
        drawn = powers[0]
        here = full != 0
        zeroed = drawn[here] == 0
        same(drawn[here][~zeroed], full[here][~zeroed] / (1 - P))
        assert not drawn[~here].any()
        for n in range(1, 4):
            same(powers[n], torch.linalg.matrix_power(drawn, n + 1))
        dropped, total = dropped + int(zeroed.sum()), total + int(here.sum())
    assert abs(dropped / total - P) < 0.08


def test_dropconnect_draws_for_each_element_by_itself(linear):
    zeroed = recurrent_matrix(linear(dropconnect=P), 1)[0] == 0
    assert not (zeroed == zeroed[:1]).all(), "the rows share one mask"
    assert not (zeroed == zeroed[:, :1]).all(), "the columns share one mask"


def test_dropconnect_draws_anew_for_each_call_and_direction(linear):
    layer = linear(dropconnect=P, bidirectional=True)
    x = torch.zeros(1, H, H, dtype=torch.float64)
    ones = torch.eye(H, dtype=torch.float64).expand(2, H, H)
    for name in ("weight_hh_l0", "weight_hh_l0_reverse"):
        getattr(layer, name).data.fill_(1.0)
    first, second = layer(x, ones)[0], layer(x, ones)[0]
    assert not torch.equal(first, second)
    assert not torch.equal(first[..., :H], first[..., H:])


def test_dropconnect_leaves_input_weights_and_biases_alone(variant, make, same):
    layer, plain = make(dropconnect=0.5, **variant), make(**variant)
    x = torch.randn(1, 4, 5, dtype=torch.float64)
    same(layer(x), plain(x))  # from a state of zero one step uses no recurrent weight


def test_dropconnect_of_one_leaves_no_recurrence_but_its_bias(variant, make, states_for, same):
    layer, bare = make(dropconnect=1.0, bidirectional=True, **variant), make(bidirectional=True, **variant)
    for name, parameter in bare.named_parameters():
        if "weight_hh" in name:
            parameter.data.zero_()
    x, state = torch.randn(7, 3, 5, dtype=torch.float64), states_for(layer, 3)
    same(layer(x, state), bare(x, state))


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_the_gradient_reaches_the_kept_weights_only(shape, linear):
    layer = linear(dropconnect=0.5, **shape)
    state = torch.ones(1, 1, H, dtype=torch.float64)
    layer(torch.zeros(1, 1, H, dtype=torch.float64), state)[0].sum().backward()
    assert set(layer.weight_hh_l0.grad.unique().tolist()) == {0.0, 2.0}


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_recurrent_dropout_masks_h_once_for_all_steps(shape, linear, same):
    layer = linear(recurrent_dropout=P, **shape)
    weight = torch.ones_like(layer.weight_hh_l0) if shape["recurrence"] == "diagonal" else torch.eye(H).double()
    if shape["recurrence"] == "block":
        weight = torch.eye(H // 3).double().repeat(3, 1)
    layer.weight_hh_l0.data.copy_(weight)  # R = I, so that h_t = mask^t * h_0
    batch, start = 60, torch.randn(1, 60, H, dtype=torch.float64)
    output, _ = layer(torch.zeros(4, batch, H, dtype=torch.float64), start)
    factor = output[0] / start[0]
    dropped = factor == 0
    same(factor[~dropped], torch.full_like(factor[~dropped], 1 / (1 - P)))
    assert abs(dropped.double().mean() - P) < 0.05
    assert not (dropped == dropped[:1]).all(), "each sample has a mask of its own"
    for n in range(1, 4):
        same(output[n], factor ** (n + 1) * start[0])


def test_recurrent_dropout_leaves_the_input_alone(variant, make, same):
    layer, plain = make(recurrent_dropout=0.5, **variant), make(**variant)
    x = torch.randn(1, 4, 5, dtype=torch.float64)
    same(layer(x), plain(x))


def test_recurrent_dropout_acts_where_h_enters_the_recurrence_and_nowhere_else(variant, make, states_for, same):
    # with every h dropped only the direct path is left: z * h of the GRU, f * c of the LSTM
    layer, bare = make(recurrent_dropout=1.0, bidirectional=True, **variant), make(bidirectional=True, **variant)
    for name, parameter in bare.named_parameters():
        if "weight_hh" in name:
            parameter.data.zero_()
    x, state = torch.randn(7, 3, 5, dtype=torch.float64), states_for(layer, 3)
    same(layer(x, state), bare(x, state))


def between_layers(make, x, **options):
    """Return what the second layer is given, and what the first one gave."""
    layer = make(num_layers=2, units=6, cell="rnn", activation="linear", **options)
    first = make(units=6, cell="rnn", activation="linear")
    first.load_state_dict({name: p for name, p in layer.state_dict().items() if "l0" in name})
    layer.weight_ih_l1.data.copy_(torch.eye(6))
    for name in ("weight_hh_l1", "bias_ih_l1", "bias_hh_l1"):
        getattr(layer, name).data.zero_()
    return layer(x)[0], first(x)[0]


@pytest.mark.parametrize("variational", [False, True])
def test_dropout_between_layers_scales_what_it_keeps(variational, make, same):
    x = torch.randn(40, 30, 5, dtype=torch.float64)
    given, gave = between_layers(make, x, dropout=P, variational=variational)
    dropped = given == 0
    same(given[~dropped], gave[~dropped] / (1 - P))
    assert abs(dropped.double().mean() - P) < 0.08
    assert (dropped == dropped[:1]).all() == variational, "shared over the steps only where variational"
    assert not (dropped == dropped[:, :1]).all()
    assert not (dropped == dropped[..., :1]).all()


@pytest.mark.parametrize("variational", [False, True])
def test_the_last_layer_and_an_only_layer_have_no_dropout(variational, make, same):
    x = torch.randn(7, 3, 5, dtype=torch.float64)
    with pytest.warns(UserWarning, match=r"^dropout=0.9: acts between layers, .* no effect with num_layers=1$") as told:
        alone = make(dropout=0.9, variational=variational)
    assert len(told) == 1
    same(alone(x), make()(x))
    output, _ = make(num_layers=2, dropout=0.9, variational=variational)(x)
    assert output.all()


NOISE = [{"dropout": P}, {"dropout": P, "variational": True}, {"dropconnect": P}, {"recurrent_dropout": P}]


@pytest.mark.parametrize("noise", NOISE, ids=str)
def test_in_evaluation_dropout_is_the_identity(variant, noise, make, same):
    layer, plain = (make(num_layers=2, bidirectional=True, **options, **variant) for options in (noise, {}))
    x = torch.randn(7, 3, 5, dtype=torch.float64)
    same(layer.eval()(x), plain(x))
    assert not torch.equal(layer.train()(x)[0], plain(x)[0])


@pytest.mark.parametrize("noise", [*NOISE, {"zoneout": P}], ids=str)
def test_the_same_seed_draws_the_same_masks(noise, make):
    layer = make(num_layers=2, bidirectional=True, **noise)
    x, outputs = torch.randn(7, 3, 5, dtype=torch.float64), []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        outputs.append(layer(x)[0])
    assert torch.equal(outputs[0], outputs[1])
    assert not torch.equal(outputs[0], outputs[2])
