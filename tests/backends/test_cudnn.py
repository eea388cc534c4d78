"""What the cuDNN backend computes. Without a GPU: torch's functions that it calls give the same numbers on a CPU."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from cudnn_calls import CELLS, DEVICES, RIGHT, draw_call, gradients, leaves_of
from recurlab.backends import cudnn, eager
from recurlab.cells.gru import GRU
from recurlab.cells.lstm import LSTM
from waiting import nothing_waits


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


@st.composite
def calls(draw, device):
    torch.manual_seed(draw(st.integers(0, 2**31 - 1)))
    shape = steps, batch, *_ = tuple(draw(st.integers(1, largest)) for largest in (7, 5, 4, 6))
    lengths = torch.randint(1, steps + 1, (batch,)) if draw(st.booleans()) else None
    call = draw_call(
        draw(st.sampled_from(CELLS)),
        lengths=lengths,
        both=draw(st.booleans()),
        bias=draw(st.booleans()),
        shape=shape,
        device=device,
    )
    return replace(call, training=draw(st.booleans()))


@pytest.mark.parametrize("device", DEVICES)
@settings(deadline=None, max_examples=150)
@given(data=st.data())
def test_it_gives_the_numbers_and_gradients_of_the_reference(device, data):
    call = data.draw(calls(device))
    found, wanted = cudnn.run(call), eager.run(call)
    assert_close(found, wanted, rtol=1e-10, atol=1e-10)
    leaves = leaves_of(call)
    assert_close(gradients(*found, leaves), gradients(*wanted, leaves), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("cell", CELLS, ids=str)
def test_padding_has_an_output_and_a_gradient_of_exactly_zero(cell, device):
    call = draw_call(cell, lengths=RIGHT, both=True, device=device)
    output, ends = cudnn.run(call)
    (grad,) = gradients(output, ends, [call.input])
    for rows in (output, grad):
        assert not rows[~call.mask].any()
        assert rows[call.mask].any(dim=-1).all()


@pytest.mark.parametrize("device", DEVICES)
def test_weights_that_are_no_plain_block_of_memory_are_taken_as_they_are(device):
    call = draw_call(LSTM(), device=device)
    (direction,) = call.directions
    turned = replace(
        direction,
        weight_ih=direction.weight_ih.detach().t().contiguous().t().requires_grad_(),
        bias_hh=torch.stack([direction.bias_hh.detach()] * 2, dim=1)[:, 0].requires_grad_(),
    )
    odd = replace(call, directions=(turned,))
    assert not turned.weight_ih.is_contiguous()
    found, wanted = cudnn.run(odd), cudnn.run(call)
    assert_close(found, wanted, rtol=0, atol=0)
    assert_close(gradients(*found, leaves_of(odd)), gradients(*wanted, leaves_of(call)), rtol=0, atol=0)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("lengths", [None, RIGHT], ids=["whole", "padded"])
@pytest.mark.parametrize("cell", CELLS, ids=str)
def test_half_precision_is_close_to_the_reference(cell, lengths, dtype, device):
    call = draw_call(cell, lengths=lengths, both=True, dtype=dtype, device=device)
    found, wanted = cudnn.run(call), eager.run(call)
    tolerance = 8 * torch.finfo(dtype).eps
    assert found[0].dtype == dtype
    assert_close(found, wanted, rtol=tolerance, atol=tolerance)
    leaves = leaves_of(call)
    results = gradients(*found, leaves), gradients(*wanted, leaves)
    for one, other in zip(*results, strict=True):
        assert one.dtype == dtype
        assert (one - other).norm() <= 4 * tolerance * other.norm()


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_under_autocast_it_takes_and_gives_the_dtype_of_autocast(dtype, device):
    call = draw_call(GRU(), lengths=RIGHT, both=True, dtype=torch.float32, device=device)
    with torch.autocast(device, dtype):
        found, wanted = cudnn.run(call), eager.run(call)
    tolerance = 8 * torch.finfo(dtype).eps
    assert found[0].dtype == found[1][0][0].dtype == dtype
    assert_close(found, wanted, rtol=tolerance, atol=tolerance)
    for grad, leaf in zip(gradients(*found, leaves_of(call)), leaves_of(call), strict=True):
        assert grad.dtype == leaf.dtype == torch.float32
        assert grad.isfinite().all()


@pytest.mark.parametrize("device", DEVICES)
def test_autocast_leaves_float64_alone(device):
    call = draw_call(device=device)
    with torch.autocast(device, torch.bfloat16):
        found = cudnn.run(call)
    assert_close(found, cudnn.run(call), rtol=0, atol=0)


@pytest.mark.parametrize("device", DEVICES)
def test_a_start_of_another_precision_is_brought_to_that_of_the_input(device):
    call = draw_call(LSTM(), dtype=torch.float32, device=device)
    (direction,) = call.directions
    wide = replace(direction, state=tuple(s.double() for s in direction.state))
    assert_close(cudnn.run(replace(call, directions=(wide,))), cudnn.run(call), rtol=0, atol=0)


needs_gpu = pytest.mark.skipif("cuda" not in DEVICES, reason="needs a CUDA device")


@needs_gpu
@pytest.mark.parametrize("lengths", [None, RIGHT], ids=["whole", "padded"])
@pytest.mark.parametrize("cell", CELLS, ids=str)
def test_on_a_gpu_it_serves_the_call_and_its_weights_keep_their_place(cell, lengths):
    call = draw_call(cell, lengths=lengths, both=True, device="cuda")
    assert cudnn.supports(call) is None
    before = [(leaf.data_ptr(), leaf.detach().clone()) for leaf in leaves_of(call)]
    gradients(*cudnn.run(call), leaves_of(call))  # a warning about the weights' memory would be an error
    assert all(leaf.data_ptr() == at for leaf, (at, _) in zip(leaves_of(call), before, strict=True))
    assert all(torch.equal(leaf, values) for leaf, (_, values) in zip(leaves_of(call), before, strict=True))


@needs_gpu
def test_on_a_gpu_a_second_derivative_is_refused():
    call = draw_call(device="cuda")
    (first,) = torch.autograd.grad(cudnn.run(call)[0].square().sum(), call.input, create_graph=True)
    with pytest.raises(RuntimeError, match=r"(?i)double backward"):
        first.square().sum().backward()


@needs_gpu
@pytest.mark.parametrize("lengths", [None, RIGHT], ids=["whole", "padded"])
def test_on_a_gpu_the_host_never_waits(lengths):
    call = draw_call(LSTM(), lengths=lengths, both=True, dtype=torch.float32, device="cuda")
    cudnn.run(call)
    with nothing_waits():
        output, _ = cudnn.run(call)
        output.sum().backward()
