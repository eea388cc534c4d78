"""Padded and packed batches: the same numbers, and those of torch."""

import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

import recurlab
from recurlab.fuse.packing import Packing

T, FEATURES, H = 11, 5, 6
LENGTHS = {"sorted": [11, 7, 7, 1], "unsorted": [4, 11, 1, 9]}
KINDS = {"gru": nn.GRU, "lstm": nn.LSTM, "rnn": nn.RNN}


def pack(x, lengths, batch_first=False):
    ordered = lengths == sorted(lengths, reverse=True)
    return pack_padded_sequence(x, lengths, batch_first=batch_first, enforce_sorted=ordered)


class OnPadded(nn.Module):
    """A layer that is given padded tensors and runs on them packed."""

    def __init__(self, layer, lengths):
        super().__init__()
        self.layer, self.lengths = layer, lengths

    def forward(self, x, state):
        output, final = self.layer(pack(x, self.lengths, self.layer.batch_first), state)
        return pad_packed_sequence(output, self.layer.batch_first, total_length=T)[0], final


@pytest.mark.parametrize("lengths", LENGTHS.values(), ids=LENGTHS)
@pytest.mark.parametrize("cell", KINDS)
@pytest.mark.parametrize("batch_first", [False, True])
def test_a_packed_batch_gives_what_torch_gives(lengths, cell, batch_first, make, states_for, everything, same):
    our = make(cell=cell, num_layers=2, bidirectional=True, batch_first=batch_first)
    their = KINDS[cell](FEATURES, H, 2, bidirectional=True, batch_first=batch_first, dtype=torch.float64)
    their.load_state_dict(our.state_dict())
    shape = (4, T, FEATURES) if batch_first else (T, 4, FEATURES)
    x, state = torch.randn(shape, dtype=torch.float64), states_for(our, 4)
    same(everything(OnPadded(our, lengths), x, state), everything(OnPadded(their, lengths), x, state))


@pytest.mark.parametrize("lengths", LENGTHS.values(), ids=LENGTHS)
def test_the_packed_output_is_laid_out_as_that_of_torch(lengths):
    our, their = recurlab.RNN(FEATURES, H), nn.GRU(FEATURES, H)
    packed = pack(torch.randn(T, 4, FEATURES), lengths)
    found, wanted = our(packed)[0], their(packed)[0]
    assert isinstance(found, PackedSequence)
    assert found.data.shape == wanted.data.shape
    assert torch.equal(found.batch_sizes, wanted.batch_sizes)
    for name in ("sorted_indices", "unsorted_indices"):
        one, other = getattr(found, name), getattr(wanted, name)
        assert (one is None) == (other is None)
        assert one is None or torch.equal(one, other)


@pytest.mark.parametrize("lengths", LENGTHS.values(), ids=LENGTHS)
@pytest.mark.parametrize("form", [list, torch.tensor])
def test_lengths_give_what_the_packed_batch_gives(variant, lengths, form, make, states_for, everything, same):
    layer = make(num_layers=2, bidirectional=True, **variant)
    x, state = torch.randn(T, 4, FEATURES, dtype=torch.float64), states_for(layer, 4)
    packed = everything(OnPadded(layer, lengths), x, state)
    unwrapped = {name.removeprefix("layer."): value for name, value in packed.items()}
    same(everything(layer, x, state, lengths=form(lengths)), unwrapped)


@pytest.mark.parametrize("lengths", LENGTHS.values(), ids=LENGTHS)
def test_what_is_read_of_a_packed_batch_is_not_laid_out_in_memory_as_it_is_written(lengths, make, same):
    """Data with gaps, and a gradient whose numbers share memory; the second derivative is that of the reference."""
    layer = make(cell="lstm", bidirectional=True, backend="eager")
    wide = pack(torch.randn(T, 4, 2 * FEATURES, dtype=torch.float64), lengths)
    packed = wide._replace(data=wide.data[:, ::2].requires_grad_())
    x, known = pad_packed_sequence(packed)
    results = []
    for given, options in ((packed, {}), (x, {"lengths": known})):
        output, final = layer(given, **options)
        values = output.data if isinstance(output, PackedSequence) else output
        (first,) = torch.autograd.grad(values.sum(), packed.data, create_graph=True, retain_graph=True)
        (second,) = torch.autograd.grad(first.square().sum(), packed.data, retain_graph=True)
        results.append((values.square().sum(), final, first, second))
    same(*results)


WRONG = {
    "more than the batch has": ([3, 4, 1], None),
    "none": ([3, 0, 5], None),
    "not all rows": ([3, 2, 1], None),
    "a sample twice": ([3, 3, 2], [0, 1, 1]),
    "no such sample": ([3, 3, 2], [0, 1, 3]),
    "a negative sample": ([3, 3, 2], [0, 1, -1]),
    "fewer samples": ([3, 3, 2], [1, 0]),
    "more samples": ([3, 3, 2], [1, 0, 2, 3]),
}


@pytest.mark.parametrize(("sizes", "order"), WRONG.values(), ids=WRONG)
def test_parts_that_are_no_packed_batch_are_not_read(sizes, order):
    """torch raises for some, and makes something of others, as it always did; nothing beside them is touched."""
    order = None if order is None else torch.tensor(order)
    assert Packing.of(PackedSequence(torch.randn(8, FEATURES), torch.tensor(sizes), order, order)) is None


def test_a_packed_batch_takes_resets_in_the_order_of_its_samples(make, same):
    lengths = LENGTHS["unsorted"]
    layer, x = make(bidirectional=True), torch.randn(T, 4, FEATURES, dtype=torch.float64)
    resets = torch.zeros(T, 4, dtype=torch.bool)
    resets[2, 1] = resets[3, 0] = resets[5, 3] = True
    output, final = layer(pack(x, lengths), resets=resets)
    wanted, wanted_final = layer(x, lengths=lengths, resets=resets)
    same(pad_packed_sequence(output)[0], wanted)
    same(final, wanted_final)
    assert not torch.equal(final, layer(x, lengths=lengths)[1])
