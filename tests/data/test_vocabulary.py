"""Symbols and their names, of a prompt and of what a model writes."""

import numpy as np
import pytest

from recurlab.data.vocabulary import Vocabulary
from recurlab.errors import RecurlabError


def test_a_prompt_is_encoded_without_a_line_end_of_its_own():
    vocabulary = Vocabulary(["<eos>", "the", "owl", "<unk>"], "word")
    assert vocabulary.encode("the  owl") == [1, 2]
    assert vocabulary.encode("the\nbat\n") == [1, 0, 3, 0]
    assert vocabulary.encode("") == []
    assert vocabulary.decode([1, 2, 0, 0, 1]) == "the owl\n\nthe"
    assert vocabulary.decode(np.array([], np.uint8)) == ""
    assert Vocabulary("ab\n", "char").encode("b\na") == [1, 2, 0]


@pytest.mark.parametrize(
    ("names", "level", "text", "message"),
    [(["<eos>", "owls", "x"], "word", "x owlz", "'owlz', word 2, is not in the vocabulary of 3; did you mean 'owls'?"),
     ("abc", "char", "aaB", "'B', char 3, is not in the vocabulary of 3; did you mean 'b'?"),
     ("abc", "char", "?", "'?', char 1, is not in the vocabulary of 3")],
)  # fmt: skip
def test_an_unknown_token_of_a_prompt_is_named(names, level, text, message):
    with pytest.raises(RecurlabError) as caught:
        Vocabulary(names, level).encode(text, "prompt")
    assert str(caught.value) == f"prompt: {message}"


@pytest.mark.parametrize(
    ("names", "level", "message"),
    [([], "char", "names: 0 symbols"), ("aba", "char", "names: 3 symbols, 2 of them different"),
     (["a"], "word", "'<eos>' is not among the 1 words"), ("a", "words", "did you mean 'word'")],
)  # fmt: skip
def test_names_that_are_no_vocabulary_are_refused(names, level, message):
    with pytest.raises(RecurlabError, match=message):
        Vocabulary(names, level)


@pytest.mark.parametrize("symbol", [-1, 3])
def test_a_number_that_is_no_symbol_is_refused(symbol):
    with pytest.raises(RecurlabError, match=f"symbols: {symbol} is not one of 0 to 2"):
        Vocabulary("abc", "char").decode([0, symbol])
