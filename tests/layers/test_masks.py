"""Masks and lengths: a skipped step is as if it were not there, whatever its input holds."""

import pytest
import torch

T, B, FEATURES, H = 11, 3, 5, 6
LENGTHS = [11, 4, 1]
# One sample begins and ends with skipped steps, one skips inside, one is whole.
MASK = torch.tensor([[1, 0, 1, 1, 0, 0, 1, 1, 1, 0, 1], [0, 0, 1, 1, 1, 0, 1, 0, 0, 0, 0], [1] * 11]).T.bool()
LARGE = [{}, {"num_layers": 2, "bidirectional": True}]


def as_tuple(state):
    return state if isinstance(state, tuple) else (state,)


def of_sample(state, b):
    chosen = tuple(s[:, b : b + 1] for s in as_tuple(state))
    return chosen if isinstance(state, tuple) else chosen[0]


@pytest.mark.parametrize("options", LARGE, ids=["one", "stacked both ways"])
def test_a_masked_sequence_is_the_sequence_without_those_steps(variant, options, make, states_for, same):
    layer = make(**variant, **options)
    x, state = torch.randn(T, B, FEATURES, dtype=torch.float64), states_for(layer, B)
    output, final = layer(x, state, mask=MASK)
    for b in range(B):
        valid = MASK[:, b]
        wanted, wanted_final = layer(x[valid, b : b + 1], of_sample(state, b))
        same(output[valid, b], wanted[:, 0])
        same(of_sample(final, b), wanted_final)


@pytest.mark.parametrize("options", LARGE, ids=["one", "stacked both ways"])
def test_the_output_of_a_masked_step_is_zero(variant, options, make):
    layer = make(**variant, **options)
    output, _ = layer(torch.randn(T, B, FEATURES, dtype=torch.float64), mask=MASK)
    assert not output[~MASK].any()
    assert output[MASK].all()


def test_a_held_output_repeats_the_last_one_of_its_direction(variant, make, states_for):
    layer = make(bidirectional=True, masked_output="hold", **variant)
    x = torch.randn(T, B, FEATURES, dtype=torch.float64)
    output, _ = layer(x, states_for(layer, B), mask=MASK)
    forward, backward = output.split(H, dim=-1)
    for b in range(B):
        held = torch.zeros(H, dtype=torch.float64)  # before any valid step
        for t in range(T):
            held = forward[t, b] if MASK[t, b] else held
            assert torch.equal(forward[t, b], held)
        held = torch.zeros(H, dtype=torch.float64)
        for t in reversed(range(T)):
            held = backward[t, b] if MASK[t, b] else held
            assert torch.equal(backward[t, b], held)


def test_holding_changes_nothing_but_the_masked_outputs(variant, make, same):
    options = {"num_layers": 2, "bidirectional": True, **variant}
    zero, hold = make(**options), make(masked_output="hold", **options)
    x = torch.randn(T, B, FEATURES, dtype=torch.float64)
    (one, one_final), (other, other_final) = zero(x, mask=MASK), hold(x, mask=MASK)
    same(other[MASK], one[MASK])
    same(other_final, one_final)


def test_the_final_state_is_that_of_the_last_valid_step(make):
    layer = make(bidirectional=True)
    output, final = layer(torch.randn(T, B, FEATURES, dtype=torch.float64), mask=MASK)
    for b in range(B):
        valid = MASK[:, b].nonzero().flatten()
        assert torch.equal(final[0, b], output[valid[-1], b, :H])
        assert torch.equal(final[1, b], output[valid[0], b, H:])


def test_the_reverse_direction_starts_at_the_last_valid_step(make, states_for, same):
    layer = make(bidirectional=True)
    x, state = torch.randn(T, B, FEATURES, dtype=torch.float64), states_for(layer, B)
    output, _ = layer(x, state, lengths=LENGTHS)
    for b, length in enumerate(LENGTHS):
        first_step, _ = layer(x[length - 1 : length, b : b + 1], of_sample(state, b))
        same(output[length - 1, b, H:], first_step[0, 0, H:])


@pytest.mark.parametrize("form", ["lengths", "mask"])
@pytest.mark.parametrize("masked_output", ["zero", "hold"])
def test_nan_in_the_padding_reaches_no_output_and_no_gradient(
    variant, form, masked_output, make, states_for, everything
):
    layer = make(num_layers=2, bidirectional=True, masked_output=masked_output, **variant)
    mask = torch.arange(T).unsqueeze(1) < torch.tensor(LENGTHS) if form == "lengths" else MASK
    flags = {"lengths": LENGTHS} if form == "lengths" else {"mask": MASK}
    state, clean = states_for(layer, B), torch.randn(T, B, FEATURES, dtype=torch.float64)
    padding = ~mask.unsqueeze(-1)
    wanted = everything(layer, clean, state, **flags)
    for garbage in (float("nan"), float("inf"), 1e300):
        found = everything(layer, clean.detach().masked_fill(padding, garbage), state, **flags)
        assert found["x"][~mask].eq(0).all()
        for name, value in wanted.items():
            pairs = zip(as_tuple(found[name]), as_tuple(value), strict=True)
            assert all(torch.equal(one, other) for one, other in pairs), name  # bit for bit, and so no NaN


def test_garbage_in_padding_is_harmless_in_training_with_all_noise(variant, make, everything):
    noise = {"dropout": 0.3, "zoneout": 0.3, "dropconnect": 0.3, "recurrent_dropout": 0.3, "variational": True}
    layer = make(num_layers=2, bidirectional=True, **noise, **variant)
    found = []
    for garbage in (0.0, float("nan")):
        torch.manual_seed(14)
        x = torch.randn(T, B, FEATURES, dtype=torch.float64).masked_fill(~MASK.unsqueeze(-1), garbage)
        found.append(everything(layer, x, mask=MASK))
    assert all(torch.equal(found[1][n], v) for n, v in found[0].items() if n != "finals")
    assert found[0]["weight_hh_l0"].isfinite().all()


@pytest.mark.parametrize("masked_output", ["zero", "hold"])
def test_a_sample_that_is_masked_throughout_keeps_its_initial_state(
    variant, masked_output, make, states_for, everything
):
    layer = make(num_layers=2, bidirectional=True, masked_output=masked_output, **variant)
    mask = MASK.clone()
    mask[:, 1] = False
    x = torch.randn(T, B, FEATURES, dtype=torch.float64)
    x[:, 1] = float("nan")
    state = states_for(layer, B)
    found = everything(layer, x, state, mask=mask)
    for start, final in zip(as_tuple(state), found["finals"], strict=True):
        assert torch.equal(final[:, 1], start[:, 1])
        assert not torch.equal(final[:, 0], start[:, 0])
    assert not found["output"][:, 1].any()
    assert all(found[name].isfinite().all() for name in found if name != "finals")


def test_a_mask_of_true_is_no_mask(variant, make, everything, same):
    layer, x = make(bidirectional=True, **variant), torch.randn(T, B, FEATURES, dtype=torch.float64)
    same(everything(layer, x, mask=torch.ones(T, B, dtype=torch.bool)), everything(layer, x))


def test_masks_and_lengths_follow_batch_first(make, same):
    layer, turned = make(bidirectional=True), make(bidirectional=True, batch_first=True)
    x = torch.randn(T, B, FEATURES, dtype=torch.float64)
    for flags, turned_flags in [({"mask": MASK}, {"mask": MASK.T}), ({"lengths": LENGTHS},) * 2]:
        (output, final), (turned_output, turned_final) = layer(x, **flags), turned(x.transpose(0, 1), **turned_flags)
        same(turned_output.transpose(0, 1), output)
        same(turned_final, final)


def test_an_unbatched_input_takes_an_unbatched_mask(make, same):
    layer, x = make(bidirectional=True), torch.randn(T, FEATURES, dtype=torch.float64)
    output, final = layer(x, mask=MASK[:, 0])
    wanted, wanted_final = layer(x.unsqueeze(1), mask=MASK[:, :1])
    same(output, wanted.squeeze(1))
    same(final, wanted_final.squeeze(1))
