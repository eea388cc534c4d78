"""A stateful layer starts each batch where the last one ended."""

import copy

import pytest
import torch
from torch.utils.checkpoint import checkpoint

import recurlab

T, CUT, B, FEATURES, H = 11, 4, 3, 5, 6


@pytest.fixture
def x():
    torch.manual_seed(16)
    return torch.randn(T, B, FEATURES, dtype=torch.float64)


def test_two_parts_in_sequence_are_the_whole(variant, make, x, same):
    layer, plain = (make(num_layers=2, stateful=stateful, **variant) for stateful in (True, False))
    first, second = layer(x[:CUT]), layer(x[CUT:])
    output, final = plain(x)
    same(torch.cat([first[0], second[0]]), output)
    same(second[1], final)


def test_the_carried_state_is_detached(variant, make, x):
    layer = make(stateful=True, **variant)
    first = x[:CUT].clone().requires_grad_()
    layer(first)[0].sum()
    assert all(not s.requires_grad for s in layer.carried_state)
    layer(x[CUT:])[0].sum().backward()
    assert first.grad is None


def test_reset_states_forgets_all_samples(variant, make, x, same):
    layer = make(stateful=True, **variant)
    fresh = layer(x)
    again = layer(x)
    layer.reset_states()
    assert layer.carried_state is None
    same(layer(x), fresh)
    assert not torch.equal(again[0], fresh[0])


def test_reset_states_with_a_mask_forgets_those_samples_only(variant, make, x):
    layer = make(stateful=True, num_layers=2, **variant)
    fresh, _ = layer(x)
    continued, _ = copy.deepcopy(layer)(x)
    layer.reset_states(torch.tensor([False, True, False]))
    output, _ = layer(x)
    assert torch.equal(output[:, 1], fresh[:, 1])
    assert torch.equal(output[:, [0, 2]], continued[:, [0, 2]])
    assert not torch.equal(fresh[:, [0, 2]], continued[:, [0, 2]])


def test_a_masked_sample_carries_the_state_of_its_last_valid_step(make, x, same):
    layer, plain = make(stateful=True), make()
    lengths = [4, 1, 3]
    layer(x[:CUT], lengths=lengths)
    output, _ = layer(x[CUT:])
    for b, length in enumerate(lengths):
        whole = torch.cat([x[:length, b], x[CUT:, b]])
        same(output[:, b], plain(whole)[0][length:])


def test_a_state_that_is_given_goes_before_the_carried_one(make, x, states_for, same):
    layer, plain = make(stateful=True), make()
    state = states_for(layer, B)
    layer(x)
    found = layer(x, state)
    same(found, plain(x, state))
    same(layer(x), plain(x, found[1]))  # and it is what is carried on


def test_the_carried_state_can_be_saved_and_put_back(make, x, same):
    layer, other = make(stateful=True, cell="lstm"), make(stateful=True, cell="lstm")
    layer(x[:CUT])
    other.carried_state = layer.carried_state
    same(other(x[CUT:]), layer(x[CUT:]))


def test_a_changed_batch_is_an_error_until_the_states_are_reset(make, x):
    layer = make(stateful=True)
    layer(x)
    with pytest.raises(recurlab.RecurlabError, match=r"a batch of 2.*carries 3.*reset_states"):
        layer(x[:, :2])
    layer.reset_states()
    assert layer(x[:, :2])[0].shape == (T, 2, H)


@pytest.mark.parametrize("mask", [torch.tensor([True, False]), torch.ones(B), torch.ones(1, B, dtype=torch.bool)])
def test_a_wrong_mask_for_reset_states_is_an_error(mask, make, x):
    layer = make(stateful=True)
    layer(x)
    with pytest.raises(recurlab.RecurlabError, match=r"must be torch.bool of shape \(3,\)"):
        layer.reset_states(mask)


def test_resetting_before_any_batch_is_allowed(make):
    layer = make(stateful=True)
    layer.reset_states()
    layer.reset_states(torch.ones(B, dtype=torch.bool))
    assert layer.carried_state is None


def test_a_layer_that_is_not_stateful_carries_nothing(make, x):
    layer = make()
    layer(x)
    assert layer.carried_state is None


def test_a_state_returned_is_the_callers_own(make, x, same):
    layer, other = make(stateful=True), make(stateful=True)
    layer(x)[1].zero_()
    other(x)
    same(layer(x), other(x))


@pytest.mark.parametrize("backend", ["eager", "fused"])
@pytest.mark.parametrize("use_reentrant", [True, False])
def test_a_state_that_a_checkpoint_would_take_twice_is_refused(use_reentrant, backend, make, x, skip_unless_able):
    skip_unless_able(backend)
    layer = make(stateful=True, backend=backend)
    output = checkpoint(lambda x: layer(x)[0], x.requires_grad_(), use_reentrant=use_reentrant)
    with pytest.raises(recurlab.RecurlabError, match=r"stateful=True: torch.utils.checkpoint runs .*; give hx"):
        output.sum().backward()


@pytest.mark.parametrize("use_reentrant", [True, False])
def test_a_checkpoint_of_given_states_has_the_right_gradients_and_the_last_state(use_reentrant, make, x, same):
    noise = {"zoneout": 0.2, "dropconnect": 0.2, "recurrent_dropout": 0.2}
    found, parts = [], (x[:CUT].requires_grad_(), x[CUT:].detach().requires_grad_())
    for checkpointed in (True, False):
        layer = make(stateful=True, **noise)
        state, loss = torch.zeros(1, B, H, dtype=x.dtype), 0.0
        for part in parts:
            if checkpointed:
                output, state = checkpoint(layer, part, state, use_reentrant=use_reentrant)
            else:
                output, state = layer(part, state)
            state = state.detach()
            loss = loss + output.sin().sum()
        loss.backward()
        same(layer.carried_state[0], state)
        found.append([p.grad for p in layer.parameters()])
    same(*found)


@pytest.mark.slow
@pytest.mark.parametrize("inside", [True, False])
def test_a_compiled_checkpoint_is_refused_too(inside, make, x):
    layer = make(stateful=True)
    wrap = lambda run: lambda x: checkpoint(run, x, use_reentrant=False)  # noqa: E731
    compiled = lambda run: torch.compile(run, backend="aot_eager")  # noqa: E731
    run = compiled(wrap(lambda x: layer(x)[0])) if inside else wrap(compiled(lambda x: layer(x)[0]))
    with pytest.raises(recurlab.RecurlabError, match="give hx"):
        run(x.requires_grad_()).sum().backward()


@pytest.mark.parametrize("backend", ["eager", "fused"])
def test_training_goes_on_from_an_evaluation_in_inference_mode(variant, backend, make, x, same, skip_unless_able):
    skip_unless_able(backend)
    layer, other = (make(num_layers=2, stateful=True, backend=backend, **variant) for _ in range(2))
    forget = torch.tensor([False, True, False])
    with torch.inference_mode():
        layer(x)
        layer.reset_states(forget)
    other(x)
    other.reset_states(forget)
    found = []
    for each in (layer, copy.deepcopy(layer), other):
        each.carried_state[0][:, 0] += 1.0
        each(x)[0].sum().backward()
        each.step(x[0])[0].sum().backward()
        found.append([*each.carried_state, *(p.grad for p in each.parameters())])
    same(found[0], found[2])
    same(found[1], found[2])


def test_what_torch_func_makes_of_a_state_is_not_carried(make, x, same):
    layer, other = make(stateful=True), make(stateful=True)
    weights = dict(layer.named_parameters())

    def loss(weights, x):
        return torch.func.functional_call(layer, weights, (x,))[0].sum()

    found = torch.func.grad(loss)(weights, x)
    other(x)[0].sum().backward()
    same(found, {name: p.grad for name, p in other.named_parameters()})
    assert not torch._C._functorch.is_functorch_wrapped_tensor(layer.carried_state[0])
    same(layer(x), other(x))
    layer.reset_states()
    with pytest.raises(recurlab.RecurlabError, match=r"stateful=True: a layer can't carry its state out of torch.vmap"):
        torch.func.vmap(torch.func.grad(loss), (None, 1))(weights, x.unsqueeze(2))
