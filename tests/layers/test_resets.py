"""Resets: running a sequence with boundaries is running its pieces."""

from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import recurlab
from cell_forms import forms
from recurlab.cells import RECURRENCES

T, B, FEATURES, H = 11, 3, 5, 6
# Boundaries at both ends of the sequence, side by side, and none at all.
CUTS = [[0, 4], [1, 2, 10], []]
FORM = st.sampled_from(list(forms(activations=False).values()))


def flags_of(cuts):
    resets = torch.zeros(T, len(cuts), dtype=torch.bool)
    for b, steps in enumerate(cuts):
        resets[steps, b] = True
    return resets


def pieces_of(cuts):
    edges = [0, *(cut for cut in cuts if cut > 0), T]
    return list(pairwise(edges))


def many(layer, states):
    return tuple(states) if len(states) > 1 else states[0]


def run_pieces(layer, x, states, cuts):
    """Run one sample (T, 1, I) of a one-layer network piece by piece; states is a list of (directions, 1, H)."""
    pieces = pieces_of(cuts)
    outputs, finals = [], []
    for i, (begin, end) in enumerate(pieces):
        starts = [torch.zeros_like(s) for s in states]
        for start, state in zip(starts, states, strict=True):
            if i == 0 and 0 not in cuts:
                start[0] = state[0]
            if i == len(pieces) - 1 and layer.bidirectional:
                start[1] = state[1]  # the reverse direction begins in the last piece
        output, final = layer(x[begin:end], many(layer, starts))
        outputs.append(output)
        finals.append(final if isinstance(final, tuple) else (final,))
    last = [torch.cat([finals[-1][k][:1], finals[0][k][1:]]) for k in range(len(states))]
    return torch.cat(outputs), last


@pytest.mark.parametrize("bidirectional", [False, True])
def test_a_sequence_with_boundaries_is_its_pieces(variant, bidirectional, make, states_for, same):
    layer = make(bidirectional=bidirectional, **variant)
    x, state = torch.randn(T, B, FEATURES, dtype=torch.float64), states_for(layer, B)
    states = state if isinstance(state, tuple) else (state,)
    output, final = layer(x, state, resets=flags_of(CUTS))
    finals = final if isinstance(final, tuple) else (final,)
    for b, cuts in enumerate(CUTS):
        wanted, wanted_final = run_pieces(layer, x[:, b : b + 1], [s[:, b : b + 1] for s in states], cuts)
        same(output[:, b : b + 1], wanted)
        same([f[:, b : b + 1] for f in finals], wanted_final)


@settings(deadline=None, max_examples=40)
@given(cuts=st.sets(st.integers(1, T - 1)), form=FORM, recurrence=st.sampled_from(RECURRENCES))
def test_stacked_layers_meet_the_same_boundaries(cuts, form, recurrence):
    torch.manual_seed(15)
    layer = recurlab.RNN(FEATURES, H, 3, bidirectional=True, recurrence=recurrence, **form, dtype=torch.float64)
    x = torch.randn(T, 1, FEATURES, dtype=torch.float64)
    pieces = [layer(x[begin:end])[0] for begin, end in pieces_of(sorted(cuts))]
    found, _ = layer(x, resets=flags_of([list(cuts)]))
    torch.testing.assert_close(found, torch.cat(pieces), rtol=1e-10, atol=1e-10)


def test_no_gradient_crosses_a_boundary(variant, make):
    layer = make(num_layers=2, bidirectional=True, **variant)
    x = torch.randn(T, 1, FEATURES, dtype=torch.float64, requires_grad=True)
    output, _ = layer(x, resets=flags_of([[4]]))
    (before,) = torch.autograd.grad(output[:4].sum(), x, retain_graph=True)
    (after,) = torch.autograd.grad(output[4:].sum(), x)
    assert before[:4].any(-1).all()
    assert not before[4:].any()
    assert after[4:].any(-1).all()
    assert not after[:4].any()


def test_a_reset_at_the_first_step_drops_the_initial_state_of_the_forward_direction_only(make, states_for):
    layer = make(bidirectional=True)
    x, state = torch.randn(T, 1, FEATURES, dtype=torch.float64), states_for(layer, 1)
    found, _ = layer(x, state, resets=flags_of([[0]]))
    from_zero, from_state = layer(x)[0], layer(x, state)[0]
    assert torch.equal(found[..., :H], from_zero[..., :H])
    assert torch.equal(found[..., H:], from_state[..., H:])


def test_resets_everywhere_leave_each_step_alone(variant, make, same):
    layer = make(bidirectional=True, **variant)
    x = torch.randn(T, B, FEATURES, dtype=torch.float64)
    alone = layer(x.reshape(1, T * B, FEATURES))[0].view(T, B, 2 * H)
    same(layer(x, resets=torch.ones(T, B, dtype=torch.bool))[0], alone)


def test_resets_work_between_the_steps_of_a_mask(make, same):
    layer = make(bidirectional=True)
    x, mask = torch.randn(T, 1, FEATURES, dtype=torch.float64), torch.ones(T, 1, dtype=torch.bool)
    mask[[3, 7]] = False
    found, _ = layer(x, mask=mask, resets=flags_of([[5]]))
    keep = mask.squeeze(1)
    wanted, _ = layer(x[keep], resets=flags_of([[5]])[keep])
    same(found[keep], wanted)


def test_a_boundary_at_a_masked_step_is_a_boundary_all_the_same(make, same):
    # a document that ends in padding must not leak into the next one
    layer = make(bidirectional=True)
    x, mask = torch.randn(T, 1, FEATURES, dtype=torch.float64), torch.ones(T, 1, dtype=torch.bool)
    mask[4:6] = False
    found, _ = layer(x, mask=mask, resets=flags_of([[5]]))
    same(found[:4], layer(x[:4])[0])
    same(found[6:], layer(x[6:])[0])


def test_resets_follow_batch_first_and_an_unbatched_input(make, same):
    layer, turned = make(bidirectional=True), make(bidirectional=True, batch_first=True)
    x, resets = torch.randn(T, B, FEATURES, dtype=torch.float64), flags_of(CUTS)
    output, _ = layer(x, resets=resets)
    same(turned(x.transpose(0, 1), resets=resets.T)[0].transpose(0, 1), output)
    same(layer(x[:, 0], resets=resets[:, 0])[0], output[:, 0])


def test_a_boundary_in_the_padding_changes_nothing(make, states_for, same):
    layer = make(num_layers=2, bidirectional=True)
    x, state = torch.randn(T, 1, FEATURES, dtype=torch.float64), states_for(layer, 1)
    found = layer(x, state, lengths=[7], resets=flags_of([[4, 7, 9]]))
    wanted = layer(x, state, lengths=[7], resets=flags_of([[4]]))
    same(found, wanted)
