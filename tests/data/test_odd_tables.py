"""Tables as spreadsheets, other programs and other countries write them: read rightly, or refused by their row."""

import numpy as np
import pytest

from recurlab.data.dataset import Dataset
from recurlab.errors import RecurlabError

NUMBERS = {"problem": "regression"}
TEXTS = {"level": "char"}
PAIRS = [([1, 2], "a"), ([3, 4], "b")]


@pytest.fixture(autouse=True)
def _cache(tmp_path_factory, monkeypatch):
    """Nothing is left in the user's cache of data sets."""
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.mktemp("cache"))


def table(folder, ending, content, options):
    (folder / f"t{ending}").write_bytes(content if isinstance(content, bytes) else content.encode())
    return Dataset(path=str(folder), train="t", valid="t", test="t", sequence="x", label="y", **options)


def rows_of(data):
    """Return each row of training: its numbers or text, and its class or what is to be predicted."""
    inputs, lengths, targets, _ = data.split("train", 0, 0)
    sequences = np.split(inputs, np.cumsum(lengths)[:-1])
    if data.vocabulary:
        sequences = [data.vocabulary.decode(sequence) for sequence in sequences]
    else:
        sequences = [np.squeeze(sequence, 1).tolist() for sequence in sequences]
    named = [data.names[target] for target in targets] if data.names else targets.tolist()
    return list(zip(sequences, named, strict=True))


@pytest.mark.parametrize(
    ("ending", "content", "options", "expected"),
    [pytest.param(ending, content, options, expected, id=name) for name, ending, content, options, expected in [
        ("decimal commas between blanks", ".csv", 'x,y\n"0,5 -0,25",a\n"1,5 2",b\n', {},
         [([0.5, -0.25], "a"), ([1.5, 2], "b")]),
        ("decimal commas in a tsv", ".tsv", "x\ty\n0,5 -,25\ta\n1,5e2 3\tb\n", {},
         [([0.5, -0.25], "a"), ([150, 3], "b")]),
        ("a semicolon file of decimal commas", ".csv", "x;y\n0,5 -0,25;3,25\n1,5 2,25;-2\n", NUMBERS,
         [([0.5, -0.25], [3.25]), ([1.5, 2.25], [-2])]),
        ("a semicolon file of thousands", ".csv", "x;y\n1 2;1.234,5\n3 4;1.234.000\n", NUMBERS,
         [([1, 2], [1234.5]), ([3, 4], [1234000])]),
        ("a semicolon file of points", ".csv", "x;y\n1.5 2;1.234\n3 4;7.5\n", NUMBERS,
         [([1.5, 2], [pytest.approx(1.234)]), ([3, 4], [7.5])]),
        ("a semicolon file of lists", ".csv", "x;y\n1,2,3;a\n3,4,5;b\n", {}, [([1, 2, 3], "a"), ([3, 4, 5], "b")]),
        ("a semicolon file of texts with commas", ".csv", "x;y\n1,5;a\nto, be;b\n", TEXTS,
         [("1,5", "a"), ("to, be", "b")]),
        ("tabs in a csv", ".csv", "x\ty\n1 2\ta\n3 4\tb\n", {}, PAIRS),
        ("lists of three digits", ".csv", 'x,y\n"100,200,300",a\n"1,200",b\n', {},
         [([100, 200, 300], "a"), ([1, 200], "b")]),
        ("lists of fractions", ".csv", 'x,y\n"0.5,1.5 2.5",a\n"[3,14]",b\n', {},
         [([0.5, 1.5, 2.5], "a"), ([3, 14], "b")]),
        ("two numbers to predict", ".csv", 'x,y\n1 2,"[3,14]"\n3 4,"3, 15"\n', NUMBERS,
         [([1, 2], [3, 14]), ([3, 4], [3, 15])]),
        ("a quote that would swallow lines of a tsv", ".tsv", 'y\tx\na\t"b c\nb\td\na\te f"\nb\tg\n', TEXTS,
         [('"b c', "a"), ("d", "b"), ('e f"', "a"), ("g", "b")]),
        ("quotes within texts", ".tsv", 'y\tx\na\t"so" he said\nb\tsay "no"\na\t"all ""of"" it"\n', TEXTS,
         [('"so" he said', "a"), ('say "no"', "b"), ('all "of" it', "a")]),
        ("a quote that does not end", ".csv", 'x,y\n"ab,a\nc,b\n', TEXTS, [('"ab', "a"), ("c", "b")]),
        ("separators within quotes of a tsv", ".tsv", 'x\ty\n"1\t2"\ta\n3 4\t"b"\n', {}, PAIRS),
        ("line ends within quotes", ".csv", 'x,y\n"a\nb",1\n"c\r\n, ""d""",0\n', TEXTS,
         [("a\nb", "1"), ('c\r\n, "d"', "0")]),
        ("line ends between numbers", ".csv", 'x,y\n"1\n2",a\n3 4,b\n', {}, PAIRS),
        ("classes from 1", ".csv", "x,y\n1 2,1\n3 4,3\n5 6,2\n1 1,+1\n", {},
         [([1, 2], "1"), ([3, 4], "3"), ([5, 6], "2"), ([1, 1], "1")]),
        ("classes -1 and 1", ".jsonl", '{"x": [1, 2], "y": 1}\n{"x": [3, 4], "y": -1}\n', {},
         [([1, 2], "1"), ([3, 4], "-1")]),
        ("classes with gaps", ".csv", "x,y\n1 2,30\n3 4,7\n5 6,30\n1 1,7\n", {},
         [([1, 2], "30"), ([3, 4], "7"), ([5, 6], "30"), ([1, 1], "7")]),
        ("classes that stand as fractions", ".jsonl", '{"x": [1, 2], "y": 1.0}\n{"x": [3, 4], "y": 2.0}\n', {},
         [([1, 2], "1"), ([3, 4], "2")]),
        ("half stars", ".csv", "x,y\n" + "1 2,0.5\n3 4,1.0\n5 6,1.5\n" * 3, {},
         [([1, 2], "0.5"), ([3, 4], "1.0"), ([5, 6], "1.5")] * 3),
        ("true and false", ".csv", "x,y\n1 2,true\n3 4,false\n", {}, [([1, 2], "true"), ([3, 4], "false")]),
        ("dates as classes", ".csv", "x,y\n1 2,2020-01-02\n3 4,2020-01-03\n", {},
         [([1, 2], "2020-01-02"), ([3, 4], "2020-01-03")]),
        ("whole numbers of many digits", ".csv", f"x,y\n1 2,{10**30}\n3 4,-5\n", NUMBERS,
         [([1, 2], [pytest.approx(1e30)]), ([3, 4], [-5])]),
        ("carriage returns alone", ".csv", "x,y\r1 2,a\r3 4,b\r", {}, PAIRS),
        ("carriage returns alone in a tsv", ".tsv", "x\ty\r1 2\ta\r3 4\tb", {}, PAIRS),
        ("carriage returns alone in lines of json", ".jsonl", '{"x":[1,2],"y":"a"}\r{"x":[3,4],"y":"b"}\r', {}, PAIRS),
        ("a byte order mark", ".csv", b"\xef\xbb\xbfx,y\n1 2,a\n3 4,b\n", {}, PAIRS),
        ("a byte order mark before json", ".jsonl", b'\xef\xbb\xbf{"x":[1,2],"y":"a"}\n{"x":[3,4],"y":"b"}\n', {},
         PAIRS),
        ("separators at the ends of rows", ".csv", "x,y\n1 2,a,\n3 4,b,,\n", {}, PAIRS),
        ("separators at the ends of all lines", ".csv", "x,y,,\n1 2,a,,\n3 4,b,,\n", {}, PAIRS),
        ("a column without a name", ".csv", ",x,y\n0,1 2,a\n1,3 4,b\n", {}, PAIRS),
        ("a row that ends early, behind what is asked for", ".csv", "x,y,z\n1 2,a,5\n3 4,b\n", {}, PAIRS),
        ("blank lines", ".csv", "\nx,y\n1 2,a\n\n  \n3 4,b\n\n", {}, PAIRS),
        ("a line separator in a class", ".csv", "x,y\n1 2,a\u2028\n3 4,b\n", {}, [([1, 2], "a\u2028"), ([3, 4], "b")]),
    ]],
)  # fmt: skip
def test_an_odd_table_is_read_rightly(tmp_path, ending, content, options, expected):
    assert rows_of(table(tmp_path, ending, content, options)) == expected


@pytest.mark.parametrize(
    ("ending", "content", "options", "expected"),
    [pytest.param(ending, content, options, expected, id=name) for name, ending, content, options, expected in [
        ("a target with a comma", ".csv", 'x,y\n1 2,"3,14"\n', NUMBERS,
         "data.label='y': train row 0 holds '3,14': decimal commas, or commas between numbers? write 3.14, or [3, 14]"),
        ("decimal commas, then a list", ".csv", 'x,y\n"0,5 1",a\n"1,2,3",b\n', {},
         "data.sequence='x': train row 1 holds '1,2,3'"),
        ("thousands", ".csv", 'x,y\n1 2,7\n1 2,"1,234"\n', NUMBERS,
         "data.label='y': train row 1 holds '1,234': decimal"),
        ("thousands and fractions", ".csv", 'x,y\n1 2,"1,234.5"\n', NUMBERS,
         "data.label='y': train row 0 holds '1,234.5'"),
        ("thousands in a sequence", ".csv", 'x,y\n"1,234 2,345",a\n', {},
         "data.sequence='x': train row 0 holds '1,234 2,345'"),
        ("points and decimal commas", ".csv", 'x,y\n"0.5 1,25",a\n', {},
         "data.sequence='x': train row 0 holds '0.5 1,25'"),
        ("a comma beside a blank, and one that is not", ".csv", 'x,y\n"1, 2,5",a\n', {}, "train row 0 holds '1, 2,5'"),
        ("blanks between thousands that do not break", ".csv", "x,y\n1 2,1\u00a0234\n", NUMBERS,
         "train row 0 holds '1\\xa0234'"),
        ("lines of a csv that quotes swallow", ".csv", 'x,y\n"1 2,a\n3 4,b\n5 6",a\n', {},
         "t.csv': quotes around lines 2 to 4, each of which would be a row"),
        ("lines of a tsv that quotes swallow, and a short one", ".tsv", 'x\ty\nc\n"a\ta\nb"\tb\n', TEXTS,
         "quotes around lines 3 to 4"),
        ("a quote that does not end among numbers", ".csv", 'x,y\n1 2,a\n"3 4,b\n', {},
         "train row 1 holds '\"3', which is no"),
        ("a quote that ends early", ".csv", 'x,y\n"1 2"3,a\n"4,5",b\n', {}, "t.csv': line 2 can't be read ("),
        ("numbers as classes", ".csv", "x,y\n1 2,0.5\n2 3,0.7\n1 3,0.9\n", {},
         "data.label='y': train row 0 has one of 3 numbers in 3 rows; data.problem=regression predicts numbers"),
        ("whole numbers as classes", ".jsonl", '{"x":[1,2],"y":112}\n{"x":[3,4],"y":118}\n{"x":[5,6],"y":132}\n', {},
         "data.label='y': train row 0 has one of 3 numbers in 3 rows; data.problem=regression"),
        ("a fraction among whole numbers", ".jsonl", '{"x": [1, 2], "y": 1}\n{"x": [3, 4], "y": 1.5}\n', {},
         "data.label='y': train row 1 holds 1.5; a label must be a whole number or a string; data.problem=regression"),
        ("a string among numbers", ".jsonl", '{"x": [1, 2], "y": 0}\n{"x": [3, 4], "y": "b"}\n', {},
         "data.label='y': train row 1 holds 'b', of another type than 0 in rows before"),
        ("a number among strings", ".json", '[{"x": [1, 2], "y": "b"}, {"x": [3, 4], "y": 1}]', {},
         "train row 1 holds 1, of another"),
        ("a number among strings, late", ".jsonl", '{"x":[1,2],"y":"b"}\n' * 2500 + '{"x":[3,4],"y":1}\n', {},
         "train row 2500 holds 1"),
        ("no number among numbers", ".csv", "x,y\n1 2,0\n3 4,nan\n5 6,1\n", {},
         "train row 1 has no value: 'nan' among whole"),
        ("one class in two spellings", ".csv", "x,y\n1 2, a\n3 4,a\n", {},
         "train row 1 has the label 'a', and others ' a'"),
        ("one number in two spellings", ".csv", "x,y\n1 2,1\n3 4,1.0\n", {},
         "train row 1 has the label '1.0', and others '1'"),
        ("nothing to predict", ".csv", "x,y\n1 2,\n3 4,2\n", NUMBERS, "data.label='y': train row 0 has no value"),
        ("nan to predict", ".csv", "x,y\n1 2,1\n3 4,nan\n", NUMBERS, "data.label='y': train row 1 holds nan"),
        ("null to predict", ".jsonl", '{"x": [1, 2], "y": 1}\n{"x": [3, 4], "y": null}\n', NUMBERS,
         "train row 1 has no value"),
        ("infinity", ".csv", "x,y\n1 inf,a\n", {}, "data.sequence='x': train row 0 holds inf"),
        ("hexadecimal", ".csv", "x,y\n1 2,a\n0x10 2,b\n", {}, "train row 1 holds '0x10', which is not a number"),
        ("true as a number", ".csv", "x,y\ntrue 2,a\n", {}, "train row 0 holds 'true', which is not a number"),
        ("dates to predict", ".csv", "x,y\n1 2,2020-01-02\n", NUMBERS, "train row 0 holds '2020-01-02', which is not"),
        ("per cent", ".csv", "x,y\n1 2,5%\n", NUMBERS, "data.label='y': train row 0 holds '5%', which is not a number"),
        ("another minus", ".csv", "x,y\n\u22121 2,a\n", {}, "data.sequence='x': train row 0 holds '\u22121', which"),
        ("apostrophes for quotes", ".csv", "x,y\n'1 2',a\n", {}, "data.sequence='x': train row 0 holds \"'1\", which"),
        ("UTF-16", ".csv", "x,y\n1 2,a\n".encode("utf-16"), {}, "t.csv: not UTF-8: byte 0 is 0xff"),
        ("UTF-16 without a mark", ".csv", "x,y\n1 2,a\n".encode("utf-16-le"), {}, "t.csv': line 1 has a character NUL"),
        ("NUL", ".csv", "x,y\n1 2,a\n3 4,a\0b\n", {}, "t.csv': line 3 has a character NUL: must be text in UTF-8"),
        ("a zip named csv", ".csv", b"PK\x03\x04\x14\x00\x06\x00", {}, "t.csv': line 1 has a character NUL"),
        ("a row too long", ".csv", "x,y\n1 2,a\n3 4,b,c\n", {},
         "t.csv': line 3 has 3 values for 2 columns; a sequence with"),
        ("a row too long behind several lines", ".csv", 'x,y\n"1\n2",a\n3 4,b,c\n', {},
         "t.csv': line 4 has 3 values for 2"),
        ("a row too short", ".csv", "x,z,y\n1 2,5,a\n3 4,b\n", {}, "data.label='y': train row 1 has no value"),
        ("two columns of a name", ".csv", "x,y,x\n1 2,a,1 2\n", {}, "t.csv': two columns are called 'x'"),
        ("no line of names", ".csv", "1 2,a\n3 4,b\n", {},
         "data.sequence='x': allowed are 1 2, a (the columns of train)"),
        ("a remark above", ".csv", "# mine\nx,y\n1 2,a\n", {}, "t.csv': line 2 has 2 values for 1 columns"),
        ("a remark among the rows", ".csv", "x,y\n1 2,a\n# old, bad\n", {}, "data.sequence='x': train row 1 holds '#'"),
        ("a semicolon in one row", ".csv", "x,y\n1 2;a\n3 4,b\n", {}, "data.label='y': train row 0 has no value"),
        ("a separator named above", ".csv", "sep=;\nx;y\n1 2;a\n", {}, "data.sequence='x': allowed are sep="),
        ("separators alone", ".csv", "x,y\n1 2,a\n,\n", {}, "data.sequence='x': train row 1 is empty"),
        ("a carriage return within a row", ".csv", "x,y\n1 2,a\rb\n", {}, "data.label='y': train row 1 has no value"),
        ("a key twice in a row", ".jsonl", '{"x": [1, 2], "x": [3], "y": 0}\n{"x": [1, 2], "y": 0}\n', {},
         "Column(/x) was specified twice in row 0"),
    ]],
)  # fmt: skip
def test_an_odd_table_is_refused_by_its_row(tmp_path, ending, content, options, expected, capfd):
    with pytest.raises(RecurlabError) as caught:
        rows_of(table(tmp_path, ending, content, options))
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)
    assert capfd.readouterr().err == ""


def test_commas_that_tell_more_in_later_rows_are_refused_rather_than_guessed(tmp_path):
    rows = ['"1,2",a\n'] * 1500 + ['"0,5 0,25",b\n']  # lists of two numbers, for all that the first ones say
    with pytest.raises(RecurlabError, match="train row 1500 holds '0,5 0,25': decimal commas, or"):
        rows_of(table(tmp_path, ".csv", "x,y\n" + "".join(rows), {}))


def test_rows_and_the_reading_of_quotes_are_told(tmp_path):
    lines = [f"{'ab'[n % 2]}\tmessage {n}" for n in range(500)]
    lines[100], lines[103] = 'a\t"so it begins', 'b\tand ends"'
    data = table(tmp_path, ".tsv", "\n".join(["y\tx", *lines]) + "\n", TEXTS)
    said = "500 rows; quotes stand for themselves, around fields they would take lines 102 to 105 into a field"
    assert "train: 500 rows; lengths 9 to 13, median 11" in data.notes
    assert f"t.tsv: {said}" in data.notes
    (tmp_path / "t.tsv").unlink()
    data = table(tmp_path, ".csv", 'x,y\n"a\nb",1\nc,0\n', TEXTS)
    assert "t.csv: 1 of 2 rows have line ends within quotes" in data.notes


def test_numbers_as_classes_are_told(tmp_path):
    data = table(tmp_path, ".csv", "x,y\n" + "1 2,0.5\n3 4,0.75\n5 6,1.5\n" * 3, {})
    assert data.notes[-1] == "3 classes: 0.5, 0.75, 1.5; data.problem=regression predicts numbers"
