"""Calls that cuDNN serves, of random tensors, and the gradients of what a backend gives for one."""

import torch

from recurlab.backends.call import Call, Direction
from recurlab.cells.gru import GRU
from recurlab.cells.lstm import LSTM
from recurlab.cells.recurrence import Recurrence
from recurlab.cells.rnn import Elman

CELLS = [GRU(), LSTM(), Elman("tanh"), Elman("relu")]
DEVICES = ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]
T, B, FEATURES, H = 7, 3, 5, 4
RIGHT = torch.tensor([5, 7, 1])


def padding(lengths, steps):
    return torch.arange(steps).unsqueeze(1) < lengths


def draw_call(
    cell=CELLS[0], *, lengths=None, both=False, bias=True, dtype=torch.float64, shape=(T, B, FEATURES, H), device="cpu"
):
    """Return a call with random tensors, all of them leaves that ask for a gradient."""
    steps, batch, features, units = shape
    rows = len(cell.gates) * units

    def leaf(*size):
        return (0.5 * torch.randn(size, dtype=torch.float64)).to(device, dtype).requires_grad_()

    def direction():
        weights = leaf(rows, features), leaf(rows, units)
        biases = (leaf(rows), leaf(rows)) if bias else (None, None)
        state = tuple(leaf(batch, units) for _ in cell.states)
        return Direction(*weights, *biases, state=state, recurrent_dropout=None, seed=None)

    x = leaf(steps, batch, features)
    mask = None
    if lengths is not None:
        mask = padding(lengths, steps).to(device)
        x = x.detach().masked_fill(~mask.unsqueeze(-1), 0).requires_grad_()
    return Call(
        cell=cell,
        recurrence=Recurrence(),
        input=x,
        directions=tuple(direction() for _ in range(1 + both)),
        given_mask=mask,
        resets=None,
        zoneout=(0.0,) * len(cell.states),
        hold=False,
        training=False,
        lengths=lengths,
    )


def leaves_of(call):
    tensors = [call.input]
    for d in call.directions:
        tensors += [d.weight_ih, d.weight_hh, d.bias_ih, d.bias_hh, *d.state]
    return [t for t in tensors if t is not None]


def gradients(output, ends, leaves):
    parts = [output, *(s for state in ends for s in state)]
    weights = [torch.cos(torch.arange(part.numel(), device=part.device) + 1.0).view_as(part) for part in parts]
    loss = sum((part * weight).sum() for part, weight in zip(parts, weights, strict=True))
    return torch.autograd.grad(loss, leaves)
