import hashlib
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from recurlab.data.text import Text
from recurlab.data.vocabulary import Vocabulary
from recurlab.errors import RecurlabError

SPLITS = ("train", "valid", "test")
THREE = {name: f"{name}.txt" for name in SPLITS}
WORDS = ["owl", "ox", "bee", "Ünke", "鵺", "a", "b", "rare-one", "<unk>", "\N{NO-BREAK SPACE}".join("xy")]


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.delenv("RECURLAB_DATA", raising=False)
    monkeypatch.setenv("RECURLAB_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def write(tmp_path):
    """Return a function that writes files and returns a corpus of them."""

    def written(*texts: str | bytes, **options) -> Text:
        names = ["input.txt"] if len(texts) == 1 else list(THREE.values())
        for name, text in zip(names, texts, strict=True):
            (tmp_path / name).write_bytes(text if isinstance(text, bytes) else text.encode())
        files = {} if len(texts) == 1 else THREE
        return Text(**{"dir": str(tmp_path), **files, **options})

    return written


def drawn(seed: int, lines: int, words: list[str] = WORDS) -> str:
    """Invented lines, some of them empty."""
    rng = np.random.default_rng(seed)
    weights = 1 / np.arange(1, len(words) + 1)
    return "".join(
        " ".join(rng.choice(words, rng.integers(0, 9), p=weights / weights.sum())) + "\n" for _ in range(lines)
    )


def message_of(text: Text, *also: str) -> str:
    with pytest.raises(RecurlabError) as caught:
        text.split("train", 0, 0)
    assert "\n" not in str(caught.value)
    assert all(part in str(caught.value) for part in also), str(caught.value)
    return str(caught.value)


def reference(texts: list[str], level: str, min_count: int) -> tuple[list[str], list[list[int]]]:
    """The names and the symbols, one token at a time."""
    tokens = [list(t) if level == "char" else [w for line in t.split("\n")[:-1] for w in [*line.split(), "<eos>"]]
              for t in texts]  # fmt: skip
    counts = Counter(tokens[0])
    kept = {t: n for t, n in counts.items() if n >= min_count or t in ("<unk>", "<eos>" if level == "word" else "\n")}
    if min_count > 1:
        kept["<unk>"] = kept.get("<unk>", 0) + sum(n for t, n in counts.items() if t not in kept)
    names = sorted(kept, key=lambda t: (-kept[t], t))
    return names, [[names.index(t if t in kept else "<unk>") for t in part] for part in tokens]


@pytest.mark.parametrize(("level", "min_count"), [("char", 1), ("char", 40), ("word", 1), ("word", 4), ("word", 10**6)])
def test_symbols_are_those_of_the_training_text_by_falling_count(write, level, min_count):
    texts = [drawn(1, 90), drawn(2, 20), drawn(3, 11)]
    text = write(*texts, level=level, min_count=min_count)
    names, wanted = reference(texts, level, min_count)
    assert list(text.names) == names
    assert text.input_size == text.output_size == len(names)
    for name, symbols in zip(SPLITS, wanted, strict=True):
        stream = text.split(name, 0, 0)
        assert stream.symbols.tolist() == symbols
        assert stream.starts.tolist() == [0]
        assert text.names[stream.before] == ("<eos>" if level == "word" else "\n")


@pytest.mark.parametrize("level", ["char", "word"])
def test_a_text_comes_back_from_its_symbols_and_names_alone(write, level):
    source = drawn(4, 30)
    text = write(source, source, source, level=level)
    vocabulary = Vocabulary(text.names, text.level)
    symbols = text.split("test", 0, 0).symbols
    assert vocabulary.encode(source) == symbols.tolist()
    assert vocabulary.before == text.split("test", 0, 0).before
    again = vocabulary.decode(symbols)
    assert again == (source if level == "char" else "\n".join(" ".join(line.split()) for line in source.split("\n")))


@pytest.mark.parametrize(
    ("types", "dtype"), [(2, np.uint8), (254, np.uint8), (255, np.uint16), (65_534, np.uint16), (65_535, np.int32)]
)
def test_symbols_are_kept_as_small_as_they_can_be(write, types, dtype):
    source = " ".join(f"w{i}" for i in range(types)) + " <unk>\n"  # and <eos>
    text = write(source, source, source, level="word")
    symbols = text.split("valid", 0, 0).symbols
    assert text.input_size == types + 2
    assert symbols.dtype == dtype
    assert sorted(symbols.tolist()) == list(range(types + 2))


def test_line_ends_count_as_one_token_each_even_where_the_last_is_missing(write):
    text = write("a b\nb a a", "a\r\nb\n", "\n\na", level="word")
    assert text.names == ("a", "<eos>", "b")
    symbols = [text.split(name, 0, 0).symbols.tolist() for name in SPLITS]
    assert symbols == [[0, 2, 1, 2, 0, 0, 1], [0, 1, 2, 1], [1, 1, 0, 1]]


def test_only_a_line_feed_ends_a_line(write):
    text = write("a\x0bb\x85c\u2028d\n", "a\n", "b\n", level="word", documents="line")
    assert len(text.split("train", 0, 0).starts) == 1


@pytest.mark.parametrize(("source", "before"), [("ab\nb b", "\n"), ("bb a", " "), ("baab", "a")])
def test_before_a_text_of_characters_stands_a_line_end_or_else_a_space(write, source, before):
    text = write(source, source, source)
    assert text.names[text.split("train", 0, 0).before] == before


def test_separated_characters_lose_their_blanks(write):
    source = " a _ b b\n _ b"
    text = write(source, source, source, separated=True)
    assert "".join(text.names[s] for s in text.split("test", 0, 0).symbols) == "a bb\n b"
    message_of(write("a b\nb _ abc", source, source, separated=True), "train.txt, line 2: no blanks in 'abc'")


@pytest.mark.parametrize("level", ["char", "word"])
def test_documents_are_lines_or_paragraphs(write, level):
    source = "\n \na b\nb\n\n\n\nb a\n"
    text = write(source, source, source, level=level, documents="paragraph")
    stream = text.split("test", 0, 0)
    assert stream.starts.tolist() == ([0, 12] if level == "char" else [0, 10])
    assert stream.starts.dtype == np.int64
    assert Vocabulary(text.names, level).decode(stream.symbols[stream.starts[1] :]) == "b a\n"

    source = "a b\nb b b\na"
    stream = write(source, source, source, level=level, documents="line").split("train", 0, 0)
    assert stream.starts.tolist() == ([0, 4, 10] if level == "char" else [0, 3, 7])


@pytest.mark.parametrize("level", ["char", "word"])
def test_one_file_is_cut_in_three_and_nothing_is_lost(write, level):
    source = drawn(5, 200)
    text = write(source, level=level, valid_fraction=0.2, test_fraction=0.1)
    parts = [text.split(name, 0, 0).symbols for name in SPLITS]
    whole = Vocabulary(text.names, level).encode(source)
    assert np.concatenate(parts).tolist() == whole
    assert [len(part) / len(whole) for part in parts] == pytest.approx([0.7, 0.2, 0.1], abs=0.001)


@pytest.mark.parametrize("documents", ["line", "paragraph"])
def test_a_cut_never_divides_a_document(write, documents):
    gap = "\n" if documents == "line" else "\n\n"
    lines = [f"{'ab' * (1 + i % 7)}" for i in range(50)]
    text = write(gap.join(lines), documents=documents, valid_fraction=0.2, test_fraction=0.2)
    found = []
    for name in SPLITS:
        stream = text.split(name, 0, 0)
        pieces = np.split(stream.symbols, stream.starts[1:])
        found += [text.vocabulary.decode(piece).rstrip("\n") for piece in pieces]
        assert len(pieces) > 5
    assert found == lines


def test_words_may_all_stand_in_one_line(write):
    text = write("one two three four " * 10, level="word")
    assert set(text.vocabulary.names) == {"one", "two", "three", "four", "<eos>"}
    symbols = np.concatenate([text.split(name, 0, 0).symbols for name in SPLITS])
    assert text.vocabulary.decode(symbols) == " ".join(["one two three four"] * 10) + "\n"


def test_the_vocabulary_of_a_cut_text_is_that_of_its_first_part(write):
    text = write("aab" * 30 + "c" * 10, valid_fraction=0.05, test_fraction=0.05, min_count=2)
    assert text.names == ("a", "b", "<unk>")
    message_of(write("aab\n" * 30 + "c" * 10), "input.txt, line 31: 'c' of the split 'valid'", "data.min_count=2")


def test_an_unknown_token_is_named_with_its_split_and_line_and_what_to_do(write):
    message = message_of(
        write("a b\na\n", "a\nb\n", "a b\n\nb wombat a\n", level="word"),
        "test.txt, line 3: 'wombat' of the split 'test'",
    )
    assert message.endswith("with data.min_count=2 it becomes <unk>, and so does what occurs once in training")
    message_of(write("ab", "ba", "a\nc"), "test.txt, line 1: '\\n' of the split 'test'")
    assert write("a b\na\n", "a\nb\n", "c\n", level="word", min_count=2).names == ("<eos>", "a", "<unk>")
    assert write("a <unk>\n", "a\n", "c\n", level="word").split("test", 0, 0).symbols.tolist() == [1, 0]


def test_notes_count_tokens_types_documents_and_what_was_replaced(write):
    three = ("a b c a\nb a\n", "a x\n", "<unk> b\ny y y\n")
    assert write(*three, level="word", min_count=2, documents="line").notes == (
        "train: 8 tokens (6 words and 2 <eos>), 4 types, 2 documents, 1 replaced by <unk>",
        "valid: 3 tokens (2 words and 1 <eos>), 3 types, 1 documents, 1 replaced by <unk>",
        "test: 7 tokens (5 words and 2 <eos>), 3 types, 2 documents, 3 replaced by <unk>",
    )
    assert write("ab" * 600, "a", "b").notes == (
        "train: 1,200 tokens, 2 types", "valid: 1 tokens, 1 types", "test: 1 tokens, 1 types"
    )  # fmt: skip


@pytest.mark.parametrize("content", [b"", b"\n", b" \n\t\n", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("place", [0, 1, 2])
@pytest.mark.parametrize("level", ["char", "word"])
def test_an_empty_file_is_named(write, content, place, level):
    texts = [b"a b\n"] * 3
    texts[place] = content
    assert message_of(write(*texts, level=level)).endswith(f"{SPLITS[place]}.txt: empty")


def test_an_empty_document_is_named(write):
    text = write("a\nb\n", "a\n \nb\n", "a\n", documents="line", level="word")
    message_of(text, "data.documents='line': ", "valid.txt, line 2 is an empty document")


def test_a_text_too_short_to_be_cut_is_refused(write):
    message_of(write("abcd"), "input.txt: too short to be cut in three, nothing is left for 'valid'")
    message_of(write("a\nb", documents="line"), "nothing is left for")


def test_what_is_wrong_with_a_file_is_said_in_order(write, tmp_path):
    known = {"train.txt": hashlib.sha256(b"a").hexdigest()}
    good = ["a", "a", "a"]
    text = write(b"\xff", *good[1:], sha256=known)
    (tmp_path / "train.txt").unlink()
    message_of(text, "train.txt is missing; the original has sha256 ca978112")
    message_of(write(b"\xff", *good[1:], sha256=known), "train.txt: sha256 a8100ae6", "original has sha256 ca978112")
    message_of(write(b"\n\xff", *good[1:], sha256=known, verify=False), "train.txt: not UTF-8: byte 1 is 0xff")
    message_of(write(b"", *good[1:], sha256=known, verify=False), "train.txt: empty")
    assert write(*good, sha256=known).names == ("a",)


def test_a_file_is_fetched_if_there_is_no_folder(tmp_path, monkeypatch):
    source = tmp_path / "elsewhere.txt"
    source.write_text("ab" * 50)
    sha256 = {"input.txt": hashlib.sha256(source.read_bytes()).hexdigest()}
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    options = {"url": source.as_uri(), "sha256": sha256, "corpus": "fables"}
    message_of(Text(**options), f"data.url={source.as_uri()!r}: not fetched", "set data.dir or RECURLAB_DATA")
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    assert Text(**options).names == ("a", "b")
    (tmp_path / "fables").mkdir()
    (tmp_path / "fables" / "input.txt").write_text("cd" * 50)
    monkeypatch.setenv("RECURLAB_DATA", str(tmp_path))
    assert Text(**options, verify=False).names == ("c", "d")


def test_a_folder_of_shared_data_is_found_by_the_corpus_name(write, tmp_path, monkeypatch):
    write("ab" * 50)
    monkeypatch.setenv("RECURLAB_DATA", str(tmp_path.parent))
    assert Text(corpus=tmp_path.name).names == ("a", "b")
    monkeypatch.setenv("RECURLAB_DATA", str(tmp_path))
    assert Text().names == ("a", "b")
    message_of(Text(corpus="no"), "data.dir=None: must be the folder of input.txt, or RECURLAB_DATA that above no")


def test_a_second_reading_comes_from_the_cache_until_a_file_or_an_option_changes(write, cache, monkeypatch):
    def entries() -> int:
        return len(list((cache / "data").iterdir()))

    three = [drawn(seed, 20) for seed in range(3)]
    first = write(*three, level="word").split("train", 0, 0).symbols
    monkeypatch.setattr(Text, "_make", lambda *_: pytest.fail("made anew"))
    again = write(*three, level="word").split("train", 0, 0).symbols
    monkeypatch.undo()
    monkeypatch.setenv("RECURLAB_CACHE", str(cache))
    assert np.array_equal(first, again)
    assert not again.flags.owndata
    assert entries() == 1
    for count, options in enumerate([{"min_count": 2}, {"level": "char"}, {"documents": "paragraph"}], 2):
        _ = write(*three, **{"level": "word", **options}).names
        assert entries() == count
    changed = write(*three[:2], "a\n", level="word").split("test", 0, 0).symbols
    assert len(changed) == 2
    assert entries() == 5


@pytest.mark.parametrize(
    ("options", "message"),
    [({"level": "chars"}, "data.level='chars': allowed are char, word; did you mean 'char'"),
     ({"documents": "lines"}, "did you mean 'line'"), ({"min_count": 0}, "data.min_count=0"),
     ({"valid": "v.txt"}, "data.test=None: must be a file"), ({"test": "t.txt"}, "data.valid=None: must be a file"),
     ({"valid_fraction": 0.0}, "data.valid_fraction=0.0"), ({"test_fraction": 1.5}, "data.test_fraction=1.5"),
     ({"valid_fraction": 0.5, "test_fraction": 0.5}, "data.valid_fraction=0.5: must be below 1 together with"),
     ({"separated": True, "level": "word"}, "data.separated=True: only with data.level=char"),
     ({"url": "https://example.invalid"}, "data.url='https://example.invalid': needs the file's sha256"),
     ({"bptt": 0}, "data.bptt=0"), ({"batch_size": 0}, "data.batch_size=0")],
)  # fmt: skip
def test_options_out_of_range_are_refused(options, message):
    with pytest.raises(RecurlabError) as caught:
        Text(**options)
    assert message in str(caught.value)


def test_the_sizes_of_a_batch_are_those_of_a_stream():
    assert (Text().batch_size, Text().eval_batch_size, Text().symbols, Text().problem) == (20, 10, True, "language")
