"""Bad input is a RecurlabError of one line: what it is, its value, and what is allowed."""

import pytest
import torch

import recurlab

T, B, FEATURES, H = 11, 3, 5, 6


def build(features=FEATURES, units=H, **options):
    return lambda: recurlab.RNN(features, units, **options)


def call(*args, layer=None, **flags):
    """Return a call of a small layer; a missing input is a good one."""
    given = args or (torch.zeros(T, B, FEATURES),)
    return lambda: recurlab.RNN(FEATURES, H, **(layer or {}))(*given, **flags)


def packed(features=FEATURES):
    return torch.nn.utils.rnn.pack_padded_sequence(torch.zeros(T, B, features), [T] * B)


CONSTRUCTION = [
    (build(units=0), ["hidden_size=0", "whole number of at least 1"]),
    (build(units=7.0), ["hidden_size=7.0", "whole number"]),
    (build(units=True), ["hidden_size=True", "whole number"]),
    (build(features=-1), ["input_size=-1", "at least 1"]),
    (build(num_layers=0), ["num_layers=0", "at least 1"]),
    (build(zoneout=1.2), ["zoneout=1.2", "at least 0", "at most 1"]),
    (build(cell="lstm", zoneout=(0.1, -0.5)), ["zoneout=-0.5", "at least 0"]),
    (build(zoneout=(0.1, 0.2)), ["zoneout=(0.1, 0.2)", "one for each of h"]),
    (build(cell="lstm", zoneout=(0.1,)), ["zoneout=(0.1,)", "one for each of h, c"]),
    (build(dropout=-0.1), ["dropout=-0.1", "at least 0"]),
    (build(dropconnect="half"), ["dropconnect='half'", "must be a number"]),
    (build(recurrent_dropout=float("nan")), ["recurrent_dropout=nan", "must be a number"]),
    (build(cell="gruu"), ["cell='gruu'", "rnn", "lstm", "indy_lstm", "did you mean 'gru'"]),
    (build(recurrence="diagnal"), ["recurrence='diagnal'", "dense, diagonal, block", "did you mean 'diagonal'"]),
    (build(backend="eagre"), ["backend='eagre'", "auto, cudnn, fused, eager", "did you mean 'eager'"]),
    (build(masked_output="zeros"), ["masked_output='zeros'", "zero, hold", "did you mean 'zero'"]),
    (build(reset="befor"), ["reset='befor'", "after, before", "did you mean 'before'"]),
    (build(activation="tan"), ["activation='tan'", "relu", "did you mean 'tanh'"]),
    (build(rest="before"), ["rest='before'", "cell 'gru' has: reset, activation", "did you mean 'reset'"]),
    (build(cell="indrnn", reset="after"), ["reset='after'", "cell 'indrnn' has: activation"]),
    (build(heads=4, recurrence="block"), ["heads=4", "must divide hidden_size=6"]),
    (build(heads=0, recurrence="block"), ["heads=0", "at least 1"]),
    (build(heads=2), ["heads=2", "only recurrence='block'", "'dense'"]),
    (build(heads=2, cell="indrnn"), ["heads=2", "only recurrence='block'", "'diagonal'"]),
]
MASK = torch.ones(T, B, dtype=torch.bool)
CALLS = [
    (call(lengths=[4, 12, 1]), ["lengths=12", "from 1 to T=11"]),
    (call(lengths=[4, 0, 1]), ["lengths=0", "from 1 to T=11"]),
    (call(lengths=torch.tensor([4, -3, 1])), ["lengths=-3", "from 1 to T=11"]),
    (call(lengths=[4, 1]), ["lengths=(2,)", "one for each of B=3"]),
    (call(lengths=torch.ones(1, B, dtype=torch.long)), ["lengths=(1, 3)", "one for each of B=3"]),
    (call(lengths=[4.0, 5.0, 1.0]), ["lengths=(3,)", "float32", "whole numbers"]),
    (call(lengths=torch.ones(B, dtype=torch.bool)), ["lengths=(3,)", "torch.bool", "whole numbers"]),
    (call(mask=MASK.T), ["mask=(3, 11)", "must be (11, 3)"]),
    (call(mask=MASK.unsqueeze(-1)), ["mask=(11, 3, 1)", "must be (11, 3)"]),
    (call(mask=MASK.float()), ["mask=torch.float32", "torch.bool"]),
    (call(resets=MASK[:4]), ["resets=(4, 3)", "must be (11, 3)"]),
    (call(resets=MASK.long()), ["resets=torch.int64", "torch.bool"]),
    (call(mask=MASK, lengths=[1, 2, 3]), ["lengths and mask", "give one of them"]),
    (call(torch.zeros(0, B, FEATURES)), ["input=(0, 3, 5)", "empty"]),
    (call(torch.zeros(T, B, 4)), ["input=(11, 3, 4)", "(T, B, I)", "I=5"]),
    (call(torch.zeros(T, B, 4), layer={"batch_first": True}), ["input=(11, 3, 4)", "(B, T, I)", "I=5"]),
    (call(torch.zeros(T)), ["input=(11,)", "(T, B, I)"]),
    (call(torch.zeros(1, T, B, FEATURES)), ["input=(1, 11, 3, 5)", "(T, B, I)"]),
    (call(packed(4)), ["input.data=(33, 4)", "I=5"]),
    (call(packed(), lengths=[1, 2, 3]), ["lengths or mask", "PackedSequence"]),
    (call(packed(), mask=MASK), ["lengths or mask", "PackedSequence"]),
    (call(torch.zeros(T, B, FEATURES), torch.zeros(1, 2, H)), ["state h=(1, 2, 6)", "must be (1, 3, 6)"]),
    (call(torch.zeros(T, B, FEATURES), torch.zeros(B, H)), ["state h=(3, 6)", "must be (1, 3, 6)"]),
    (call(torch.zeros(T, FEATURES), torch.zeros(1, 1, H)), ["state h=(1, 1, 6)", "must be (1, 6)"]),
    (call(torch.zeros(T, B, FEATURES), (torch.zeros(1, B, H),) * 2), ["2 tensor(s)", "this cell has 1: h"]),
    (
        call(torch.zeros(T, B, FEATURES), torch.zeros(1, B, H), layer={"cell": "lstm"}),
        ["1 tensor(s)", "this cell has 2: h, c"],
    ),
    (
        call(torch.zeros(T, B, FEATURES), (torch.zeros(1, B, H), torch.zeros(1, B, 5)), layer={"cell": "lstm"}),
        ["state c=(1, 3, 5)", "must be (1, 3, 6)"],
    ),
]
BAD = CONSTRUCTION + CALLS


@pytest.mark.parametrize(("faulty", "words"), BAD, ids=[" ".join(words[:2]) for _, words in BAD])
def test_bad_input_is_said_in_one_line(faulty, words):
    with pytest.raises(recurlab.RecurlabError) as caught:
        faulty()
    message = str(caught.value)
    assert isinstance(caught.value, ValueError)
    assert "\n" not in message
    assert all(word in message for word in words), message


@pytest.mark.parametrize(
    "cause",
    [
        {"lengths": [1, T, 2]},
        {"lengths": torch.tensor([1, T, 2], dtype=torch.int32)},
        {"mask": MASK},
        {"resets": MASK},
        {"mask": MASK, "layer": {"batch_first": True}},  # the same input is then (B=11, T=3), and so is its mask
    ],
    ids=["list", "int32", "mask", "resets", "batch first"],
)
def test_the_edges_of_what_is_allowed_are_allowed(cause):
    output, _ = call(**cause)()
    assert output.shape == (T, B, H)


@pytest.mark.parametrize(
    "options",
    [{"zoneout": 1.0, "dropout": 1, "dropconnect": 0, "num_layers": 2}, {"heads": H, "recurrence": "block"}],
)
def test_the_ends_of_a_range_are_in_it(options):
    assert build(**options)()(torch.zeros(T, B, FEATURES))[0].shape == (T, B, H)


@pytest.mark.parametrize(
    ("options", "message"),
    [({"input_init": "orthogonal"}, "input_init='orthogonal': must be an instance of Initializer"),
     ({"gate_bias": {"reset": "a"}}, r"gate_bias\['reset'\]='a': must be a number")],
)  # fmt: skip
def test_a_start_that_is_none_is_said_in_a_line(options, message):
    with pytest.raises(recurlab.RecurlabError, match=message):
        recurlab.RNN(FEATURES, H, **options)


def test_a_misspelt_argument_names_the_nearest_one():
    with pytest.raises(recurlab.RecurlabError, match=r"zoneot=0.1: .*did you mean 'zoneout'"):
        recurlab.RNN(FEATURES, H, zoneot=0.1)


def test_an_option_makes_no_sense_for_a_cell_already_made():
    made = recurlab.RNN(FEATURES, H).cell
    with pytest.raises(recurlab.RecurlabError, match="argument='reset'"):
        recurlab.RNN(FEATURES, H, cell=made, reset="before")
