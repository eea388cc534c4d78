"""Which calls the cuDNN backend serves, and what a layer on it gives for every form of input."""

from dataclasses import dataclass, replace

import pytest
import torch
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence
from torch.testing import assert_close

import recurlab
from cudnn_calls import CELLS, FEATURES, RIGHT, B, H, T, draw_call, gradients, padding
from recurlab.backends import cudnn
from recurlab.cells.gru import GRU
from recurlab.cells.layer_norm import LayerNorm
from recurlab.cells.lstm import LSTM
from recurlab.cells.recurrence import Recurrence
from recurlab.cells.rnn import Elman


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


@pytest.fixture
def served(monkeypatch):
    """Take away what asks for a GPU; return a function that gives the reason for a call, or None."""
    device = ("it needs a CUDA device", "PyTorch has no cuDNN here, or torch.backends.cudnn.enabled is False")
    rules = [row for row in cudnn.RULES if row[1] not in device]
    assert len(rules) == len(cudnn.RULES) - 2
    monkeypatch.setattr(cudnn, "RULES", rules)
    return cudnn.supports


def test_without_a_cuda_device_it_says_so():
    assert cudnn.supports(draw_call()) == "it needs a CUDA device"


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16])
@pytest.mark.parametrize("lengths", [None, RIGHT], ids=["whole", "padded"])
@pytest.mark.parametrize("both", [False, True])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("cell", CELLS, ids=str)
def test_it_serves_what_cudnn_computes(cell, bias, both, lengths, dtype, served):
    call = draw_call(cell, lengths=lengths, both=both, bias=bias, dtype=dtype)
    assert served(call) is None
    assert served(replace(call, training=True)) is None


@dataclass(frozen=True)
class Sub(GRU):
    """A user's own: with the name and the options of a built-in cell, and another step."""


class Unhashable(recurlab.Cell):
    gates = ("hidden",)
    __hash__ = None

    def __eq__(self, other):
        return True


@pytest.mark.parametrize(
    "cell",
    [GRU("before"), GRU(activation="relu"), LSTM(activation="relu"), Elman("linear"), Sub(), Unhashable()],
    ids=["before", "gru relu", "lstm relu", "linear", "subclass", "unhashable"],
)
def test_other_cells_are_refused(cell, served):
    wanted = "cuDNN has the GRU with reset='after' and the LSTM, of sigmoid and tanh, and the rnn, tanh or ReLU"
    assert served(replace(draw_call(), cell=cell)) == wanted


MASK = padding(RIGHT, T)
PACKING = "cuDNN skips right padding only, by lengths on the host: give lengths as a list, a CPU tensor or packed"
BROKEN = {
    "diagonal": ({"recurrence": Recurrence("diagonal")}, "cuDNN has the dense recurrence only"),
    "block": ({"recurrence": Recurrence("block", 2)}, "cuDNN has the dense recurrence only"),
    "zoneout": ({"zoneout": (0.1,), "training": True}, "cuDNN has no zoneout"),
    "zoneout in evaluation": ({"zoneout": (0.1,), "training": False}, "cuDNN has no zoneout"),
    "resets": ({"resets": torch.zeros(T, B, dtype=torch.bool)}, "cuDNN has no resets"),
    "mask": ({"given_mask": MASK}, PACKING),
    "hold": (
        {"given_mask": MASK, "lengths": RIGHT, "hold": True},
        "cuDNN gives 0 at a padded step, masked_output='hold' does not",
    ),
    "dtype": (
        {"input": torch.zeros(T, B, FEATURES, dtype=torch.complex64)},
        "cuDNN computes in float64, float32, float16 and bfloat16",
    ),
}


@pytest.mark.parametrize(("change", "reason"), BROKEN.values(), ids=BROKEN)
def test_each_option_that_cudnn_has_not_is_refused_by_name(change, reason, served):
    assert served(replace(draw_call(), **change)) == reason


def test_recurrent_dropout_is_refused_where_it_is_drawn(served):
    call = draw_call()
    (direction,) = call.directions
    dropped = replace(direction, recurrent_dropout=torch.ones(B, H, dtype=torch.float64))
    assert served(replace(call, directions=(dropped,))) == "cuDNN has no recurrent dropout"


def test_layer_normalisation_is_refused(served):
    call = draw_call()
    (direction,) = call.directions
    normalized = replace(direction, norm=LayerNorm(torch.ones(3 * H), torch.ones(3 * H), None, None))
    assert served(replace(call, directions=(normalized,))) == "cuDNN has no layer normalisation"


def test_holding_without_a_mask_is_served(served):
    assert served(replace(draw_call(), hold=True)) is None


@pytest.mark.parametrize(
    ("version", "capability", "able"),
    [
        (91501, (9, 0), True),
        (91300, (8, 0), True),
        (91002, (9, 0), False),
        (91501, (7, 5), False),
        (None, (9, 0), False),
    ],
)
def test_bfloat16_needs_a_recent_library_and_device(version, capability, able, served, monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "version", lambda: version)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    reason = None if able else "cuDNN has bfloat16 from its version 9.13 and compute capability 8.0 on"
    assert served(draw_call(dtype=torch.bfloat16)) == reason
    with torch.autocast("cpu", torch.bfloat16):
        assert served(draw_call(dtype=torch.float32)) == reason
        assert served(draw_call(dtype=torch.float64)) is None


def test_transformations_that_it_has_no_rules_for_are_refused(served):
    call, reasons = draw_call(), []

    def ask(x):
        reasons.append(served(call))
        return x

    torch.func.vmap(ask)(torch.zeros(2))
    torch.func.grad(lambda x: ask(x).sum())(torch.zeros(2))
    with torch.autograd.forward_ad.dual_level():
        ask(None)
    assert reasons == ["cuDNN has no rules for torch.func and forward-mode derivatives"] * 3
    assert served(call) is None


@pytest.fixture
def layer(served):
    """Return the maker of two equal layers, one on this backend and one on the reference."""

    def build(**options):
        layers = []
        for backend in ("cudnn", "eager"):
            torch.manual_seed(3)
            layers.append(recurlab.RNN(FEATURES, H, dtype=torch.float64, backend=backend, **options))
        return layers

    return build


def everything(module, x, state=None, **flags):
    module.zero_grad()
    x = x.clone().requires_grad_()
    packed = pack_padded_sequence(x, **flags.pop("pack")) if "pack" in flags else x
    torch.manual_seed(5)
    output, final = module(packed, state, **flags)
    finals = final if isinstance(final, tuple) else (final,)
    output = output.data if isinstance(output, PackedSequence) else output
    return output, finals, gradients(output, [finals], [x, *module.parameters()])


FORMS = {
    "whole": {},
    "list": {"lengths": RIGHT.tolist()},
    "tensor": {"lengths": RIGHT},
    "int32": {"lengths": RIGHT.int()},
    "packed": {"pack": {"lengths": RIGHT, "enforce_sorted": False}},
    "packed in order": {"pack": {"lengths": RIGHT.sort(descending=True).values}},
}


@pytest.mark.parametrize("flags", FORMS.values(), ids=FORMS)
@pytest.mark.parametrize("cell", ["gru", "lstm", "rnn"])
@pytest.mark.parametrize("training", [True, False])
def test_a_layer_gives_the_numbers_of_the_reference_in_every_form_of_input(cell, flags, training, layer):
    ours, reference = (
        each.train(training) for each in layer(cell=cell, num_layers=2, bidirectional=True, dropconnect=0.3)
    )
    x = torch.randn(T, B, FEATURES, dtype=torch.float64)
    states = tuple(torch.randn(4, B, H, dtype=torch.float64) for _ in ours.cell.states)
    state = states if len(states) > 1 else states[0]
    assert_close(everything(ours, x, state, **flags), everything(reference, x, state, **flags), rtol=1e-10, atol=1e-10)
    assert ours.backends_used == {0: "cudnn", 1: "cudnn"}


def test_a_stateful_layer_carries_on(layer):
    ours, reference = layer(stateful=True, cell="lstm", batch_first=True)
    for _ in range(3):
        x = torch.randn(B, T, FEATURES, dtype=torch.float64)
        assert_close(ours(x, lengths=RIGHT), reference(x, lengths=RIGHT), rtol=1e-10, atol=1e-10)


def test_nan_in_the_padding_reaches_nothing(layer):
    ours, _ = layer(num_layers=2, bidirectional=True)
    clean = torch.randn(T, B, FEATURES, dtype=torch.float64)
    dirty = clean.masked_fill(~padding(RIGHT, T).unsqueeze(-1), float("nan"))
    assert_close(everything(ours, dirty, lengths=RIGHT), everything(ours, clean, lengths=RIGHT), rtol=0, atol=0)


def test_a_named_backend_says_what_it_lacks_and_who_can(layer):
    ours, _ = layer()
    with pytest.raises(recurlab.RecurlabError, match=r"backend='cudnn': cuDNN skips right padding only.*eager can"):
        ours(torch.zeros(T, B, FEATURES, dtype=torch.float64), mask=MASK)


@pytest.mark.filterwarnings("ignore:The .grad attribute")  # torch's own look at a tensor between two graphs
def test_torch_compile_leaves_its_graph_for_the_call(layer):
    torch.compiler.reset()
    ours, reference = layer(num_layers=2, bidirectional=True)
    x = torch.randn(T, B, FEATURES, dtype=torch.float64)
    found = everything(torch.compile(ours, backend="aot_eager"), x, lengths=RIGHT)
    assert_close(found, everything(reference, x, lengths=RIGHT), rtol=1e-10, atol=1e-10)
    torch.compiler.reset()
