"""The kernels under autograd: any memory layout, kept graphs, frozen weights, transforms, checkpointing."""

import copy
import warnings

import pytest
import torch
import torch._dynamo.testing
import torch.utils.checkpoint
from torch.func import functional_call
from torch.testing import assert_close

import recurlab
from variants import FEATURES, NOISE, H, draw, everything, make, names_of

pytestmark = pytest.mark.usefixtures("able")


# ---- memory -------------------------------------------------------------------------------------------------


def layouts(x):
    """Return one tensor (T, B, F) in many layouts of memory."""
    wide = torch.full((x.shape[0] * 2, x.shape[1] + 1, x.shape[2] + 3), float("nan"), dtype=x.dtype)
    wide[::2, 1:, 2:-1] = x
    return {
        "batch_first": x.transpose(0, 1).contiguous().transpose(0, 1),
        "features_first": x.permute(2, 0, 1).contiguous().permute(1, 2, 0),
        "features_then_batch": x.permute(2, 1, 0).contiguous().permute(2, 1, 0),
        "strided": wide[::2, 1:, 2:-1],
    }


def test_inputs_and_cotangents_lie_in_memory_as_they_like(variant):
    layer, x, cotangent = make(bidirectional=True, **variant), draw(4, 3, FEATURES), draw(4, 3, 2 * H)

    def run(x, cotangent):
        x = x.detach().requires_grad_()
        output, _ = layer(x)
        return [output.detach(), *torch.autograd.grad(output, [x, *layer.parameters()], cotangent)]

    wanted = run(x, cotangent)
    for name, other in layouts(x).items():
        assert_close(run(other, cotangent), wanted, rtol=1e-12, atol=1e-12, msg=name)
    for name, other in layouts(cotangent).items():
        assert_close(run(x, other), wanted, rtol=1e-12, atol=1e-12, msg=name)


def test_expanded_inputs_states_and_cotangents(variant):
    layer = make(**variant)
    row, start = draw(4, 1, FEATURES), [draw(1, 1, H) for _ in layer.cell.states]

    def run(x, states, cotangent):
        x = x.detach().requires_grad_()
        output, final = layer(x, tuple(states) if len(states) > 1 else states[0])
        finals = final if isinstance(final, tuple) else (final,)
        ends = [torch.ones((), dtype=x.dtype).expand_as(f) for f in finals]
        return [output.detach(), *torch.autograd.grad([output, *finals], [x, *layer.parameters()], [cotangent, *ends])]

    one = torch.ones((), dtype=torch.float64)
    expanded = run(row.expand(4, 3, FEATURES), [s.expand(1, 3, H) for s in start], one.expand(4, 3, H))
    plain = run(row.repeat(1, 3, 1), [s.repeat(1, 3, 1) for s in start], torch.ones(4, 3, H, dtype=torch.float64))
    assert_close(expanded, plain, rtol=1e-12, atol=1e-12)


def test_batch_first_is_the_same_numbers_turned(variant):
    turned, straight = make(batch_first=True, **variant), make(**variant)
    x = draw(4, 3, FEATURES)
    wanted = everything(straight, x)
    found = everything(turned, x.transpose(0, 1).contiguous())
    for place in (0, len(straight.cell.states) + 1):
        found[place] = found[place].transpose(0, 1)
    assert_close(found, wanted, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("full", [False, True])
def test_memory_that_held_nan_before_reaches_no_number(variant, full):
    options = {**NOISE, "bidirectional": True, "masked_output": "hold", "num_layers": 2} if full else {}
    layer, x = make(**variant, **options), draw(6, 3, FEATURES)
    flags = {"mask": draw(6, 3) < 0.3, "resets": draw(6, 3) > 0.8} if full else {}
    if full:
        flags["mask"][2] = False  # a step at which no sample counts
    wanted = everything(layer, x, **flags)
    with warnings.catch_warnings():
        torch.use_deterministic_algorithms(True)
        try:
            assert torch.utils.deterministic.fill_uninitialized_memory
            assert torch.empty(3).isnan().all(), "the poison works"
            found = everything(layer, x, **flags)
        finally:
            torch.use_deterministic_algorithms(False)
    for f, w in zip(found, wanted, strict=True):
        assert torch.equal(f, w)


def test_what_zoneout_draws_is_not_kept_for_the_gradient(variant):
    kept = {}
    for zoneout in (0.0, 0.3):
        layer, x = make(zoneout=zoneout, bidirectional=True, **variant), draw(40, 3, FEATURES)
        layer(x)  # hooks are not for the tracing of a first run
        sizes = []
        with torch.autograd.graph.saved_tensors_hooks(lambda t, to=sizes: to.append(t.nbytes) or t, lambda t: t):
            layer(x)
        kept[zoneout] = sum(sizes)
    assert kept[0.3] <= kept[0.0] + 8 * 2  # the seeds


# ---- graphs of autograd -------------------------------------------------------------------------------------


def test_a_graph_kept_gives_the_same_gradients_twice(variant):
    layer, x = make(bidirectional=True, **variant), draw(4, 3, FEATURES).requires_grad_()
    loss = layer(x)[0].square().sum()
    leaves = [x, *layer.parameters()]
    first = torch.autograd.grad(loss, leaves, retain_graph=True)
    for f, s in zip(first, torch.autograd.grad(loss, leaves), strict=True):
        assert torch.equal(f, s)


def test_gradients_add_up_over_two_calls(variant):
    layer, x = make(**variant), draw(4, 3, FEATURES)
    once = everything(layer, x)[-len(layer._parameters) :]
    everything(layer, x)
    layer(x)  # a call in between whose graph is dropped
    (output, final) = layer(x)
    finals = final if isinstance(final, tuple) else (final,)
    (output.float().square().sum() + sum(f.float().sin().sum() for f in finals)).backward()
    assert_close([p.grad for p in layer.parameters()], [2 * g for g in once], rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_without_gradients_the_numbers_are_the_same(variant, mode):
    layer, x = make(**variant), draw(4, 3, FEATURES)
    wanted = layer(x)[0]
    with mode():
        output, _ = layer(x)
    assert not output.requires_grad
    assert torch.equal(output, wanted)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode, lambda: torch.autocast("cpu", torch.bfloat16)])
def test_a_cell_s_first_run_may_be_in_any_mode(mode):
    class First(recurlab.Cell):
        gates = ("only",)

        def step(self, x, h, recur):
            return torch.tanh(x.only + recur.only(h)) * h.sigmoid()

    layer, x = make(torch.float32, cell=First()), draw(4, 3, FEATURES, dtype=torch.float32)
    with mode():
        layer(x)
    wanted = everything(make(torch.float32, cell=First(), backend="eager"), x)
    assert_close(everything(layer, x), wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("frozen", [["weight_hh_l0"], ["weight_ih_l0", "bias_ih_l0"], ["bias_hh_l0"], "all"])
def test_a_frozen_parameter_has_no_gradient_and_changes_no_other(variant, frozen):
    layer, x = make(**variant), draw(4, 3, FEATURES)
    wanted = dict(zip(names_of(layer), everything(layer, x), strict=True))
    frozen = [name for name, _ in layer.named_parameters()] if frozen == "all" else frozen
    for name in frozen:
        layer.get_parameter(name).requires_grad_(False).grad = None
    found = dict(zip(names_of(layer), everything(layer, x), strict=True))
    for name in wanted:
        assert found[name] is None if name in frozen else torch.equal(found[name], wanted[name]), name


def test_an_input_without_gradient_and_a_state_with_one(variant):
    layer, x = make(**variant), draw(4, 3, FEATURES)
    states = tuple(draw(1, 3, H).requires_grad_() for _ in layer.cell.states)
    output, _ = layer(x, states if len(states) > 1 else states[0])
    found = torch.autograd.grad(output.sum(), states)
    reference = make(backend="eager", **variant)
    wanted = torch.autograd.grad(reference(x, states if len(states) > 1 else states[0])[0].sum(), states)
    assert_close(found, wanted, rtol=1e-10, atol=1e-10)


def test_only_the_final_state_is_used(variant):
    found, wanted = (make(backend=b, **variant) for b in ("fused", "eager"))
    gradients = []
    for layer in (found, wanted):
        final = layer(draw(4, 3, FEATURES))[1]
        (final[-1] if isinstance(final, tuple) else final).sum().backward()
        gradients.append([p.grad for p in layer.parameters()])
    assert_close(*gradients, rtol=1e-10, atol=1e-10)


def test_parameters_given_for_one_call(variant):
    layer, x = make(**variant), draw(4, 3, FEATURES)
    other = {name: (2 * p).detach().requires_grad_() for name, p in layer.named_parameters()}
    output = functional_call(layer, other, (x,))[0]
    gradients = torch.autograd.grad(output.sum(), list(other.values()))
    twice = copy.deepcopy(layer)
    twice.load_state_dict(other)
    output_of_twice = twice(x)[0]
    assert torch.equal(output, output_of_twice)
    assert_close(gradients, torch.autograd.grad(output_of_twice.sum(), list(twice.parameters())), rtol=0, atol=0)


@pytest.mark.parametrize("change", ["output", "weight", "input"])
def test_what_is_changed_in_place_before_the_backward_is_an_error_or_harmless(variant, change):
    layer, x = make(**variant), draw(4, 3, FEATURES)
    wanted = dict(zip(names_of(layer), everything(layer, x), strict=True))
    layer.zero_grad()
    given = x.clone()
    output, final = layer(given)
    finals = final if isinstance(final, tuple) else (final,)
    loss = output.float().square().sum() + sum(f.float().sin().sum() for f in finals)
    with torch.no_grad():
        {"output": output, "weight": layer.weight_hh_l0, "input": given}[change].mul_(2)
    try:
        loss.backward()
    except RuntimeError as error:
        assert "modified by an inplace operation" in str(error)  # noqa: PT017  one of two right answers
        return
    for name, p in layer.named_parameters():
        assert_close(p.grad, wanted[name], rtol=1e-10, atol=1e-10)


# ---- first runs, and what surrounds a run -------------------------------------------------------------------


def fresh():
    """Return a layer of a cell that no test has run before."""

    class Never(recurlab.Cell):
        gates = ("only",)

        def step(self, x, h, recur):
            return torch.tanh(x.only + recur.only(h)) * 0.7

    return make(cell=Never(), backend="auto", recurrence="diagonal")


@pytest.mark.filterwarnings("ignore:Anomaly Detection:UserWarning")
@pytest.mark.parametrize("surrounding", [torch.inference_mode, torch.autograd.detect_anomaly])
def test_a_first_run_in_a_special_mode_leaves_a_kernel(surrounding):
    layer, x = fresh(), draw(4, 3, FEATURES)
    with surrounding():
        layer(x)
    layer(x)
    assert layer.backends_used == {0: "fused"}


def test_a_first_run_in_a_transform_leaves_a_kernel():
    layer, x = fresh(), draw(4, 3, FEATURES)
    torch.func.grad(lambda y: layer(y)[0].sum())(x)
    layer(x)
    assert layer.backends_used == {0: "fused"}


TRANSFORMS = {
    "grad": lambda f, x: torch.func.grad(lambda y: f(y).square().sum())(x),
    "vmap": lambda f, x: torch.func.vmap(f)(torch.stack([x, 2 * x])),
    "vmap_of_grad": lambda f, x: torch.func.vmap(torch.func.grad(lambda y: f(y).square().sum()))(
        torch.stack([x, 2 * x])
    ),
    "jvp": lambda f, x: torch.func.jvp(f, (x,), (x.cos(),))[1],
    "jacrev": lambda f, x: torch.func.jacrev(lambda y: f(y).sum(0))(x),
}


@pytest.mark.filterwarnings("ignore:.*torch.jit.script.*:DeprecationWarning")  # of torch's own forward mode
@pytest.mark.parametrize("name", TRANSFORMS)
def test_auto_takes_what_can_serve_a_transform(name):
    layer = fresh()
    reference = copy.copy(layer)
    reference.backend = "eager"
    x = draw(4, 3, FEATURES)
    layer(x)
    found, wanted = (TRANSFORMS[name](lambda y, one=one: one(y)[0], x) for one in (layer, reference))
    assert_close(found, wanted, rtol=1e-10, atol=1e-10)


def test_a_layer_whose_activations_are_computed_anew(variant):
    layer, x = make(**variant, **NOISE), draw(4, 3, FEATURES).requires_grad_()
    leaves = [x, *layer.parameters()]
    torch.manual_seed(5)
    wanted = torch.autograd.grad(layer(x)[0].square().sum(), leaves)
    torch.manual_seed(5)
    output = torch.utils.checkpoint.checkpoint(lambda y: layer(y)[0], x, use_reentrant=False)
    found = torch.autograd.grad(output.square().sum(), leaves)
    assert_close(found, wanted, rtol=0, atol=0)


def test_a_kernel_may_be_made_where_activations_are_computed_anew():
    layer, x = fresh(), draw(4, 3, FEATURES).requires_grad_()
    torch.utils.checkpoint.checkpoint(lambda y: layer(y)[0], x, use_reentrant=False).sum().backward()
    assert "backend fused" in layer.explain()
