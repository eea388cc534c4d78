"""Every backend, given the masks that training draws, uses them exactly as the plain reference does."""

from importlib import import_module

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from recurlab.backends import BACKENDS
from recurlab.backends.call import Call, Direction
from recurlab.cells.build import build_cell
from recurlab.cells.zoneout import keep_mask

STEPS, BATCH, FEATURES, HEADS, HIDDEN = 5, 3, 2, 2, 4
CELLS = {"rnn": {}, "gru": {"reset": "after"}, "gru_before": {"reset": "before"}, "lstm": {}}


def draw_direction(cell, recurrence, zoneout, dropout):
    """Return a direction with random weights, its zoneout seed and its recurrent dropout where asked."""
    rows = len(cell.gates) * HIDDEN
    weights = [(rows, FEATURES), recurrence.weight_shape(len(cell.gates), HIDDEN), (rows,), (rows,)]
    return Direction(
        *(0.5 * torch.randn(shape, dtype=torch.float64) for shape in weights),
        state=tuple(torch.randn(BATCH, HIDDEN, dtype=torch.float64) for _ in cell.states),
        recurrent_dropout=2.0 * (torch.rand(BATCH, HIDDEN, dtype=torch.float64) < 0.5) if dropout else None,
        seed=torch.randint(-(2**63), 2**63 - 1, ()) if any(zoneout) else None,
    )


def masks_of(direction, zoneout):
    """Return for each state what zoneout draws, (T, B, H), or None."""
    shape = (STEPS, BATCH, HIDDEN)
    return [keep_mask(direction.seed, s, shape, p) if p else None for s, p in enumerate(zoneout)]


def leaves_of(call):
    tensors = [call.input]
    for direction in call.directions:
        tensors += [direction.weight_ih, direction.weight_hh, direction.bias_ih, direction.bias_hh, *direction.state]
    return tensors


def through_reference(reference, call, name, recurrence):
    """Return the reference's output and final states, for a call with a mask and resets."""
    setting = reference.Setting(
        cell=name.removesuffix("_before"),
        recurrence=recurrence,
        heads=call.recurrence.heads,
        hidden_size=HIDDEN,
        reset=CELLS[name].get("reset", ""),
        activation="tanh",
        zoneout=call.zoneout,
        hold=call.hold,
        training=True,
    )
    directions = [
        [
            reference.Weights(
                d.weight_ih,
                d.weight_hh,
                d.bias_ih,
                d.bias_hh,
                None if d.recurrent_dropout is None else d.recurrent_dropout[b],
                tuple(None if k is None else k[:, b] for k in masks_of(d, call.zoneout)),
            )
            for b in range(BATCH)
        ]
        for d in call.directions
    ]
    starts = [[[s[b] for s in d.state] for b in range(BATCH)] for d in call.directions]
    output, finals = reference.run_layer(
        setting, directions, call.input, starts, call.mask.tolist(), call.resets.tolist()
    )
    stacked = [tuple(torch.stack(parts) for parts in zip(*by_sample, strict=True)) for by_sample in finals]
    return output, tuple(torch.stack(directions) for directions in zip(*stacked, strict=True))


def weighted_gradients(output, finals, leaves):
    parts = [output, *(s for states in finals for s in states)]
    loss = sum((part * torch.sin(torch.arange(part.numel()) + 1.0).view_as(part)).sum() for part in parts)
    loss = loss + 0 * sum(leaf.sum() for leaf in leaves)  # with zoneout of 1 the input weights are not used at all
    return torch.autograd.grad(loss, leaves)


@pytest.mark.parametrize("backend", BACKENDS)
@settings(deadline=None, max_examples=150)
@given(
    name=st.sampled_from(list(CELLS)),
    recurrence=st.sampled_from(["dense", "diagonal", "block"]),
    rates=st.tuples(st.sampled_from([0.0, 0.4, 1.0]), st.sampled_from([0.0, 0.4, 1.0])),
    dropout=st.booleans(),
    directions=st.integers(1, 2),
    hold=st.booleans(),
    seed=st.integers(0, 2**31 - 1),
)
def test_a_backend_applies_the_drawn_masks_as_the_plain_loop_does(
    reference, backend, name, recurrence, rates, dropout, directions, hold, seed
):
    torch.manual_seed(seed)
    heads = HEADS if recurrence == "block" else 1
    cell, made = build_cell(name.removesuffix("_before"), recurrence, heads, CELLS[name])
    zoneout = rates[: len(cell.states)]
    call = Call(
        cell=cell,
        recurrence=made,
        input=torch.randn(STEPS, BATCH, FEATURES, dtype=torch.float64),
        directions=tuple(draw_direction(cell, made, zoneout, dropout) for _ in range(directions)),
        given_mask=torch.rand(STEPS, BATCH) < 0.7,
        resets=torch.rand(STEPS, BATCH) < 0.2,
        zoneout=zoneout,
        hold=hold,
        training=True,
    )
    module = import_module(BACKENDS[backend])
    if module.supports(call) is not None:
        assert backend != "eager", "the reference backend serves every call"
        return
    leaves = [leaf.requires_grad_() for leaf in leaves_of(call)]
    found, wanted = module.run(call), through_reference(reference, call, name, recurrence)
    assert_close(found, wanted, rtol=1e-10, atol=1e-10)
    assert_close(weighted_gradients(*found, leaves), weighted_gradients(*wanted, leaves), rtol=1e-10, atol=1e-10)
