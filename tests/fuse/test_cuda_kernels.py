"""The CUDA kernels, emulated on the CPU, against the reference: all that a layer can be asked for."""

from collections import Counter
from dataclasses import replace

import pytest
import torch
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from torch.testing import assert_close
from torch.utils._python_dispatch import TorchDispatchMode

import recurlab
from emulated_gpu import AMPERE, HOPPER
from gpu_cases import PLAIN_LOOP, SMALL, WIDTH, assert_agree, case_of
from layer_cases import CELLS, cases, run
from recurlab.bench.machine import tf32
from recurlab.fuse import scan

# Where a recurrence runs: what the GPU has decides how the blocks of a dense kernel exchange.
PLACES = {"diagonal": HOPPER, "cluster": HOPPER, "cache": AMPERE}

# Of one gate to four, one phase or two, one state or two; test_every_cell.py has the other cells.
FUZZED = ("gru_after", "gru_before", "lstm", "rnn", "rnn_relu")


@pytest.fixture(autouse=True)
def _all_bits():
    with tf32(False):
        yield


def recurrences_of(place):
    return ("diagonal",) if place == "diagonal" else ("dense", "block")


# ---- built-in cells ---------------------------------------------------------------------------------------------


@st.composite
def device_cases(draw, cell, place):
    case = draw(st.booleans().flatmap(lambda noisy: cases(noisy=noisy)))
    options = {**case.options, "recurrence": draw(st.sampled_from(recurrences_of(place))), "dropout": 0.0}
    options["heads"] = 2 if options["recurrence"] == "block" else 1
    rates = options["zoneout"] if isinstance(options["zoneout"], tuple) else (options["zoneout"], 0.4)
    options["zoneout"] = rates if cell.startswith("lstm") else rates[0]
    units = draw(st.sampled_from([1, 5, WIDTH])) if place == "diagonal" else WIDTH * options["heads"]
    steps, batch = draw(st.sampled_from([1, 2, 3, 7])), draw(st.sampled_from([1, 2, 7, 8, 9, 17]))
    return replace(case, cell=cell, options=options, units=units, steps=steps, batch=batch, layers=1)


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("cell", FUZZED)
@settings(
    deadline=None, max_examples=9, phases=[Phase.explicit, Phase.generate],  # a case is small as it is drawn
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)  # fmt: skip
@given(data=st.data())
def test_float32_agrees_with_the_reference_to_its_precision(gpu, cell, place, data):
    if gpu.properties.capability != PLACES[place] or not gpu.dense:
        gpu.use(capability=PLACES[place], dense=SMALL, diagonal=PLAIN_LOOP)
    case = data.draw(device_cases(cell, place))
    assert_agree(case)
    last = gpu.launches[-1]
    assert (last.cluster, last.cooperative) == {"cluster": (2, False), "cache": (1, True)}.get(place, (1, False))


@pytest.mark.parametrize("recurrence", ["dense", "block", "diagonal"])
@pytest.mark.parametrize("cell", ["gru_after", "gru_before", "lstm"])
def test_two_layers_with_everything(gpu, cell, recurrence):
    gpu.use(dense=SMALL)
    options = {"recurrent_dropout": 0.3, "dropconnect": 0.3, "dropout": 0.3, "variational": True, "stateful": True}
    assert_agree(case_of(cell, recurrence, layers=2, **options))


@pytest.mark.parametrize("p", [0.0, 1.0])
@pytest.mark.parametrize("training", [False, True])
def test_the_ends_of_zoneout(gpu, p, training):
    gpu.use(dense=SMALL)
    for recurrence in ("dense", "diagonal"):
        assert_agree(case_of("lstm", recurrence, zoneout=p, training=training))


def test_a_mask_that_is_false_everywhere_or_for_a_sample(gpu):
    gpu.use(dense=SMALL)
    for recurrence in ("dense", "diagonal"):
        results = []
        for backend in ("fused", "eager"):
            torch.manual_seed(3)
            layer = recurlab.RNN(3, WIDTH, cell="lstm", recurrence=recurrence, backend=backend, bidirectional=True)
            mask = torch.ones(5, 3, dtype=torch.bool)
            mask[:, 1] = False
            x = torch.randn(5, 3, 3).masked_fill(~mask.unsqueeze(2), float("nan")).requires_grad_()
            start = [torch.randn(2, 3, WIDTH).requires_grad_() for _ in "hc"]
            output, final = layer(x, tuple(start), mask=mask)
            loss = output.square().sum() + final[0].sin().sum() + final[1].sin().sum()
            results.append([output, *final, *torch.autograd.grad(loss, [x, *start, *layer.parameters()])])
        assert_close(*results, rtol=1e-5, atol=1e-5)


# ---- gradients of some things alone -----------------------------------------------------------------------------


def gradients(backend, cell, recurrence, wanted, of):
    torch.manual_seed(3)
    layer = recurlab.RNN(3, WIDTH, **CELLS[cell], recurrence=recurrence, backend=backend, bidirectional=True)
    x = torch.randn(5, 9, 3, requires_grad="x" in wanted)
    start = [torch.randn(2, 9, WIDTH, requires_grad="start" in wanted) for _ in layer.cell.states]
    output, final = layer(x, tuple(start) if len(start) > 1 else start[0])
    results = {"output": output, "state": final[-1] if isinstance(final, tuple) else final}
    weights = {name: p for name, p in layer.named_parameters() if name in wanted}
    for name, p in layer.named_parameters():
        p.requires_grad_(name in wanted)
    leaves = [*weights.values(), *[t for t in (x, *start) if t.requires_grad]]
    return torch.autograd.grad(results[of].sin().sum(), leaves)


@pytest.mark.parametrize("of", ["output", "state"])
@pytest.mark.parametrize(
    "wanted", [("weight_hh_l0", "weight_ih_l0"), ("x",), ("start",), ("bias_hh_l0", "weight_hh_l0_reverse")]
)
def test_the_gradient_of_one_result_by_some_leaves(gpu, wanted, of):
    gpu.use(dense=SMALL)
    for cell, recurrence in (("gru_before", "dense"), ("lstm", "dense"), ("gru_after", "diagonal")):
        found, expected = (gradients(backend, cell, recurrence, wanted, of) for backend in ("fused", "eager"))
        assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_an_expanded_and_a_strided_gradient_of_the_output(gpu):
    gpu.use(dense=SMALL)
    wide = torch.randn(10, 10, 2 * WIDTH + 3)
    for recurrence in ("dense", "diagonal"):
        layer = recurlab.RNN(3, WIDTH, recurrence=recurrence, backend="fused", bidirectional=True)
        x = torch.randn(5, 9, 3)
        given = {
            "expanded": torch.ones(()).expand(5, 9, 2 * WIDTH),
            "strided": wide[::2, 1:, 1 : 2 * WIDTH + 1],
            "turned": wide[::2, 1:, 1 : 2 * WIDTH + 1].permute(2, 0, 1).contiguous().permute(1, 2, 0),
        }
        for name, cotangent in given.items():
            output, leaves = layer(x)[0], list(layer.parameters())
            found = torch.autograd.grad(output, leaves, cotangent, retain_graph=True)
            wanted = torch.autograd.grad(output, leaves, cotangent.contiguous())
            assert_close(found, wanted, rtol=1e-6, atol=1e-6, msg=name)


@pytest.mark.parametrize("recurrence", ["dense", "block", "diagonal"])
@pytest.mark.parametrize("cell", ["gru_before", "lstm"])
def test_memory_that_held_nan_before_reaches_no_number(gpu, cell, recurrence):
    gpu.use(dense=SMALL)
    case = case_of(cell, recurrence, recurrent_dropout=0.3)
    wanted = run(case, "fused", torch.float32)
    torch.use_deterministic_algorithms(True)
    try:
        assert torch.utils.deterministic.fill_uninitialized_memory
        assert torch.empty(3).isnan().all(), "the poison works"
        found = run(case, "fused", torch.float32)
    finally:
        torch.use_deterministic_algorithms(False)
    assert_close(found, wanted, rtol=0, atol=0)


# ---- beside the kernels -----------------------------------------------------------------------------------------


OPERATORS = {"scan": scan._operator, "scan_backward": scan._gradient_operator}


class Within(TorchDispatchMode):
    """Count the operators of torch that a scan and its gradient call."""

    def __init__(self):
        super().__init__()
        self.within, self.counts = 0, Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func.namespace == "recurlab":
            self.within += 1
            with self:
                results = OPERATORS[func._opname]._init_fn(*args)
            self.within -= 1
            return results
        self.counts[func] += self.within
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("recurrence", ["dense", "block", "diagonal"])
def test_masks_and_resets_cost_no_operator_of_torch(gpu, recurrence):
    gpu.use(dense=SMALL)
    heads = 2 if recurrence == "block" else 1
    options = {"cell": "lstm", "recurrence": recurrence, "heads": heads, "recurrent_dropout": 0.3}
    layer = recurlab.RNN(3, WIDTH * heads, backend="fused", bidirectional=True, **options)
    x, counts = torch.randn(3, 5, 3), []
    layer(x)  # the first launch of a process makes room for what a fault says
    for flags in ({}, {"mask": torch.rand(3, 5) < 0.7}, {"resets": torch.rand(3, 5) < 0.3}):
        with Within() as seen:
            layer(x, **flags)[0].sum().backward()
        del seen.counts[torch.ops.aten.select.int]  # a view, of each direction
        counts.append(seen.counts)
    assert counts[0][torch.ops.aten.new_empty.default] > 0, "they are seen"
    assert counts[1:] == counts[:1] * 2
