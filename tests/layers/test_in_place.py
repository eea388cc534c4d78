"""What is done in place to a layer's output before the gradient is computed, as torch.nn.GRU allows on a CPU."""

import copy

import pytest
import torch
from torch import nn

CHANGES = {
    "mul_": lambda y: y.mul_(torch.arange(y.numel(), dtype=y.dtype).view(y.shape).cos()),
    "relu_": nn.functional.relu_,
    "zero_": lambda y: y.zero_(),
    "a step set": lambda y: y.__setitem__(1, 0.5),
    "all set": lambda y: y.__setitem__(..., 3 * y.detach()),
    "within no_grad": torch.no_grad()(lambda y: y.mul_(2)),
}
LAYERS = {
    "plain": {},
    "batch_first": {"batch_first": True},
    "bidirectional": {"bidirectional": True, "masked_output": "hold"},
    "two layers": {"num_layers": 2, "cell": "lstm"},
    "noisy": {"zoneout": 0.3, "recurrent_dropout": 0.2, "dropconnect": 0.2},
    "diagonal": {"cell": "indy_gru"},
}


@pytest.fixture
def x():
    torch.manual_seed(23)
    return torch.randn(7, 3, 5, dtype=torch.float64)


def gradients(layer, x, change, **flags):
    x = x.clone().requires_grad_()
    torch.manual_seed(4)
    output, state = layer(x, **flags)
    change(output)
    (output.square().sum() + sum(s.sin().sum() for s in state)).backward()
    return [x.grad, *(p.grad for p in layer.parameters())]


@pytest.mark.parametrize("options", LAYERS.values(), ids=LAYERS)
@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_gradients_are_right_after_a_change_in_place(change, options, make, x, same, skip_unless_able):
    skip_unless_able("fused")
    mask = torch.arange(x.shape[0]).unsqueeze(1) < torch.tensor([7, 2, 5])
    flags = {"mask": mask, "resets": ~mask}
    if options.get("batch_first"):
        x, flags = x.transpose(0, 1).contiguous(), {name: flag.t() for name, flag in flags.items()}
    same(*(gradients(make(backend=backend, **options), x, change, **flags) for backend in ("fused", "eager")))


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_they_are_those_of_torch(change, make, x, same):
    layer, theirs = make(), nn.GRU(5, 6, dtype=torch.float64)
    theirs.load_state_dict(layer.state_dict())
    same(gradients(layer, x, change), gradients(theirs, x, change))


def test_an_input_changed_before_the_gradient_is_torchs_own_error(make, x):
    layer = make()
    output, _ = layer(x)
    x.zero_()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        output.sum().backward()


def test_a_layer_may_be_gone_before_the_gradient_is_computed(make, x, same):
    layer = make(cell="lstm")
    found = [x.clone().requires_grad_() for _ in range(2)]
    copy.deepcopy(layer)(found[0])[0].cos().sum().backward()
    layer(found[1])[0].cos().sum().backward()
    same(found[0].grad, found[1].grad)


@pytest.mark.slow
def test_a_compiled_graph_may_change_its_layers_output(make, x, same):
    found = {}
    for compiled in (False, True):
        layer = make()
        run = lambda x: layer(x)[0].relu_().square().sum()  # noqa: B023,E731
        (torch.compile(run, backend="aot_eager", fullgraph=True) if compiled else run)(x).backward()
        found[compiled] = [p.grad for p in layer.parameters()]
    same(found[True], found[False])
