"""Random layers with everything that one can be given, run on a backend; what the tests of all devices share."""

from dataclasses import dataclass

import torch
from hypothesis import strategies as st

import recurlab
from cell_forms import forms

CELLS = forms()
LONGEST = {"lengths": lambda steps: steps, "short": lambda steps: max(1, steps // 2), "ones": lambda steps: 1}
SEEDS = st.integers(0, 2**31 - 1)


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
def cases(draw, *, noisy=False, norms=(False,)):
    cell = draw(st.sampled_from(list(CELLS)))
    states = len(recurlab.RNN(1, 1, **CELLS[cell]).cell.states)
    rates = [st.sampled_from([0.3, 1.0] if noisy else [0.0, 0.0, 0.3]), *[st.sampled_from([0.0, 0.4])] * (states - 1)]
    options = {
        "bidirectional": draw(st.booleans()),
        "bias": draw(st.integers(0, 3)) > 0,
        "batch_first": draw(st.booleans()),
        "stateful": draw(st.booleans()),
        "masked_output": draw(st.sampled_from(["zero", "hold"])),
        "zoneout": draw(st.tuples(*rates) if states > 1 else rates[0]),
        **{name: draw(st.sampled_from([0.0, 0.3])) for name in ("dropconnect", "recurrent_dropout", "dropout")},
        "variational": draw(st.booleans()),
        "recurrence": draw(st.sampled_from(["dense", "diagonal", "block"])),
        "layer_norm": draw(st.sampled_from(norms)),
    }
    layers = draw(st.integers(1, 2))
    if layers == 1 or (options["batch_first"] and not options["variational"]):
        options["dropout"] = 0.0  # nothing to drop between; test_float32.py has a test of its own for the other
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
        layers=layers,
        padding=draw(st.sampled_from(["none", "lengths", "short", "ones", "mask"])),
        resets=draw(st.booleans()),
        initial=draw(st.booleans()),
        training=noisy or draw(st.booleans()),
        seed=draw(SEEDS),
    )


def flags_of(case):
    """Return the keyword arguments of a call, on the CPU."""
    shape, flags = (case.steps, case.batch), {}
    if case.padding == "mask":
        flags["mask"] = torch.rand(shape) < 0.6
    if case.resets:
        flags["resets"] = torch.rand(shape) < 0.3
    if case.options["batch_first"]:
        flags = {name: flag.t() for name, flag in flags.items()}
    if case.padding in LONGEST:
        flags["lengths"] = torch.randint(1, LONGEST[case.padding](case.steps) + 1, (case.batch,))
    return flags


def with_padding(x, flags, batch_first):
    """Return an input that is NaN wherever a step is padding."""
    if "lengths" not in flags:
        return x
    valid = torch.arange(x.shape[1 if batch_first else 0]) < flags["lengths"].unsqueeze(1)
    valid = (valid if batch_first else valid.t()).unsqueeze(-1).to(x.device)
    return x.where(valid, torch.nan)


def run(case, backend, dtype, *, device="cpu", values=None):
    """Return by name all that the layer gives in its calls, and the gradients of what it was given.

    All numbers are drawn on the CPU in the dtype `values`, so that they are the same whatever computes with them.
    """
    values = values or dtype
    torch.manual_seed(case.seed)
    made = {**CELLS[case.cell], **case.options, "dtype": values, "backend": backend}
    layer = recurlab.RNN(case.features, case.units, case.layers, **made).train(case.training)
    with torch.no_grad():  # so that nothing unbounded explodes
        for name, weight in layer.named_parameters():
            weight.mul_(0.5 if "weight_hh" in name and "relu" in case.cell else 1)
            if name.startswith(("gain", "bias_state")):
                weight += 0.3 * torch.randn_like(weight)
    layer.to(device=device, dtype=dtype)

    def draw(*shape):
        return torch.randn(*shape, dtype=values).to(device=device, dtype=dtype)

    shape = (case.batch, case.steps) if case.options["batch_first"] else (case.steps, case.batch)
    leaves, results = dict(layer.named_parameters()), {}
    loss = torch.zeros((), dtype=dtype, device=device)
    for call in range(2 if case.options["stateful"] else 1):
        x = leaves[f"x{call}"] = draw(*shape, case.features).requires_grad_()
        states = None
        if case.initial and call == 0:
            size = (case.layers * layer.num_directions, case.batch, case.units)
            states = tuple(draw(*size).requires_grad_() for _ in layer.cell.states)
            leaves |= {f"start_{name}": s for name, s in zip(layer.cell.states, states, strict=True)}
            states = states if len(states) > 1 else states[0]
        flags = {name: flag if name == "lengths" else flag.to(device) for name, flag in flags_of(case).items()}
        output, final = layer(with_padding(x, flags, case.options["batch_first"]), states, **flags)
        finals = final if isinstance(final, tuple) else (final,)
        parts = {"output": output, **dict(zip(layer.cell.states, finals, strict=True))}
        torch.manual_seed(case.seed + 1)  # how much noise was drawn is of no account
        loss = loss + sum((part * draw(*part.shape)).sum() for part in parts.values())
        results |= {f"{name}{call}": part.detach() for name, part in parts.items()}
    assert set(layer.backends_used.values()) == {backend}
    gradients = torch.autograd.grad(loss, list(leaves.values()), allow_unused=True)
    zeros = (torch.zeros_like(leaf) if g is None else g for leaf, g in zip(leaves.values(), gradients, strict=True))
    return results | {f"gradient of {name}": g for name, g in zip(leaves, zeros, strict=True)}


def assert_near(found, wanted, tolerance):
    """Assert that no element is off by more than a part of its tensor's largest magnitude."""
    assert found.keys() == wanted.keys()
    for name, right in wanted.items():
        assert found[name].isfinite().all(), name
        largest = right.abs().max().item()
        error = (found[name] - right).abs().max().item()
        # What cancels has no more digits than its terms, which are of the order of 1.
        assert error <= tolerance * max(largest, 0.1), f"{name}: {error:.2e} where the largest is {largest:.2e}"
