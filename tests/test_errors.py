"""The checks say the key, the value and what is allowed, in one line."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recurlab.errors import (
    RecurlabError,
    check_choice,
    check_integer,
    check_number,
    check_probability,
    one_line,
    unknown,
    unknown_key,
)

ALLOWED = "KEY=1: unknown key; allowed are cell.name, cell.reset"


def message_of(check, *args, **bounds):
    with pytest.raises(RecurlabError) as caught:
        check(*args, **bounds)
    return str(caught.value)


def test_the_error_is_a_value_error():
    assert issubclass(RecurlabError, ValueError)


@given(st.text())
def test_one_line_is_one_line_and_keeps_every_word(text):
    folded = one_line(text)
    assert folded.isprintable()  # no new line, and nothing that a terminal would obey
    words = text.split()
    assert len(folded.split()) == len(words)
    assert all(a == b for a, b in zip(folded.split(), words, strict=True) if b.isprintable())
    assert "  " not in folded


def test_one_line_takes_any_object():
    assert one_line(ValueError("a\n  b")) == "a b"


@pytest.mark.parametrize(
    ("name", "allowed", "wanted"),
    [
        ("gruu", ["gru", "lstm"], "cell='gruu': allowed are gru, lstm; did you mean 'gru'?"),
        ("transformer", ["gru", "lstm"], "cell='transformer': allowed are gru, lstm"),
        ("gru", [], "cell='gru': allowed are none"),
        (3, iter(["gru", "lstm"]), "cell=3: allowed are gru, lstm"),
    ],
)
def test_an_unknown_name_is_answered_with_the_nearest(name, allowed, wanted):
    assert str(unknown("cell", name, allowed)) == wanted


@pytest.mark.parametrize(
    ("key", "elsewhere", "wanted"),
    [
        ("cell.nam", [], ALLOWED.replace("KEY", "cell.nam") + "; did you mean 'cell.name'?"),
        ("cell.lr", ["optimizer.lr"], ALLOWED.replace("KEY", "cell.lr") + "; did you mean 'optimizer.lr'?"),
        ("qqq", [], ALLOWED.replace("KEY", "qqq")),
    ],
)
def test_an_unknown_key_is_answered_with_the_nearest_or_its_namesake(key, elsewhere, wanted):
    assert str(unknown_key(key, 1, ["cell.reset", "cell.name", "cell.name"], elsewhere)) == wanted


def test_a_choice_is_one_of_those_allowed():
    check_choice("reset", "after", ("after", "before"))
    check_choice("reset", "after", iter(["before", "after"]))
    assert message_of(check_choice, "reset", "befor", ("after", "before")).startswith(
        "reset='befor': allowed are after"
    )
    assert message_of(check_choice, "reset", None, ("after", "before")).startswith("reset=None")


@pytest.mark.parametrize("value", [0, -1, 1.0, "1", None, True, float("nan")])
def test_what_is_no_whole_number_in_range_is_named(value):
    assert message_of(check_integer, "layers", value) == f"layers={value!r}: must be a whole number of at least 1"


def test_whole_numbers_in_range_pass():
    check_integer("layers", 1)
    check_integer("seed", 0, low=0)
    check_integer("shift", -3, low=-3)
    assert "at least 2" in message_of(check_integer, "layers", 1, low=2)


def test_a_whole_number_fits_into_64_bits():
    check_integer("layers", 2**63 - 1)
    assert message_of(check_integer, "layers", 2**63).endswith("at least 1 and at most 9223372036854775807")


@pytest.mark.parametrize(
    ("value", "bounds", "wanted"),
    [
        (0, {"above": 0}, "lr=0: must be a number, greater than 0"),
        (-0.5, {"low": 0}, "lr=-0.5: must be a number, at least 0"),
        (2, {"high": 1.5}, "lr=2: must be a number, at most 1.5"),
        (2, {"above": 0, "high": 1}, "lr=2: must be a number, greater than 0 and at most 1"),
        (float("inf"), {}, "lr=inf: must be a number, finite"),
        (-2e30, {}, "lr=-2e+30: must be a number, finite, of a size of at most 1e+30"),
        (10**400, {"low": 0}, f"lr=1{'0' * 118}…: must be a number, at least 0"),
        (float("nan"), {"low": 0}, "lr=nan: must be a number, at least 0"),
        ("0.1", {}, "lr='0.1': must be a number, finite"),
        (True, {"low": 0}, "lr=True: must be a number, at least 0"),
        (None, {}, "lr=None: must be a number, finite"),
    ],
)
def test_a_number_out_of_bounds_is_named(value, bounds, wanted):
    assert message_of(check_number, "lr", value, **bounds) == wanted


@given(st.floats(allow_nan=True, allow_infinity=True) | st.integers())
def test_a_probability_is_a_number_from_0_to_1(value):
    if 0 <= value <= 1:
        check_probability("p", value)
    else:
        assert message_of(check_probability, "p", value) == f"p={value!r}: must be a number, at least 0 and at most 1"
