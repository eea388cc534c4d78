"""A batch with lengths is packed inside on a CPU: padding costs nothing, and no number shows that it was done."""

import pytest
import torch
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence
from torch.testing import assert_close

import recurlab
from recurlab.fuse.packing import Packing
from variants import FEATURES, NOISE, VARIANTS, draw, everything, make

pytestmark = pytest.mark.usefixtures("able")

T = 17
# More samples than a group has, in no order, none of the full length; few; equal ones.
LENGTHS = {
    "many": [(5 * b) % 13 + 1 for b in range(45)],
    "few": [3, 17, 1],
    "ones": [1, 1, 1, 1, 1],
    "short": [4, 4],
    "one": [9],
}
lengths = pytest.mark.parametrize("lengths", LENGTHS.values(), ids=LENGTHS)


@pytest.fixture
def threads():
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


def padded(lengths, batch_first=False):
    """Return an input (T, B, F) or (B, T, F) that is NaN at padding."""
    x = draw(T, len(lengths), FEATURES)
    x[torch.arange(T).unsqueeze(1) >= torch.tensor(lengths)] = torch.nan
    return x.transpose(0, 1).contiguous() if batch_first else x


@lengths
@pytest.mark.parametrize("steps", [T, 5], ids=["whole", "chunks"])
@pytest.mark.parametrize("bidirectional", [False, True])
def test_values_and_gradients_are_those_of_the_reference(variant, bidirectional, steps, lengths, monkeypatch):
    monkeypatch.setattr("recurlab.fuse.cpu.kernel.CHUNK", steps * len(lengths) * 4 * 33 * 8)
    monkeypatch.setattr("recurlab.fuse.cpu.kernel.LEAST", 1)
    options = {**variant, **NOISE, "num_layers": 2, "bidirectional": bidirectional, "masked_output": "hold"}
    if "heads" not in variant:
        options["units"] = 33
    x, resets = padded(lengths), draw(T, len(lengths)) < -0.5
    found, wanted = (
        everything(make(backend=backend, **options), x, lengths=lengths, resets=resets)
        for backend in ("fused", "eager")
    )
    assert_close(found, wanted, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("name", VARIANTS)
@pytest.mark.parametrize("batch_first", [False, True])
def test_a_packed_batch_is_the_masked_one(name, batch_first):
    given, layer = LENGTHS["many"], make(batch_first=batch_first, **VARIANTS[name])
    x = padded(given, batch_first)
    mask = ~x.isnan().any(-1)
    assert_close(everything(layer, x, lengths=given), everything(layer, x, mask=mask), rtol=1e-12, atol=1e-12)


def test_the_bits_do_not_depend_on_threads(variant, threads):
    layer, given = make(units=35, **{**variant, **NOISE}), LENGTHS["many"]
    runs = []
    for count in (1, 1, 2, 3, 5):
        threads(count)
        runs.append(everything(layer, padded(given), lengths=given))
    for run in runs[1:]:
        assert_close(run, runs[0], rtol=0, atol=1e-13 if "heads" in variant else 0)


@pytest.mark.parametrize("enough", [1, 64], ids=["few bytes", "for threads"])
def test_a_packed_sequence_has_the_bits_of_its_padded_batch(enough, threads):
    given = torch.tensor(LENGTHS["many"])
    layer, x = make(units=enough), draw(T, len(given), FEATURES).requires_grad_()
    wanted = None
    for count in (1, 2, 5):
        threads(count)
        packed = layer(pack_padded_sequence(x, given, enforce_sorted=False))[0]
        padded = layer(x, lengths=given)[0]
        assert torch.equal(pad_packed_sequence(packed, total_length=T)[0], padded)
        runs = [torch.autograd.grad(y.cos().sum(), [x, *layer.parameters()]) for y in (packed.data, padded)]
        wanted = wanted or runs[0]
        assert all(torch.equal(*each) for run in runs for each in zip(run, wanted, strict=True))


def test_lengths_without_padding_are_no_lengths(variant):
    layer, x = make(**variant), draw(T, 3, FEATURES)
    assert all(map(torch.equal, everything(layer, x, lengths=[T, T, T]), everything(layer, x)))


def test_what_is_kept_for_the_gradient_has_no_padding():
    """So many rows as there are valid steps, of an input of any number of steps."""
    sizes = []
    for steps in (8, 400):
        held = []
        with torch.autograd.graph.saved_tensors_hooks(lambda t, held=held: held.append(t.numel()) or t, lambda t: t):
            recurlab.RNN(3, 64, cell="lstm", backend="fused")(torch.randn(steps, 5, 3), lengths=[8, 2, 3, 4, 5])
        sizes.append(sum(held) - steps * 5 * (3 + 64) - steps)  # input, output, the first row of each step
    assert sizes[0] == sizes[1]


@pytest.mark.parametrize("batch_first", [False, True])
def test_a_packing_names_each_valid_step_once_the_longest_sample_first(batch_first):
    packing = Packing(torch.tensor([2, 4, 1, 4]), 5)
    assert packing.order.tolist() == [1, 3, 0, 2]
    assert packing.rows.tolist() == [0, 4, 7, 9, 11, 11]
    by_step = [(0, 1), (0, 3), (0, 0), (0, 2), (1, 1), (1, 3), (1, 0), (2, 1), (2, 3), (3, 1), (3, 3)]
    places = [b * 5 + t if batch_first else t * 4 + b for t, b in by_step]
    assert packing.places(batch_first=batch_first).tolist() == places
