"""Every backend, behind the layer, gives the numbers of the plain reference for any mix of options."""

from dataclasses import dataclass

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

import recurlab
from compiling import compiled_with
from recurlab.backends import BACKENDS
from recurlab.layers import LAYER_NORMS


@dataclass(frozen=True)
class Case:
    cell: str
    recurrence: str
    heads: int
    hidden_size: int
    options: dict
    zoneout: tuple
    steps: int
    batch: int
    features: int
    layers: int
    bidirectional: bool
    bias: bool
    batch_first: bool
    padding: str
    resets: bool
    initial: bool
    hold: bool
    layer_norm: bool | str
    seed: int


@st.composite
def cases(draw):
    cell = draw(st.sampled_from(["rnn", "gru", "lstm"]))
    recurrence = draw(st.sampled_from(["dense", "diagonal", "block"]))
    heads = draw(st.integers(1, 3)) if recurrence == "block" else 1
    options = {"activation": draw(st.sampled_from(["tanh", "relu"]))}
    if cell == "gru":
        options["reset"] = draw(st.sampled_from(["after", "before"]))
    rates = st.sampled_from([0.0, 0.0, 0.3, 1.0])
    return Case(
        cell=cell,
        recurrence=recurrence,
        heads=heads,
        hidden_size=heads * draw(st.integers(1, 3)),
        options=options,
        zoneout=tuple(draw(rates) for _ in range(2 if cell == "lstm" else 1)),
        steps=draw(st.integers(1, 6)),
        batch=draw(st.integers(1, 3)),
        features=draw(st.integers(1, 4)),
        layers=draw(st.integers(1, 3)),
        bidirectional=draw(st.booleans()),
        bias=draw(st.booleans()),
        batch_first=draw(st.booleans()),
        padding=draw(st.sampled_from(["none", "lengths", "mask"])),
        resets=draw(st.booleans()),
        initial=draw(st.booleans()),
        hold=draw(st.booleans()),
        layer_norm=draw(st.sampled_from([False, True, *LAYER_NORMS])),
        seed=draw(st.integers(0, 2**31 - 1)),
    )


def build(case, backend):
    layer = recurlab.RNN(
        case.features,
        case.hidden_size,
        case.layers,
        bias=case.bias,
        batch_first=case.batch_first,
        bidirectional=case.bidirectional,
        dtype=torch.float64,
        cell=case.cell,
        recurrence=case.recurrence,
        heads=case.heads,
        backend=backend,
        zoneout=case.zoneout,
        masked_output="hold" if case.hold else "zero",
        layer_norm=case.layer_norm,
        **case.options,
    )
    with torch.no_grad():
        for name, weight in layer.named_parameters():
            if name.startswith(("gain", "bias_state")):
                weight += 0.3 * torch.randn_like(weight)
    return layer.eval()


def draw_tensors(case):
    """Return the input with NaN where masked, the states, the lengths or None, the mask and the resets."""
    shape = (case.steps, case.batch)
    lengths = torch.randint(1, case.steps + 1, (case.batch,)) if case.padding == "lengths" else None
    mask = torch.ones(shape, dtype=torch.bool)
    if lengths is not None:
        mask = torch.arange(case.steps).unsqueeze(1) < lengths
    elif case.padding == "mask":
        mask = torch.rand(shape) < 0.6
    x = torch.randn(*shape, case.features, dtype=torch.float64).masked_fill(~mask.unsqueeze(-1), float("nan"))
    places = case.layers * (2 if case.bidirectional else 1)
    scale = 1.0 if case.initial else 0.0
    states = [scale * torch.randn(places, case.batch, case.hidden_size, dtype=torch.float64) for _ in case.zoneout]
    resets = (torch.rand(shape) < 0.3) & torch.tensor(case.resets)
    return x, states, lengths, mask, resets


def gradients(output, finals, leaves):
    """Return the gradients of one fixed mix of everything returned."""
    loss = sum((part * torch.cos(torch.arange(part.numel()) + 1.0).view_as(part)).sum() for part in (output, *finals))
    loss = loss + 0 * sum(leaf.nan_to_num().sum() for leaf in leaves)  # a layer masked throughout uses no leaf at all
    return torch.autograd.grad(loss, leaves)


def through_layer(case, layer, x, states, lengths, mask, resets):
    """Run the layer with only the arguments that the case has; its output comes back as (T, B, F)."""

    def turn(t):
        return t.transpose(0, 1) if case.batch_first else t

    flags = {"lengths": {"lengths": lengths}, "mask": {"mask": turn(mask)}}.get(case.padding, {})
    if case.resets:
        flags["resets"] = turn(resets)
    given_state = (tuple(states) if len(states) > 1 else states[0]) if case.initial else None
    output, final = layer(turn(x), given_state, **flags)
    return turn(output), (final if isinstance(final, tuple) else (final,))


def setting_of(reference, case):
    return reference.Setting(
        cell=case.cell,
        recurrence=case.recurrence,
        heads=case.heads,
        hidden_size=case.hidden_size,
        reset=case.options.get("reset", ""),
        activation=case.options["activation"],
        zoneout=case.zoneout,
        hold=case.hold,
        layer_norm=case.layer_norm,
    )


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_backend_agrees_with_the_plain_loop_or_refuses_by_name(reference, backend):
    # Without a GPU cuDNN refuses all of them.
    examples = 20 if backend == "cudnn" and not torch.cuda.is_available() else 200

    @settings(deadline=None, max_examples=examples, suppress_health_check=[HealthCheck.too_slow])
    @given(case=cases())
    def check(case):
        assert_agrees_or_refuses(reference, backend, case)

    with compiled_with("-O0"):  # the kernels of a hundred kinds of layers
        check()


def assert_agrees_or_refuses(reference, backend, case):
    torch.manual_seed(case.seed)
    layer = build(case, backend)
    x, states, lengths, mask, resets = draw_tensors(case)
    leaves = [t.requires_grad_() for t in (x, *(states if case.initial else ()))] + list(layer.parameters())
    try:
        found, found_finals = through_layer(case, layer, x, states, lengths, mask, resets)
    except recurlab.RecurlabError as refusal:
        assert backend != "eager", "the reference backend serves every call"
        assert f"backend={backend!r}" in str(refusal)  # noqa: PT017  a refusal is one of two right answers
        return
    wanted, wanted_finals = reference.run_stack(
        setting_of(reference, case),
        dict(layer.named_parameters()),
        x,
        states,
        mask.tolist(),
        resets.tolist(),
        case.layers,
    )
    assert_close(found, wanted, rtol=1e-10, atol=1e-10)
    assert_close(found_finals, tuple(wanted_finals), rtol=1e-10, atol=1e-10)
    assert_close(
        gradients(found, found_finals, leaves), gradients(wanted, wanted_finals, leaves), rtol=1e-10, atol=1e-10
    )
