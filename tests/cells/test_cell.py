"""What a cell must be, what it is told when it is not, and how a user's own one is used."""

import pytest
import torch
from torch import sigmoid, tanh

import recurlab
from recurlab.cells import CELLS, PRESETS
from recurlab.cells.gru import GRU
from recurlab.cells.lstm import LSTM
from recurlab.cells.rnn import Elman

pytestmark = pytest.mark.usefixtures("quick_kernels")  # few other tests have these kernels


@pytest.fixture
def fresh_name():
    """Return a name for a cell, free again after the test."""
    yield "fresh_cell"
    CELLS._entries.pop("fresh_cell", None)


@pytest.mark.parametrize(
    ("cell", "phases"),
    [
        (Elman(), (("hidden",),)),
        (GRU(reset="after"), (("reset", "update", "candidate"),)),
        (GRU(reset="before"), (("reset", "update"), ("candidate",))),
        (LSTM(), (("input", "forget", "cell", "output"),)),
    ],
    ids=str,
)
def test_gates_that_read_the_same_tensor_share_a_phase(cell, phases):
    assert cell.phases == phases


@pytest.mark.parametrize(
    ("preset", "cell", "recurrence"),
    [
        ("indrnn", Elman("relu"), "diagonal"),
        ("indy_gru", GRU("before"), "diagonal"),
        ("indy_lstm", LSTM(), "diagonal"),
        ("cudnn_gru", GRU("after"), "dense"),
    ],
)
def test_a_preset_is_a_cell_with_its_recurrence_and_options(preset, cell, recurrence):
    layer = recurlab.RNN(2, 3, cell=preset)
    assert (layer.cell, layer.recurrence.kind) == (cell, recurrence)


def test_the_caller_overrides_what_a_preset_says():
    layer = recurlab.RNN(2, 3, cell="indrnn", recurrence="dense", activation="tanh")
    assert (layer.cell, layer.recurrence.kind) == (Elman("tanh"), "dense")


def test_a_registered_cell_of_a_few_lines_trains(fresh_name):
    @recurlab.register_cell(fresh_name)
    class MinimalGate(recurlab.Cell):
        gates = ("forget", "candidate")

        def step(self, x, h, recur):
            f = sigmoid(x.forget + recur.forget(h))
            return (1 - f) * h + f * tanh(x.candidate + recur.candidate(f * h))

    torch.manual_seed(1)
    layer = recurlab.RNN(3, 5, cell=fresh_name, recurrence="diagonal", num_layers=2)
    optimizer = torch.optim.Adam(layer.parameters(), lr=0.02)
    x = torch.randn(11, 4, 3)
    target = 0.5 * tanh(x.cumsum(0))[..., :1].expand(-1, -1, 5)
    losses = []
    for _ in range(40):
        loss = (layer(x)[0] - target).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]


def test_a_cell_of_two_states_gives_them_as_a_tuple_and_the_first_as_output():
    class Slow(recurlab.Cell):
        gates = ("fast",)
        states = ("h", "average")

        def step(self, x, state, recur):
            h, average = state
            return tanh(x.fast + recur.fast(average)), 0.5 * average + 0.5 * h

    output, (h, average) = recurlab.RNN(2, 3, cell=Slow())(torch.randn(5, 4, 2))
    assert torch.equal(output[-1], h[0])
    weights = torch.tensor([0.5**4, 0.5**3, 0.5**2, 0.5]).view(4, 1, 1)
    torch.testing.assert_close(average[0], (weights * output[:4]).sum(0))  # an average of h one step behind


def test_the_weights_of_a_cell_are_laid_out_in_the_order_of_its_gates():
    class Difference(recurlab.Cell):
        gates = ("plus", "minus")

        def step(self, x, h, recur):
            return x.plus - x.minus + recur.minus(h) - recur.plus(h)

    layer = recurlab.RNN(1, 1, cell=Difference(), bias=False)
    layer.load_state_dict({"weight_ih_l0": torch.tensor([[5.0], [2.0]]), "weight_hh_l0": torch.tensor([[3.0], [4.0]])})
    output, _ = layer(torch.ones(2, 1, 1))
    assert output.flatten().tolist() == [3.0, 3.0 + (4.0 - 3.0) * 3.0]


class Interleaved(recurlab.Cell):
    """The GRU with its reset gate before, and the gates of its first phase apart in the weights."""

    gates = ("reset", "candidate", "update")

    def step(self, x, h, recur):
        r = sigmoid(x.reset + recur.reset(h))
        z = sigmoid(x.update + recur.update(h))
        return (1 - z) * tanh(x.candidate + recur.candidate(r * h)) + z * h


@pytest.mark.parametrize("recurrence", [{}, {"recurrence": "diagonal"}, {"recurrence": "block", "heads": 2}], ids=str)
@pytest.mark.parametrize("bias", [True, False])
def test_the_gates_of_a_phase_need_not_lie_side_by_side(recurrence, bias):
    torch.manual_seed(2)
    usual = recurlab.RNN(3, 4, cell="gru", reset="before", bias=bias, **recurrence)
    other = recurlab.RNN(3, 4, cell=Interleaved(), bias=bias, **recurrence)
    rows = torch.arange(12).view(3, 4)[[0, 2, 1]].flatten()
    other.load_state_dict({name: weight[rows] for name, weight in usual.state_dict().items()})
    x = torch.randn(7, 2, 3)
    assert Interleaved().phases == (("reset", "update"), ("candidate",))
    torch.testing.assert_close(other(x), usual(x))


def test_a_gate_may_do_without_a_recurrence():
    class InputGated(recurlab.Cell):
        gates = ("gate", "candidate")

        def step(self, x, h, recur):
            return h + sigmoid(x.gate) * (recur.candidate(h) - x.candidate)

    layer = recurlab.RNN(1, 1, cell=InputGated(), bias=False)
    layer.load_state_dict({"weight_ih_l0": torch.tensor([[0.0], [2.0]]), "weight_hh_l0": torch.tensor([[9.0], [3.0]])})
    assert layer(torch.ones(2, 1, 1))[0].flatten().tolist() == [-1.0, -1.0 + 0.5 * (-3.0 - 2.0)]


class NoGates(recurlab.Cell):
    def step(self, x, h, recur):
        return h


class NoStep(recurlab.Cell):
    gates = ("only",)


class UnknownGate(recurlab.Cell):
    gates = ("update", "candidate")

    def step(self, x, h, recur):
        return tanh(x.candidat + recur.update(h))


class TwoForOne(recurlab.Cell):
    gates = ("only",)

    def step(self, x, h, recur):
        return tanh(x.only + recur.only(h)), h


class OneForTwo(recurlab.Cell):
    gates = ("only",)
    states = ("h", "c")

    def step(self, x, state, recur):
        return (tanh(x.only + recur.only(state[0])),)


class WrongShape(recurlab.Cell):
    gates = ("only",)

    def step(self, x, h, recur):
        return tanh(x.only + recur.only(h)).sum()


class AppliedTwice(recurlab.Cell):
    gates = ("only",)

    def step(self, x, h, recur):
        return recur.only(x.only + recur.only(h))


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        (NoGates, ["NoGates", "gates"]),
        (UnknownGate, ["UnknownGate", "candidat", "update, candidate"]),
        (TwoForOne, ["TwoForOne", "must return 1 tensor"]),
        (OneForTwo, ["OneForTwo", "must return 2 tensor"]),
        (WrongShape, ["WrongShape", "shaped like the state"]),
        (AppliedTwice, ["AppliedTwice", "once a step"]),
    ],
)
def test_a_faulty_cell_is_named_before_the_first_batch(kind, words):
    with pytest.raises(recurlab.RecurlabError) as caught:
        recurlab.RNN(2, 3, cell=kind())
    assert all(word in str(caught.value) for word in words)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "wrong", [lambda x: x.hidden[:, :1], lambda x: None, lambda x: x.hidden @ x.hidden, lambda x: 1 / 0]
)
def test_a_step_of_the_wrong_shape_or_that_fails_is_said_in_a_line(wrong):
    class Wrong(recurlab.Cell):
        gates = ("hidden",)

        def step(self, x, h, recur):
            return wrong(x)

    with pytest.raises(recurlab.RecurlabError, match="cell Wrong: ") as caught:
        recurlab.RNN(2, 3, cell=Wrong())
    assert "\n" not in str(caught.value)


def test_a_cell_without_a_step_says_so():
    with pytest.raises(recurlab.RecurlabError, match="cell NoStep: it must define step"):
        recurlab.RNN(2, 3, cell=NoStep())


@pytest.mark.parametrize("name", ["gru", "rnn", "lstm", *PRESETS])
def test_a_name_that_is_taken_cannot_be_registered(name):
    before = recurlab.RNN(2, 3, cell=name).cell  # also resolves the built-in, as most programs have done by then
    with pytest.raises(recurlab.RecurlabError, match=f"cell='{name}': this name is taken"):

        @recurlab.register_cell(name)
        class Another(NoStep):
            pass

    assert recurlab.RNN(2, 3, cell=name).cell == before


def test_a_class_that_is_called_as_a_built_in_one_cannot_replace_it(monkeypatch):
    built_in = recurlab.RNN(2, 3, cell="gru").cell
    monkeypatch.setitem(CELLS._entries, "gru", CELLS["gru"])  # restored, should the check fail
    stranger = type("GRU", (NoStep,), {"__qualname__": "GRU"})
    with pytest.raises(recurlab.RecurlabError, match="taken"):
        recurlab.register_cell("gru")(stranger)
    assert recurlab.RNN(2, 3, cell="gru").cell == built_in


def test_the_same_class_may_be_registered_again(fresh_name):
    # a notebook cell that is run twice defines the class twice
    for _ in range(2):
        again = recurlab.register_cell(fresh_name)(type("Again", (NoGates,), {"gates": ("only",), "__module__": "nb"}))
    assert CELLS[fresh_name] is again


@pytest.mark.parametrize("name", ["no-dash", "", "1st"])
def test_a_registered_name_must_be_an_identifier(name):
    with pytest.raises(recurlab.RecurlabError, match="must be an identifier"):
        recurlab.register_cell(name)
