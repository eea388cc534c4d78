"""The fused kernels against the reference through the layer, training-mode noise included, in both precisions."""

from dataclasses import dataclass

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import recurlab
from recurlab.fuse import compiler

CELLS = {
    "rnn": {"cell": "rnn"},
    "rnn_relu": {"cell": "rnn", "activation": "relu"},
    "gru_after": {"cell": "gru", "reset": "after"},
    "gru_before": {"cell": "gru", "reset": "before"},
    "lstm": {"cell": "lstm"},
    "lstm_relu": {"cell": "lstm", "activation": "relu"},
}
SEEDS = st.integers(0, 2**31 - 1)


@pytest.fixture(autouse=True, scope="module")
def _able():
    if reason := compiler.unavailable():
        pytest.skip(reason)


@dataclass(frozen=True)
class Case:
    cell: str
    options: dict
    units: int
    steps: int
    batch: int
    features: int
    layers: int
    padding: str
    resets: bool
    initial: bool
    training: bool
    seed: int


@st.composite
def cases(draw, *, noisy=False):
    cell = draw(st.sampled_from(list(CELLS)))
    rate = st.sampled_from([0.3, 1.0] if noisy else [0.0, 0.0, 0.3])
    options = {
        "bidirectional": draw(st.booleans()),
        "bias": draw(st.integers(0, 3)) > 0,
        "batch_first": draw(st.booleans()),
        "stateful": draw(st.booleans()),
        "masked_output": draw(st.sampled_from(["zero", "hold"])),
        "zoneout": (draw(rate), draw(st.sampled_from([0.0, 0.4]))) if cell.startswith("lstm") else draw(rate),
        **{name: draw(st.sampled_from([0.0, 0.3])) for name in ("dropconnect", "recurrent_dropout", "dropout")},
        "variational": draw(st.booleans()),
        "recurrence": draw(st.sampled_from(["dense", "diagonal", "block"])),
    }
    if options["batch_first"] and not options["variational"]:
        options["dropout"] = 0.0  # it has a test of its own below
    # About the sizes of vectors and of items of work: one less, one more, several and a rest.
    units = draw(st.sampled_from([1, 2, 7, 15, 16, 17, 31, 33, 47, 130]))
    if options["recurrence"] == "block":
        options["heads"] = draw(st.sampled_from([n for n in (1, 2, 3, 5) if units % n == 0] + [units]))
    return Case(
        cell=cell,
        options=options,
        units=units,
        steps=draw(st.sampled_from([1, 2, 3, 7, 12])),
        batch=draw(st.sampled_from([1, 2, 5, 8, 9, 16, 17, 33])),
        features=draw(st.sampled_from([1, 3, 20])),
        layers=draw(st.integers(1, 2)),
        padding=draw(st.sampled_from(["none", "lengths", "mask"])),
        resets=draw(st.booleans()),
        initial=draw(st.booleans()),
        training=noisy or draw(st.booleans()),
        seed=draw(SEEDS),
    )


def flags_of(case):
    """Return the keyword arguments of a call."""
    shape, flags = (case.steps, case.batch), {}
    if case.padding == "mask":
        flags["mask"] = torch.rand(shape) < 0.6
    if case.resets:
        flags["resets"] = torch.rand(shape) < 0.3
    if case.options["batch_first"]:
        flags = {name: flag.t() for name, flag in flags.items()}
    if case.padding == "lengths":
        flags["lengths"] = torch.randint(1, case.steps + 1, (case.batch,))
    return flags


def run(case, backend, dtype):
    """Return by name all that two calls of the layer give, and the gradients of what both were given."""
    torch.manual_seed(case.seed)
    made = {**CELLS[case.cell], **case.options, "dtype": dtype, "backend": backend}
    layer = recurlab.RNN(case.features, case.units, case.layers, **made).train(case.training)
    with torch.no_grad():  # so that nothing unbounded explodes
        for name, weight in layer.named_parameters():
            weight.mul_(0.5 if "weight_hh" in name and "relu" in case.cell else 1)
    shape = (case.batch, case.steps) if case.options["batch_first"] else (case.steps, case.batch)
    leaves, results = dict(layer.named_parameters()), {}
    loss = torch.zeros((), dtype=dtype)
    for call in range(2 if case.options["stateful"] else 1):
        x = leaves[f"x{call}"] = torch.randn(*shape, case.features, dtype=dtype, requires_grad=True)
        states = None
        if case.initial and call == 0:
            size = (case.layers * layer.num_directions, case.batch, case.units)
            states = tuple(torch.randn(size, dtype=dtype, requires_grad=True) for _ in layer.cell.states)
            leaves |= {f"start_{name}": s for name, s in zip(layer.cell.states, states, strict=True)}
            states = states if len(states) > 1 else states[0]
        flags = flags_of(case)
        generator = torch.get_rng_state()
        output, final = layer(x, states, **flags)
        finals = final if isinstance(final, tuple) else (final,)
        parts = {"output": output, **dict(zip(layer.cell.states, finals, strict=True))}
        torch.set_rng_state(generator)
        torch.manual_seed(case.seed + 1)
        loss = loss + sum((part * torch.randn(part.shape, dtype=dtype)).sum() for part in parts.values())
        results |= {f"{name}{call}": part.detach() for name, part in parts.items()}
    assert set(layer.backends_used.values()) == {backend}
    gradients = torch.autograd.grad(loss, list(leaves.values()), allow_unused=True)
    zeros = (torch.zeros_like(leaf) if g is None else g for leaf, g in zip(leaves.values(), gradients, strict=True))
    return results | {f"gradient of {name}": g for name, g in zip(leaves, zeros, strict=True)}


def assert_agree(case, dtype, tolerance):
    found, wanted = run(case, "fused", dtype), run(case, "eager", dtype)
    assert found.keys() == wanted.keys()
    for name, right in wanted.items():
        assert found[name].isfinite().all(), name
        largest = right.abs().max().item()
        error = (found[name] - right).abs().max().item()
        assert error <= tolerance * max(largest, 1e-3), f"{name}: {error:.2e} where the largest is {largest:.2e}"


@settings(deadline=None, max_examples=300, suppress_health_check=[HealthCheck.too_slow])
@given(case=cases())
def test_float32_agrees_with_the_reference_to_its_precision(case):
    assert_agree(case, torch.float32, 2e-5)


@settings(deadline=None, max_examples=200, suppress_health_check=[HealthCheck.too_slow])
@given(case=cases(noisy=True))
def test_noise_of_training_is_applied_as_by_the_reference(case):
    assert_agree(case, torch.float64, 1e-10)


def test_dropout_between_layers_is_drawn_alike_whatever_the_layout():
    found, wanted = [], []
    for backend, outputs in (("fused", found), ("eager", wanted)):
        for batch_first in (False, True):
            torch.manual_seed(1)
            options = {"dropout": 0.5, "batch_first": batch_first, "backend": backend, "dtype": torch.float64}
            layer = recurlab.RNN(3, 5, 2, **options)
            x = torch.randn(4, 2, 3, dtype=torch.float64)
            torch.manual_seed(2)
            outputs.append(layer(x.transpose(0, 1).contiguous())[0].transpose(0, 1) if batch_first else layer(x)[0])
    torch.testing.assert_close(found, wanted, rtol=1e-10, atol=1e-10)
