"""A layer that reads its sequences from their end."""

from itertools import pairwise

import pytest
import torch
from torch.nn.utils.rnn import pack_sequence, pad_packed_sequence

import recurlab
from recurlab.layers.rnn import RNN

T, B = 7, 4
LENGTHS = torch.tensor([7, 2, 5, 1])


def both(make, **options) -> tuple[RNN, RNN]:
    """Return a layer that goes backwards, and one of the same weights that does not."""
    layers = [make(go_backwards=way, num_layers=2, bidirectional=True, **options) for way in (True, False)]
    return layers[0], layers[1]


def draw(*shape):
    return torch.randn(*shape, dtype=torch.float64)


def turned(x, lengths=LENGTHS):
    """Return x (T, B, ...) with each sample reversed within its length."""
    return torch.stack([torch.cat([x[:n, b].flip(0), x[n:, b]]) for b, n in enumerate(lengths)], dim=1)


def test_a_whole_sequence_is_flipped_and_its_outputs_are_not_flipped_back(variant, make, same):
    backwards, forwards = both(make, **variant)
    x = draw(T, B, 5)
    same(backwards(x), forwards(x.flip(0)))


def test_a_mask_is_flipped_with_the_sequence(variant, make, same):
    backwards, forwards = both(make, **variant)
    x, mask = draw(T, B, 5), torch.rand(T, B) < 0.6
    x[~mask] = torch.nan
    same(backwards(x, mask=mask), forwards(x.flip(0), mask=mask.flip(0)))


def test_samples_with_lengths_are_reversed_within_them(make, same):
    backwards, forwards = both(make, cell="lstm", batch_first=True)
    x = draw(T, B, 5)
    given = turned(x).transpose(0, 1)
    for b, n in enumerate(LENGTHS):
        x[n:, b] = torch.nan
    same(backwards(x.transpose(0, 1), lengths=LENGTHS), forwards(given, lengths=LENGTHS))


def test_a_packed_sequence_stays_packed(make, same):
    backwards, forwards = both(make)
    samples = [draw(n, 5) for n in LENGTHS]
    found, state = backwards(pack_sequence(samples, enforce_sorted=False))
    wanted, wanted_state = forwards(pack_sequence([x.flip(0) for x in samples], enforce_sorted=False))
    same(pad_packed_sequence(found), pad_packed_sequence(wanted))
    same(state, wanted_state)


def test_a_boundary_stays_between_the_same_steps(make, same):
    backwards = make(go_backwards=True)
    forwards = make()
    x, resets = draw(T, 1, 5), torch.zeros(T, 1, dtype=torch.bool)
    resets[3] = True  # of steps 0 to 6, 3 to 6 belong together
    pieces = [forwards(x[first:last].flip(0))[0] for first, last in ((3, 7), (0, 3))]
    same(backwards(x, resets=resets)[0], torch.cat(pieces))


def test_boundaries_of_samples_with_lengths(make, same):
    backwards, forwards = make(go_backwards=True), make()
    x, resets = draw(T, B, 5), torch.rand(T, B) < 0.4
    found, state = backwards(x, lengths=LENGTHS, resets=resets)
    for b, n in enumerate(LENGTHS):
        starts = [0, *(t for t in range(1, n) if resets[t, b]), int(n)]
        pieces = [forwards(x[i:j, b].flip(0)) for i, j in pairwise(starts)][::-1]
        same(found[:n, b], torch.cat([piece for piece, _ in pieces]))
        same(state[:, b], pieces[-1][1])
        assert not found[n:, b].any()


@pytest.mark.parametrize("lengths", [None, LENGTHS], ids=["whole", "lengths"])
def test_a_state_that_is_given_is_cut_off_by_no_boundary_before_the_first_step(lengths, make, states_for, same):
    backwards, forwards = (make(go_backwards=way, bidirectional=True) for way in (True, False))
    x, state, resets = draw(T, B, 5), states_for(backwards, B), torch.zeros(T, B, dtype=torch.bool)
    for b, steps in enumerate([[0, 6], [0, 1, 2, 5], [4, 5, 6], [0, 1, 3]]):  # at both ends and in the padding
        resets[steps, b] = True
    found, final = backwards(x, state, lengths=lengths, resets=resets)
    for b, n in enumerate([T] * B if lengths is None else LENGTHS.tolist()):
        starts = [0, *(t for t in range(1, n) if resets[t, b]), n]
        spans = list(pairwise(starts))[::-1]  # the last one is read first, from the state that was given
        pieces = []
        for i, (first, last) in enumerate(spans):
            start = torch.zeros(2, backwards.hidden_size, dtype=x.dtype)
            start[0] = state[0, b] if i == 0 else 0
            start[1] = state[1, b] if i == len(spans) - 1 else 0
            pieces.append(forwards(x[first:last, b].flip(0), start))
        same(found[:n, b], torch.cat([output for output, _ in pieces]))
        same(final[:, b], torch.stack([pieces[-1][1][0], pieces[0][1][1]]))


def test_one_sequence_without_a_batch(make, same):
    x = draw(T, 5)
    same(make(go_backwards=True)(x), make()(x.flip(0)))


def test_its_name_is_shown():
    assert "go_backwards=True" in repr(recurlab.RNN(2, 3, go_backwards=True))
