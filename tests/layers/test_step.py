"""One step of a layer at a time: `RNN.step`."""

import copy

import pytest
import torch
from torch.testing import assert_close

import recurlab
from recurlab.errors import RecurlabError


def stepped(layer, x, state=None):
    """Return what a layer gives for a sequence (T, B, I) that comes step by step."""
    outputs = []
    for part in x:
        output, state = layer.step(part, state)
        outputs.append(output)
    return torch.stack(outputs), state


def bits(found, wanted):
    assert_close(found, wanted, rtol=0, atol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("batch", [1, 2, 17])
def test_steps_are_the_sequence_bit_for_bit_on_eager(variant, batch, dtype, products):
    torch.manual_seed(3)
    layer = recurlab.RNN(7, 33, 2, dropout=0.5, zoneout=0.2, backend="eager", dtype=dtype, **variant).eval()
    x = torch.randn(6, batch, 7, dtype=dtype)
    with torch.no_grad():
        bits(stepped(layer, x), layer(x))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_in_half_precision_the_state_is_rounded_between_steps(dtype):
    torch.manual_seed(5)
    layer = recurlab.RNN(7, 9, cell="lstm", backend="eager", dtype=dtype).eval()
    x = torch.randn(6, 3, 7, dtype=dtype)
    with torch.no_grad():
        assert_close(stepped(layer, x), layer(x), rtol=0, atol=8 * torch.finfo(dtype).eps)


@pytest.mark.parametrize("sizes", [(1, 64, 128), (3, 256, 64), (32, 300, 100)])
def test_steps_are_the_sequence_at_sizes_whose_products_are_split_otherwise(sizes, products):
    batch, features, units = sizes
    torch.manual_seed(4)
    layer = recurlab.RNN(features, units, cell="lstm", backend="eager").eval()
    x = torch.randn(9, batch, features)
    with torch.no_grad():
        bits(stepped(layer, x), layer(x))


def test_gradients_of_steps_are_those_of_the_sequence(variant, make, same, skip_unless_able):
    skip_unless_able("fused")
    layer = make(num_layers=2, backend="fused", **variant)
    x = torch.randn(5, 3, 5, dtype=torch.float64)
    found = {}
    for run in (layer, lambda x: stepped(layer, x)):
        layer.zero_grad()
        run(x)[0].cos().sum().backward()
        found[run] = [p.grad.clone() for p in layer.parameters()]
    same(*found.values())


def test_a_stateful_layer_goes_on_from_its_last_step_and_batch_first_changes_nothing(make, products):
    layer = make(batch_first=True, stateful=True, backend="eager")
    x = torch.randn(4, 3, 5, dtype=torch.float64)
    found = torch.stack([layer.step(part)[0] for part in x], dim=1)
    layer.reset_states()
    bits(found, layer(x.transpose(0, 1))[0])


def test_a_step_without_a_batch(make, products):
    layer = make(cell="lstm", batch_first=True, backend="eager")
    x = torch.randn(4, 5, dtype=torch.float64)
    found, state = stepped(layer, x)
    assert found.shape == (4, 6)
    bits((found, state), layer(x))


@pytest.mark.parametrize(
    ("options", "shape", "message"),
    [({"bidirectional": True}, (2, 5), "bidirectional=True: such a layer needs whole sequences"),
     ({"go_backwards": True}, (2, 5), "go_backwards=True: such a layer needs whole sequences"),
     ({}, (3, 2, 5), r"input=\(3, 2, 5\): must be \(B, I\) or \(I,\) with I=5"),
     ({}, (2, 4), r"input=\(2, 4\): must be \(B, I\) or \(I,\) with I=5")],
)  # fmt: skip
def test_what_has_no_single_steps_is_refused(make, options, shape, message):
    with pytest.raises(RecurlabError, match=message):
        make(**options).step(torch.zeros(shape, dtype=torch.float64))


# ---- the compiled step ------------------------------------------------------------------------------------------


@pytest.fixture
def able(skip_unless_able):
    skip_unless_able("fused")


def run_steps(layer, x, resets, state=None):
    outputs = []
    for part, cut in zip(x, resets, strict=True):
        output, state = layer.step(part, state, resets=cut)
        outputs.append(output)
    return torch.stack(outputs), state


@pytest.mark.usefixtures("able")
@pytest.mark.parametrize(("batch", "units", "bias"), [(1, 6, True), (7, 33, False)])
def test_compiled_steps_are_the_sequence(variant, batch, units, bias, states_for):
    torch.manual_seed(4)
    layer = recurlab.RNN(5, units, 2, bias=bias, zoneout=0.2, dtype=torch.float64, **variant).eval()
    x, resets, start = (
        torch.randn(4, batch, 5, dtype=torch.float64),
        torch.rand(4, batch) < 0.3,
        states_for(layer, batch),
    )
    with torch.no_grad():
        for state in (None, start):
            found = run_steps(layer, x, resets, state)
            assert set(layer.backends_used.values()) == {"fused"}
            assert_close(found, layer(x, state, resets=resets, _backend="eager"), rtol=1e-11, atol=1e-11)
        found = layer.step(x[0, 0])
        assert_close(found[0], layer(x[:1, 0])[0][0], rtol=1e-11, atol=1e-11)


@pytest.mark.usefixtures("able")
def test_a_compiled_step_has_the_same_bits_for_any_batch_and_number_of_threads(make):
    layer = make(cell="lstm", features=70, units=150, num_layers=2).eval()  # enough weights to be shared by threads
    x, before = torch.randn(19, 70, dtype=torch.float64), torch.get_num_threads()
    with torch.no_grad():
        wanted = layer.step(x)
        for threads in (1, 2, 3, 5):
            torch.set_num_threads(threads)
            try:
                bits(layer.step(x), wanted)
            finally:
                torch.set_num_threads(before)
        for b in (0, 15, 16, 18):
            bits(layer.step(x[b])[0], wanted[0][b])


@pytest.mark.usefixtures("able")
def test_a_compiled_step_sees_weights_that_were_changed_and_rates_that_were_set(make):
    layer, x = make(cell="gru", zoneout=0.1).eval(), torch.randn(2, 5, dtype=torch.float64)
    changes = [
        lambda: layer.weight_ih_l0.data.mul_(2),
        lambda: setattr(layer.weight_hh_l0, "data", layer.weight_hh_l0.data * 3),
        lambda: setattr(layer, "bias_hh_l0", torch.nn.Parameter(layer.bias_hh_l0 + 1)),
        lambda: setattr(layer, "zoneout", (0.6,)),
        lambda: torch.nn.utils.parametrize.register_parametrization(layer, "weight_hh_l0", torch.nn.Tanh()),
    ]
    with torch.no_grad():
        state = layer.step(x)[1]
        for change in changes:
            before = layer.step(x, state)[0]
            change()
            after = layer.step(x, state)[0]
            assert (after - before).abs().max() > 1e-6
            assert_close(after, layer(x.unsqueeze(0), state, _backend="eager")[0][0], rtol=1e-11, atol=1e-11)


@pytest.mark.usefixtures("able")
def test_a_step_that_others_have_to_see_is_a_call_of_the_layer(make):
    layer, x, seen = make().eval(), torch.randn(2, 5, dtype=torch.float64), []
    layer.step(x)[0].sum().backward()
    assert all(p.grad is not None for p in layer.parameters())
    layer.register_forward_hook(lambda *_: seen.append(1))
    with torch.no_grad():
        layer.step(x)
    assert seen == [1]


@pytest.mark.usefixtures("able")
def test_a_stateful_layer_carries_the_state_of_its_compiled_steps(make):
    layer, x = make(cell="lstm", stateful=True).eval(), torch.randn(3, 2, 5, dtype=torch.float64)
    with torch.no_grad():
        output, state = stepped(layer, x)
        for given in state:
            given.fill_(9)  # what the caller does with what was returned changes nothing that is carried
        again = layer.step(x[0])[0]
        layer.reset_states()
        assert_close(torch.cat([output, again.unsqueeze(0)]), layer(torch.cat([x, x[:1]]))[0], rtol=1e-11, atol=1e-11)
    copy.deepcopy(layer).step(x[0].detach())


@pytest.mark.parametrize("resets", [torch.zeros(3, dtype=torch.bool), torch.zeros(2)])
def test_resets_of_a_step_are_one_flag_for_each_sample(make, resets):
    with pytest.raises(RecurlabError, match=r"resets=\(\d,\) torch\.\w+: must be torch.bool of shape \(2,\)"):
        make().step(torch.zeros(2, 5, dtype=torch.float64), resets=resets)
