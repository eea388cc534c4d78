"""Weights that a hook computes from others before each call: pruned ones, and those of torch's older norms."""

import pytest
import torch
from torch import nn
from torch.nn.utils import prune

from recurlab.errors import RecurlabError
from recurlab.interop import to_arrays
from recurlab.layers.constraints import MaxAbs

pytestmark = pytest.mark.filterwarnings("ignore:.*weight_norm.* is deprecated:FutureWarning")
NAME = "weight_hh_l0"


def pruned(layer):
    prune.random_unstructured(layer, NAME, 0.5)


def pruned_twice(layer):
    pruned(layer)
    prune.ln_structured(layer, NAME, 0.3, n=2, dim=1)


def weight_norm(layer):
    nn.utils.weight_norm(layer, NAME)


def spectral_norm(layer):
    nn.utils.spectral_norm(layer, NAME)


def own(layer):
    layer.register_parameter("root", nn.Parameter(layer._parameters.pop(NAME).detach()))
    layer.register_forward_pre_hook(lambda layer, args: setattr(layer, NAME, layer.root**2))
    layer(torch.zeros(1, 1, 5, dtype=torch.float64))


HOOKS = (pruned, pruned_twice, weight_norm, spectral_norm, own)


@pytest.fixture(params=HOOKS, ids=lambda f: f.__name__)
def hooked(request, make):
    """Return the maker of layers with a recurrent weight that a hook computes, and that has changed since."""

    def build(**options):
        layer = make(**options)
        request.param(layer)
        with torch.no_grad():
            for parameter in layer.parameters():
                parameter += 0.25
        return layer.eval()

    return build


@pytest.mark.parametrize(
    "options", [{}, {"batch_first": True}, {"cell": "lstm", "stateful": True}, {"backend": "fused"}]
)
def test_a_step_and_its_gradient_are_of_the_weights_as_they_are_now(options, hooked, same, skip_unless_able):
    skip_unless_able(options.get("backend", "eager"))
    layer, other = hooked(**options), hooked(**options)
    x, state = torch.randn(3, 5, dtype=torch.float64), torch.ones(1, 3, 6, dtype=torch.float64)
    state = (state, state) if options.get("cell") == "lstm" else state
    found = layer.step(x, state)
    time = 1 if options.get("batch_first") else 0
    output, wanted = other(x.unsqueeze(time), state)
    same(found, (output.squeeze(time), wanted))
    found[0].sum().backward()
    output.sum().backward()
    same([p.grad for p in layer.parameters()], [p.grad for p in other.parameters()])


def test_hooks_see_a_step_as_a_sequence_of_one(make):
    layer, shapes = make(batch_first=True), []
    layer.register_forward_hook(lambda layer, args, result: shapes.extend([args[0].shape, result[0].shape]))
    layer.step(torch.zeros(3, 5, dtype=torch.float64))
    assert shapes == [(3, 1, 5), (3, 1, 6)]


@pytest.mark.parametrize("hook", HOOKS[:-1], ids=lambda f: f.__name__)
def test_the_numbers_in_use_are_written_for_others(hook, make, same):
    layer = make()
    hook(layer)
    layer.load_state_dict({name: p + 0.25 for name, p in layer.state_dict().items()})
    written = to_arrays(layer.eval(), "torch")[NAME]
    layer(torch.zeros(1, 1, 5, dtype=torch.float64))
    same(torch.from_numpy(written), getattr(layer, NAME).detach())


def test_a_constraint_that_the_hook_would_undo_is_refused(hooked):
    layer = hooked(recurrent_constraint=MaxAbs(0.5))
    with pytest.raises(RecurlabError, match=r"recurrent_constraint=MaxAbs\(value=0.5\): weight_hh_l0 is computed by a"):
        layer.constrain()


def test_new_numbers_that_the_hook_would_undo_are_refused_before_any_is_drawn(hooked, same):
    layer = hooked()
    before = {name: p.clone() for name, p in layer.state_dict().items()}
    with pytest.raises(RecurlabError, match="weight_hh_l0: it is computed by a hook, and not free to be drawn anew"):
        layer.reset_parameters()
    same(layer.state_dict(), before)
