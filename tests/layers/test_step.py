"""One step of a layer at a time: `RNN.step`."""

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
