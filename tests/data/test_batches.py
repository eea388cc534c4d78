"""Batches of ragged sequences and of streams, against plain loops over the data."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from recurlab.data.batches import IGNORED, POOL, RaggedRows, Rows, Streams, in_order, shares, shuffled, windows
from recurlab.data.data import Arrays, Ragged, Stream
from recurlab.errors import RecurlabError

LENGTHS = np.array([3, 1, 4, 2, 6])
BEFORE = 99


def ragged(lengths=LENGTHS, *, per_step=False, whole=True):
    """Step t of sequence i is 10 i + t + 1; its target is minus that, or i for the sequence."""
    lengths = np.asarray(lengths, np.int64)
    steps = np.concatenate([10 * i + np.arange(n) + 1 for i, n in enumerate(lengths)])
    kind = np.int64 if whole else np.float32
    inputs = steps.astype(kind) if whole else np.stack([steps, steps + 0.5], axis=1).astype(kind)
    return Ragged(inputs, lengths, -steps.astype(kind) if per_step else np.arange(len(lengths)), per_step)


WHOLE = [np.uint8, np.uint16, np.uint32, np.uint64, np.int8, np.int16, np.int64]


@pytest.mark.parametrize("dtype", WHOLE)
def test_whole_numbers_of_any_kind_come_as_int64(dtype):
    symbols = np.array([[100, 3], [117, 0]]).astype(dtype)
    symbols.setflags(write=False)
    rows, steps = torch.tensor([1, 0]), np.array([2, 1])
    batches = [
        Rows(Arrays(symbols, symbols[:, 0]))[rows, True],
        RaggedRows(Ragged(symbols[0, [0, 1, 0]], steps, symbols[:, 0]))[rows, True],
        RaggedRows(Ragged(symbols[0, [0, 1, 0]], steps, symbols[0, [0, 1, 0]], per_step=True))[rows, True],
    ]
    assert {t.dtype for batch in batches for t in (batch.inputs, batch.targets)} == {torch.int64}
    padded = [[100, 0], [100, 3]]
    assert [batch.inputs.tolist() for batch in batches] == [[[117, 0], [100, 3]], padded, padded]
    assert batches[2].targets.tolist() == [[100, IGNORED], [100, 3]]


@pytest.mark.parametrize("whole", [True, False])
@pytest.mark.parametrize("per_step", [True, False])
@pytest.mark.parametrize("rows", [[4, 1], [1], [2, 2, 0], [0, 1, 2, 3, 4]])
def test_a_padded_batch_holds_each_sequence_with_its_target(rows, per_step, whole):
    batch = RaggedRows(ragged(per_step=per_step, whole=whole))[torch.tensor(rows), True]
    assert batch.lengths.tolist() == [LENGTHS[row] for row in rows]
    assert batch.inputs.shape[1] == max(batch.lengths)
    for row, inputs, targets, length in zip(rows, batch.inputs, batch.targets, batch.lengths.tolist(), strict=True):
        steps = 10.0 * row + np.arange(length) + 1
        wanted = steps if whole else np.stack([steps, steps + 0.5], axis=1)
        assert inputs[:length].tolist() == wanted.tolist()
        assert not inputs[length:].any()
        if per_step:
            assert targets[:length].tolist() == (-steps).tolist()
            assert targets[length:].tolist() == [IGNORED if whole else 0] * (batch.inputs.shape[1] - length)
        else:
            assert targets == row


@given(
    lengths=st.lists(st.integers(1, 40), min_size=1, max_size=300),
    batch_size=st.integers(1, 5),
    seed=st.integers(0, 10),
)
@settings(deadline=None)
def test_buckets_lose_nothing_and_sort_within_pools(lengths, batch_size, seed):
    known = torch.tensor(lengths)
    batches = shuffled(len(lengths), batch_size, np.random.default_rng(seed), known)
    assert sorted(torch.cat(batches).tolist()) == list(range(len(lengths)))
    pool_of = {}
    order = np.random.default_rng(seed).permutation(len(lengths))
    for place, row in enumerate(order):
        pool_of[int(row)] = place // (POOL * batch_size)
    ranges = {}
    for batch in batches:
        pools = {pool_of[row] for row in batch.tolist()}
        assert len(pools) == 1
        ranges.setdefault(pools.pop(), []).append((int(known[batch].min()), int(known[batch].max())))
    for found in ranges.values():  # in a pool no two batches overlap: no padding could be saved by exchange
        ordered = sorted(found)
        assert all(a[1] <= b[0] for a, b in pairwise(ordered))
    assert sum(len(batch) < batch_size for batch in batches) <= 1


def test_buckets_save_padding_and_come_in_random_order():
    lengths = torch.from_numpy(np.random.default_rng(0).integers(1, 100, 400))
    bucketed = shuffled(400, 8, np.random.default_rng(1), lengths)
    plain = shuffled(400, 8, np.random.default_rng(1), None)
    padding = [sum(int((lengths[b].max() - lengths[b]).sum()) for b in batches) for batches in (bucketed, plain)]
    assert padding[0] < padding[1] / 10
    longest = [int(lengths[b].max()) for b in bucketed]
    assert longest != sorted(longest)


@given(count=st.integers(1, 40), batch_size=st.integers(1, 9), world=st.integers(1, 5), seed=st.integers(0, 5))
@settings(deadline=None)
def test_shares_are_disjoint_and_complete(count, batch_size, world, seed):
    for batches in (in_order(count, batch_size), shuffled(count, batch_size, np.random.default_rng(seed), None)):
        plans = [shares(batches, rank, world) for rank in range(world)]
        assert {len(plan) for plan in plans} == {len(batches)}
        for batch, *parts in zip(batches, *plans, strict=True):
            taken = torch.cat([rows for rows, counted in parts if counted])
            assert sorted(taken.tolist()) == sorted(batch.tolist())
            assert all(len(rows) for rows, _ in parts)  # who has nothing to do computes all the same
            assert sum(not counted for _, counted in parts) == max(0, world - len(batch))


def stream_of(count, starts=(0,)):
    return Stream(np.arange(count, dtype=np.uint8), np.array(starts), BEFORE)


def read(streams, edges):
    """Return inputs, targets and resets of all windows, (B, T) each."""
    batches = [streams[window] for window in edges]
    resets = [torch.zeros_like(b.targets, dtype=torch.bool) if b.resets is None else b.resets for b in batches]
    return torch.cat([b.inputs for b in batches], 1), torch.cat([b.targets for b in batches], 1), torch.cat(resets, 1)


TEXTS = st.tuples(st.integers(1, 60), st.integers(1, 7), st.integers(1, 12), st.integers(1, 3)).filter(
    lambda case: case[0] >= case[1] * case[3]
)


@given(case=TEXTS, cuts=st.sets(st.integers(0, 59), max_size=5))
@settings(deadline=None)
def test_in_evaluation_each_symbol_is_a_target_once_with_the_one_before_it_as_input(case, cuts):
    count, parts, bptt, world = case
    starts = sorted({0, *(cut for cut in cuts if cut < count)})
    seen = []
    for rank in range(world):
        streams = Streams(stream_of(count, starts), parts * world, whole=True, rank=rank, world=world)
        inputs, targets, resets = read(streams, windows(streams.steps, bptt, None))
        assert inputs.shape == (parts, streams.steps)
        for i, t in (targets != IGNORED).nonzero().tolist():
            symbol = int(targets[i, t])
            assert inputs[i, t] == (BEFORE if symbol in starts else symbol - 1)
            assert bool(resets[i, t]) == (symbol in starts and len(starts) > 1)
            assert t == 0 or targets[i, t - 1] == symbol - 1  # parts are read in order, and without a gap
            seen.append(symbol)
        lacking = (targets == IGNORED).sum(dim=1)
        assert lacking.max() <= 1
        assert not (targets[:, :-1] == IGNORED).any()
    assert sorted(seen) == list(range(count))


@given(case=TEXTS, random=st.booleans())
@settings(deadline=None)
def test_in_training_only_what_does_not_fill_all_parts_is_left_out(case, random):
    count, parts, bptt, world = case
    total = parts * world
    rows = []
    for rank in range(world):
        streams = Streams(stream_of(count), total, whole=False, rank=rank, world=world)
        edges = windows(streams.steps, bptt, np.random.default_rng(3) if random else None)
        inputs, targets, _ = read(streams, edges)
        rows.append(targets)
        wanted = targets - 1
        wanted[targets == 0] = BEFORE
        assert torch.equal(inputs, wanted)
    ranks = torch.stack(rows, 1).flatten(0, 1)  # part i is row i // world of process i % world
    assert torch.equal(ranks, torch.arange(count // total * total).view(total, -1))


def test_a_single_document_needs_no_resets_and_one_that_begins_late_does():
    assert Streams(stream_of(9), 2, whole=True)[0, 3].resets is None
    late = Streams(stream_of(9, [4]), 1, whole=True)[0, 9]
    assert late.resets.tolist() == [[place == 4 for place in range(9)]]
    assert late.inputs.tolist() == [[BEFORE, 0, 1, 2, BEFORE, 4, 5, 6, 7]]


@pytest.mark.parametrize("dtype", WHOLE)
def test_symbols_may_be_whole_numbers_of_any_kind(dtype):
    symbols = np.array([200, 3, 117, 0, 5]).astype(np.uint8).astype(dtype)
    symbols.setflags(write=False)
    batch = Streams(Stream(symbols, np.array([0]), 7), 1, whole=True)[0, 5]
    assert batch.targets.tolist() == [symbols.tolist()]
    assert batch.inputs.tolist() == [[7, *symbols[:-1].tolist()]]
    assert batch.inputs.dtype == batch.targets.dtype == torch.int64


@given(steps=st.integers(1, 2000), bptt=st.integers(1, 80), seed=st.none() | st.integers(0, 99))
@settings(deadline=None)
def test_windows_cover_all_steps_in_order(steps, bptt, seed):
    def drawn():
        return windows(steps, bptt, None if seed is None else np.random.default_rng(seed))

    edges = drawn()
    assert edges == drawn()
    assert edges[0][0] == 0
    assert edges[-1][1] == steps
    assert all(a[1] == b[0] for a, b in pairwise(edges))
    lengths = [end - start for start, end in edges]
    if seed is None:
        assert set(lengths[:-1]) <= {bptt}
    else:
        assert min(lengths[:-1], default=5) >= 5
    assert lengths[-1] >= 1


def test_random_windows_are_normal_about_bptt_and_one_in_twenty_about_half_of_it():
    lengths = np.diff([edge for edge, _ in windows(2_000_000, 70, np.random.default_rng(0))])
    halves, usual = lengths[lengths < 52], lengths[lengths >= 52]
    assert len(halves) / len(lengths) == pytest.approx(0.05, abs=0.005)
    assert usual.mean() == pytest.approx(69.5, abs=0.2)  # whole numbers: the part behind the point is cut off
    assert usual.std() == pytest.approx(5, abs=0.15)
    assert halves.mean() == pytest.approx(34.5, abs=0.5)
    assert windows(500, 70, np.random.default_rng(0)) != windows(500, 70, np.random.default_rng(1))


EMPTY = np.zeros((0, 2, 1), np.float32)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: RaggedRows(ragged([2, 0, 1])), "lengths=0: sequence 1 is empty"),
        (lambda: RaggedRows(ragged()._replace(lengths=LENGTHS[:-1])), r"inputs=\(16,\) int64: .* each of the steps"),
        (lambda: RaggedRows(ragged()._replace(targets=np.arange(4))), "a row for each of the lengths"),
        (lambda: RaggedRows(ragged(per_step=True)._replace(targets=np.arange(5))), "a row for each of the steps"),
        (lambda: RaggedRows(ragged()._replace(inputs=np.zeros((16, 2)))), "float64: must be float32 or whole"),
        (lambda: Rows(Arrays(EMPTY, EMPTY)), "a split needs at least one sequence"),
        (lambda: RaggedRows(Ragged(EMPTY, np.zeros(0, np.int64), EMPTY)), "a split needs at least one sequence"),
        (lambda: Streams(stream_of(3), 4, whole=True), "a text of 3 symbols has not as many parts"),
    ],
)
def test_data_that_do_not_fit_together_are_refused(make, message):
    with pytest.raises(RecurlabError, match=message):
        make()
