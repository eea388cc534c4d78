"""The fused kernels of a GPU within PyTorch: graphs, streams, autocast, torch.compile; skipped without a GPU."""

import pytest
import torch
from torch.testing import assert_close

import recurlab
from waiting import nothing_waits

T, B, FEATURES, H = 20, 6, 12, 48
LAYERS = {
    "indy_gru": {"cell": "indy_gru"},
    "gru": {"cell": "gru"},
    "lstm, both directions": {"cell": "lstm", "bidirectional": True},
}

pytestmark = [
    pytest.mark.skipif(not torch.cuda.is_available(), reason="it needs a CUDA device"),
    pytest.mark.filterwarnings("ignore::RuntimeWarning"),  # that the kernels are not measured on this device
]


@pytest.fixture(params=LAYERS)
def layer(request):
    torch.manual_seed(1)
    return recurlab.RNN(FEATURES, H, backend="fused", device="cuda", **LAYERS[request.param])


def draw(seed):
    return torch.randn(T, B, FEATURES, generator=torch.Generator().manual_seed(seed)).cuda()


def train(layer, x):
    """Return the output and the gradients of a training step."""
    layer.zero_grad()
    output, _ = layer(x)
    output.float().square().sum().backward()
    return [output.detach(), *(p.grad.clone() for p in layer.parameters())]


def test_a_captured_graph_gives_what_a_call_gives(layer):
    x, y = draw(2), draw(3)
    wanted = train(layer, y)
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(2):
            train(layer, x)
    torch.cuda.current_stream().wait_stream(side)
    layer.zero_grad(set_to_none=True)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        output, _ = layer(x)
        output.square().sum().backward()
    x.copy_(y)
    graph.replay()
    assert_close([output.detach(), *(p.grad for p in layer.parameters())], wanted, rtol=0, atol=0)


def test_nothing_waits_for_the_device():
    layer = recurlab.RNN(FEATURES, H, cell="indy_gru", zoneout=0.2, backend="fused", device="cuda")
    x = draw(4)
    train(layer, x)
    with nothing_waits():
        train(layer, x)


def test_a_kernel_runs_on_the_stream_of_its_caller(layer):
    x, stream = draw(5), torch.cuda.Stream()
    wanted = train(layer, x)
    # What the stream has to do first takes long: a kernel on another one would read x too early.
    late = torch.empty_like(x)
    torch.cuda.synchronize()
    with torch.cuda.stream(stream):
        torch.cuda._sleep(50_000_000)
        late.copy_(x)
        found = train(layer, late)
    stream.synchronize()
    assert_close(found, wanted, rtol=0, atol=0)


def test_autocast_stores_in_half_precision(layer):
    x = draw(6)
    with torch.autocast("cuda", torch.bfloat16):
        found = train(layer, x)
    assert found[0].dtype == torch.bfloat16
    assert all(gradient.dtype == torch.float32 for gradient in found[1:])
    for left, right in zip(found, train(layer, x), strict=True):
        assert (left.float() - right).norm() <= 0.03 * right.norm()


def test_a_compiled_layer_is_one_graph(layer):
    x = draw(7)
    wanted = train(layer, x)
    compiled = torch.compile(lambda y: layer(y)[0], backend="aot_eager", fullgraph=True)
    layer.zero_grad()
    output = compiled(x)
    output.square().sum().backward()
    assert_close([output.detach(), *(p.grad for p in layer.parameters())], wanted)


def test_both_halves_of_a_long_sequence_continue_each_other():
    layer = recurlab.RNN(FEATURES, H, cell="indy_lstm", backend="fused", device="cuda")
    x = torch.cat([draw(seed) for seed in range(30)])
    whole, end = layer(x)
    first, state = layer(x[:333])
    second, last = layer(x[333:], state)
    assert_close(torch.cat([first, second]), whole, rtol=1e-5, atol=1e-6)
    assert_close(last, end, rtol=1e-5, atol=1e-6)
