"""The layer with the eager backend against torch.nn.GRU, LSTM and RNN: outputs, states, all gradients, parameters."""

import pytest
import torch
from torch import nn

import recurlab

T, B, FEATURES, H = 11, 3, 5, 7
KINDS = {
    "gru": (nn.GRU, {}, {"cell": "gru"}),
    "lstm": (nn.LSTM, {}, {"cell": "lstm"}),
    "rnn_tanh": (nn.RNN, {"nonlinearity": "tanh"}, {"cell": "rnn"}),
    "rnn_relu": (nn.RNN, {"nonlinearity": "relu"}, {"cell": "rnn", "activation": "relu"}),
}
SHAPES = [
    {},
    {"bidirectional": True},
    {"num_layers": 2, "bias": False},
    {"num_layers": 3, "bidirectional": True},
    {"num_layers": 2, "bidirectional": True, "batch_first": True},
    {"bias": False, "batch_first": True},
]


def ids(options):
    return "-".join(f"{key}={value}" for key, value in options.items()) or "plain"


@pytest.fixture(params=KINDS)
def pair(request):
    """Return a function that makes torch's layer and ours, with the same weights."""
    kind, theirs, ours = KINDS[request.param]

    def build(**options):
        torch.manual_seed(12)
        their = kind(FEATURES, H, dtype=torch.float64, **theirs, **options)
        our = recurlab.RNN(FEATURES, H, dtype=torch.float64, backend="eager", **ours, **options)
        our.load_state_dict(their.state_dict(), strict=True)
        return their, our

    return build


def inputs(layer, batch=B):
    shape = (batch, T, FEATURES) if layer.batch_first else (T, batch, FEATURES)
    return torch.randn(shape, dtype=torch.float64)


@pytest.mark.parametrize("options", SHAPES, ids=ids)
@pytest.mark.parametrize("initial", [False, True], ids=["from zero", "from a state"])
def test_outputs_states_and_all_gradients_are_those_of_torch(pair, options, initial, everything, states_for, same):
    their, our = pair(**options)
    x, state = inputs(our), states_for(our, B) if initial else None
    same(everything(our, x, state), everything(their, x, state))


def test_an_unbatched_input_gives_what_torch_gives(pair, everything, same):
    their, our = pair(num_layers=2, bidirectional=True, batch_first=True)
    x = torch.randn(T, FEATURES, dtype=torch.float64)
    same(everything(our, x), everything(their, x))
    states = tuple(torch.randn(4, H, dtype=torch.float64) for _ in our.cell.states)
    state = states if len(states) > 1 else states[0]
    same(everything(our, x, state), everything(their, x, state))


def test_a_sequence_of_one_step_and_one_sample_gives_what_torch_gives(pair, everything, same):
    their, our = pair(bidirectional=True)
    x = torch.randn(1, 1, FEATURES, dtype=torch.float64)
    same(everything(our, x), everything(their, x))


@pytest.mark.parametrize("options", SHAPES, ids=ids)
def test_state_dicts_are_exchanged_strictly_both_ways(pair, options, same):
    their, our = pair(**options)
    assert list(our.state_dict()) == list(their.state_dict())
    our.reset_parameters()
    their.load_state_dict(our.state_dict(), strict=True)
    x = inputs(our)
    same(their(x), our(x))


@pytest.mark.parametrize("options", SHAPES, ids=ids)
def test_a_seed_gives_the_initial_parameters_of_torch(pair, options):
    their, our = pair(**options)
    torch.manual_seed(13)
    their.reset_parameters()
    torch.manual_seed(13)
    our.reset_parameters()
    for name, parameter in their.named_parameters():
        assert torch.equal(getattr(our, name), parameter), name


def test_positional_arguments_stand_where_those_of_torch_stand():
    arguments = (FEATURES, H, 2, False, True, 0.25, True)
    their, our = nn.GRU(*arguments), recurlab.RNN(*arguments)
    for name in ("input_size", "hidden_size", "num_layers", "bias", "batch_first", "dropout", "bidirectional"):
        assert getattr(our, name) == getattr(their, name), name
