"""Which backend runs, why the others do not, and that a named one never falls back."""

from types import SimpleNamespace

import pytest
import torch

import recurlab
from recurlab.backends import BACKENDS, select
from recurlab.backends.call import Call

FAKES = {"picky": lambda call: "no double backward" if call.zoneout == (0.5,) else None, "plain": lambda call: None}


@pytest.fixture
def fakes(monkeypatch):
    """Put two backends of known abilities in place of the real ones; return the names of those that ran."""
    ran = []
    real = select.MODULES["eager"]

    def fake(name):
        def run(call):
            ran.append(name)
            return real.run(call)

        return SimpleNamespace(supports=lambda call: FAKES[name](call), run=run)

    monkeypatch.setattr(select, "BACKENDS", {name: name for name in FAKES})
    monkeypatch.setattr(select, "MODULES", {name: fake(name) for name in FAKES})
    return ran


@pytest.mark.parametrize("name", BACKENDS)
def test_every_backend_in_the_table_can_be_asked_whether_it_serves_a_call(name):
    module = select.MODULES[name]
    assert callable(module.supports)
    assert callable(module.run)


def test_the_reference_backend_is_in_the_table_as_the_last_resort():
    assert list(BACKENDS)[-1] == "eager"


@pytest.mark.parametrize("name", ["auto", *BACKENDS])
def test_every_name_in_the_table_is_accepted(name):
    assert recurlab.RNN(2, 3, backend=name).backend == name


def test_an_unknown_backend_is_an_error_with_the_nearest_name():
    with pytest.raises(recurlab.RecurlabError, match=r"backend='eage': allowed are auto, .*did you mean 'eager'"):
        select.check("eage")


def test_auto_takes_the_first_that_can(fakes):
    x = torch.zeros(4, 2, 3)
    recurlab.RNN(3, 5, num_layers=2)(x)
    recurlab.RNN(3, 5, zoneout=0.5)(x)
    assert fakes == ["picky", "picky", "plain"]


def test_a_layer_remembers_which_backend_each_of_its_layers_ran_on(fakes):
    layer = recurlab.RNN(3, 5, num_layers=2, backend="plain")
    assert layer.backends_used == {0: "", 1: ""}
    layer(torch.zeros(4, 2, 3))
    assert layer.backends_used == {0: "plain", 1: "plain"}


def test_a_named_backend_is_taken_although_a_faster_one_could(fakes):
    recurlab.RNN(3, 5, backend="plain")(torch.zeros(4, 2, 3))
    assert fakes == ["plain"]


def test_a_named_backend_that_cannot_serve_raises_with_the_reason_and_who_can(fakes):
    layer = recurlab.RNN(3, 5, backend="picky", zoneout=0.5)
    with pytest.raises(recurlab.RecurlabError, match="backend='picky': no double backward; plain can"):
        layer(torch.zeros(4, 2, 3))
    assert fakes == []


def test_explain_names_what_is_taken_and_why_the_others_are_not(fakes):
    one = "layer 0: GRU(reset='after', activation='tanh', recurrent_activation='sigmoid'), dense recurrence, backend "
    assert recurlab.RNN(3, 5).explain() == one + "picky\n  not plain: picky comes before it"
    assert recurlab.RNN(3, 5, zoneout=0.5).explain() == one + "plain\n  not picky: no double backward"
    named = recurlab.RNN(3, 5, backend="plain").explain()
    assert named == one + "plain\n  not picky: backend='plain' was asked for"
    assert fakes == []


def test_explain_speaks_of_every_layer():
    text = recurlab.RNN(3, 5, 3, bidirectional=True, cell="indy_lstm", backend="eager").explain()
    heads = [line for line in text.splitlines() if not line.startswith(" ")]
    assert heads == [
        f"layer {k}: LSTM(activation='tanh', recurrent_activation='sigmoid'), diagonal recurrence, backend eager"
        for k in range(3)
    ]
    assert all(f"not {name}:" in text for name in BACKENDS if name != "eager")


def test_explain_changes_neither_the_random_numbers_nor_the_carried_state():
    noise = {"zoneout": 0.3, "dropconnect": 0.3, "recurrent_dropout": 0.3}
    layer = recurlab.RNN(3, 5, stateful=True, **noise)
    layer(torch.ones(4, 2, 3))
    carried, generator = layer.carried_state[0].clone(), torch.get_rng_state()
    layer.explain()
    assert torch.equal(torch.get_rng_state(), generator)
    assert torch.equal(layer.carried_state[0], carried)


@pytest.mark.parametrize("training", [True, False])
def test_a_call_tells_a_backend_all_that_it_needs(fakes, training, monkeypatch):
    calls = []
    monkeypatch.setitem(FAKES, "picky", lambda call: calls.append(call))
    layer = recurlab.RNN(
        3, 5, bidirectional=True, cell="lstm", zoneout=(0.5, 0.0), recurrent_dropout=0.5, masked_output="hold"
    )
    x, resets = torch.full((4, 2, 3), float("nan")), torch.ones(4, 2, dtype=torch.bool)
    layer.train(training)(x, mask=~resets, resets=resets)
    (call,) = calls
    assert isinstance(call, Call)
    assert call.input.isfinite().all()
    assert (call.zoneout, call.hold, call.training) == ((0.5, 0.0), True, training)
    assert not call.mask.any()
    assert call.resets.all()
    for direction in call.directions:
        assert [s.shape for s in direction.state] == [(2, 5), (2, 5)]
        assert (direction.recurrent_dropout is not None) == training
        assert (direction.seed is not None) == training
        assert not training or (direction.seed.shape, direction.seed.dtype) == ((), torch.int64)
