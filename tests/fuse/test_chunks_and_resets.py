"""What the kernels carry along time: gradients from one chunk of steps to the next, and states up to a reset."""

import pytest
import torch
from torch.testing import assert_close

from variants import FEATURES, H, draw, everything, make

pytestmark = pytest.mark.usefixtures("able")

T, B = 23, 3


def chunks_of(steps: int, monkeypatch) -> None:
    """Let the backward of an LSTM of three samples take so many steps in a call."""
    monkeypatch.setattr("recurlab.fuse.cpu.kernel.CHUNK", steps * B * 4 * H * 8)
    monkeypatch.setattr("recurlab.fuse.cpu.kernel.LEAST", 1)


CELLS = [
    {"cell": "indy_lstm"},
    {"cell": "lstm"},
    {"cell": "gru", "reset": "before"},
    {"cell": "rnn", "recurrence": "block", "heads": 5},
]
by_cell = pytest.mark.parametrize("cell", CELLS, ids=lambda cell: cell["cell"])


@by_cell
@pytest.mark.parametrize("steps", [1, 6, 22])
def test_a_gradient_taken_in_chunks_draws_the_same_for_zoneout(steps, cell, monkeypatch):
    layer, x = make(zoneout=0.3, masked_output="hold", **cell), draw(T, B, FEATURES)
    wanted = everything(layer, x)
    chunks_of(steps, monkeypatch)
    assert_close(everything(layer, x), wanted, rtol=1e-12, atol=1e-12)


@by_cell
@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("steps", [1, 6, 22])
def test_outputs_computed_in_chunks_are_the_same(steps, batch_first, cell, monkeypatch):
    layer = make(zoneout=0.3, masked_output="hold", batch_first=batch_first, **cell)
    x = draw(B, T, FEATURES) if batch_first else draw(T, B, FEATURES)
    lengths = torch.tensor([T, 4, 9])

    def run():
        torch.manual_seed(9)
        output, final = layer(x, lengths=lengths)
        return output, *(final if isinstance(final, tuple) else (final,))

    wanted = run()
    chunks_of(steps, monkeypatch)
    for grad in (False, True):
        with torch.set_grad_enabled(grad):
            assert all(map(torch.equal, run(), wanted))


@by_cell
@pytest.mark.parametrize("steps", [1, 2, 5])
def test_gradients_of_outputs_that_are_held_reach_the_step_that_was_held(steps, cell, monkeypatch):
    mask = torch.zeros(T, B, dtype=torch.bool)
    mask[[0, 1, 7, 8, 20], 0] = mask[[3, 22], 1] = True  # outputs are held for up to 18 steps, over several chunks
    mask[::2, 2] = True
    x, options = draw(T, B, FEATURES), {"masked_output": "hold", **cell}
    wanted = everything(make(backend="eager", **options), x, mask=mask)
    chunks_of(steps, monkeypatch)
    assert_close(everything(make(**options), x, mask=mask), wanted, rtol=1e-10, atol=1e-10)


LENGTHS = torch.tensor([7, 3, 5])


@pytest.mark.parametrize("lengths", [None, LENGTHS], ids=["whole", "lengths"])
def test_a_layer_that_goes_backwards_begins_with_the_state_that_it_is_given(variant, lengths):
    """A reset before the last step lies, read from the end, behind it: the first step read is never cut off."""
    backwards, forwards = make(go_backwards=True, **variant), make(backend="eager", **variant)
    resets = torch.ones(7, B, dtype=torch.bool)
    ends = torch.full((B,), 7) if lengths is None else lengths
    start = [draw(1, B, H) for _ in backwards.cell.states]
    x = draw(7, B, FEATURES)
    output, _ = backwards(x, tuple(start) if len(start) > 1 else start[0], lengths=lengths, resets=resets)
    for b, last in enumerate(ends.tolist()):
        for read in range(last):  # each step is a sequence of its own, the first one read after the given state
            states = [s[:, b : b + 1] if read == 0 else torch.zeros(1, 1, H, dtype=s.dtype) for s in start]
            step = x[last - 1 - read : last - read, b : b + 1]
            wanted, _ = forwards(step, tuple(states) if len(states) > 1 else states[0])
            assert_close(output[read, b], wanted[0, 0], rtol=1e-10, atol=1e-10)
