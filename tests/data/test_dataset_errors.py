import json
import os
import time
from pathlib import Path

import pyarrow
import pytest
from pyarrow import parquet

from recurlab.data.dataset import Dataset
from recurlab.errors import RecurlabError


@pytest.fixture(autouse=True)
def _cache(tmp_path_factory, monkeypatch):
    """Nothing is left in the user's cache of data sets."""
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.mktemp("cache"))


def write(path: Path, **columns) -> str:
    """Write a table in the format of its ending; return its path."""
    rows = [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
    if path.suffix == ".parquet":
        parquet.write_table(pyarrow.table(columns), path)
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        path.write_text("\n".join([",".join(columns), *(",".join(map(str, row.values())) for row in rows)]) + "\n")
    return str(path)


def message(data: Dataset) -> str:
    with pytest.raises(RecurlabError) as caught:
        data.split("train", 0, 0)
    assert "\n" not in str(caught.value)
    return str(caught.value)


ROWS = {"x": [[1, 2], [3, 4], [5, 6]], "n": [1, 2, 2], "label": [0, 1, 0]}


@pytest.mark.parametrize(
    ("changes", "options", "expected"),
    [({"x": [[1, 2], [], [5, 6]]}, {}, "data.sequence='x': train row 1 is empty, a sequence of length 0"),
     ({"x": [[1, 2], [3], None]}, {}, "data.sequence='x': train row 2 has no value"),
     ({"x": [[1, 2], [3, None], [5]]}, {}, "data.sequence='x': train row 1 holds nan, which is not a finite"),
     ({"x": [[1, 2], [3], [float("inf")]]}, {}, "data.sequence='x': train row 2 holds inf, which is not a finite"),
     ({"x": [[1, 2], [1e39], [5]]}, {}, "data.sequence='x': train row 1 holds 1e+39, which is not a finite"),
     ({"x": [[[1, 2]], [[3, 4], [5]], [[6, 7]]]}, {}, "train row 1 has a step of 1 channels, others have 2"),
     ({"x": [[[1, 2]], [[3, 4], []], [[6, 7]]]}, {}, "train row 1 has a step of 0 channels, others have 2"),
     ({"n": [[1, 2], [3], [4, 5]]}, {"sequence": ["x", "n"]}, "data.sequence='n': train row 1 has length 1, but 'x'"),
     ({"n": [[[1, 2]] * 2] * 3}, {"sequence": ["x", "n"]}, "data.sequence='n': train row 0 has 2 channels; of several"),
     ({"x": [["a"], ["b", "c"], ["d"]]}, {}, "data.sequence='x': train row 0 holds 'a', which is not a number"),
     ({"x": [["1"], ["2", "c"], ["d"]]}, {}, "data.sequence='x': train row 1 holds 'c', which is not a number"),
     ({"x": ["1 2", "3 ? 4", "5"]}, {}, "row 1 holds '?', which is not a number; for a text set data.level"),
     ({"x": ["1,2", "3,,4", "5"]}, {}, "train row 1 holds '', which is not a number"),
     ({"x": [1, 2, 3]}, {}, "data.sequence='x': each training row has one step"),
     ({"n": [1, 3, 2]}, {"length": "n"}, "data.length='n': train row 1 has 3: must be a whole number from 1 to 2"),
     ({"n": [0, 1, 2]}, {"length": "n"}, "data.length='n': train row 0 has 0: must be a whole number from 1 to 2"),
     ({"n": [1.5, 1, 2]}, {"length": "n"}, "data.length='n': train row 0 has 1.5: must be a whole number"),
     ({"n": [1, None, 2]}, {"length": "n"}, "data.length='n': train row 1 has no value"),
     ({"label": [0, 1, 7]}, {}, "train row 0 has one of 3 numbers in 3 rows; data.problem=regression predicts numbers"),
     ({"label": [0, None, 1]}, {}, "data.label='label': train row 1 has no value"),
     ({"label": ["a", "", "b"]}, {}, "data.label='label': train row 1 has no value"),
     ({"label": [0.5, 1.0, 2.0]}, {}, "train row 0 holds 0.5; a label must be a whole number or a string"),
     ({"label": [[1], [2, 3], [4]]}, {"problem": "regression"}, "train row 1 holds 2 numbers, the rows before 1"),
     ({"label": ["1", "two", "3"]}, {"problem": "regression"}, "train row 1 holds 'two', which is not a number"),
     ({}, {"sequence": "xs"}, "data.sequence='xs': allowed are x, n, label; did you mean 'x'? (the columns of train)"),
     ({}, {"label": "lable"}, "data.label='lable': allowed are x, n, label; did you mean 'label'?"),
     ({}, {"length": "m"}, "data.length='m': allowed are x, n, label"),
     ({}, {"label": "kind", "level": "char"}, "for texts without labels there is data=text"),
     ({"x": ["ab", "", "c"]}, {"level": "char"}, "data.sequence='x': train row 1 is empty, a sequence of length 0"),
     ({"x": ["ab", " \n", "c"]}, {"level": "word"}, "data.sequence='x': train row 1 is empty, a sequence of length 0"),
     ({"x": ["ab", "abc", "c"], "n": [2, 4, 1]}, {"level": "char", "length": "n"}, "train row 1 has 4: must be a"),
     ({}, {"level": "word"}, "data.level='word' needs texts or lists of words"),
     ({}, {"valid_size": 3}, "data.valid_size=3: must leave some of the 2 rows for training"),
     ({}, {"test_size": 3}, "data.test_size=3: must leave some of the 3 rows for training")],
)  # fmt: skip
@pytest.mark.parametrize("ending", [".jsonl", ".parquet"])
def test_bad_rows_and_columns_are_named(tmp_path, changes, options, expected, ending):
    path = write(tmp_path / f"mine{ending}", **{**ROWS, **changes})
    assert expected in message(Dataset(**{"path": path, "sequence": "x", **options}))


@pytest.mark.parametrize(
    ("ending", "content", "expected"),
    [(".csv", b"x,label\n1 2,a\n3 4,caf\xe9\n", "not UTF-8: byte 21 is 0xe9"),
     (".jsonl", b'{"x": [1], "label": "\xff"}\n', "not UTF-8: byte 21 is 0xff"),
     (".csv", b"", "the file is empty"),
     (".json", b"", "the file is empty"),
     (".csv", b"x,label\n", "must have a line of column names and rows below it"),
     (".csv", b"x,label\n1 2,0\n4,5,6,1\n", "line 3 has 4 values for 2 columns; a sequence with commas needs quotes"),
     (".csv", b"x,label\n1 2,a\n3 4\n5 6,b\n", "data.label='label': train row 1 has no value"),
     (".csv", b"x,label\n1 2,a\n,b\n5 6,b\n", "data.sequence='x': train row 1 is empty"),
     (".tsv", b"x,label\n1 2,a\n", "data.sequence='x': allowed are x,label (the columns of train)"),
     (".json", b'[{"x": [1, 2], "label": 0}, {"x": [1', "can't be read ("),
     (".jsonl", b'{"x": [1, 2], "label": 0}\n{"x": 1 2}\n', "can't be read ("),
     (".parquet", b"PAR1 and then nothing", "can't be read (Parquet magic bytes not found"),
     (".npz", b"PK", "ending='.npz': allowed are .csv, .tsv, .parquet, .json, .jsonl"),
     (".cvs", b"x,label\n1 2,a\n", ".csv, .tsv, .parquet, .json, .jsonl; did you mean '.csv'?"),
     (".txt", b"some text\n", "there is data=text")],
)  # fmt: skip
def test_a_file_that_cant_be_read_is_named(tmp_path, ending, content, expected, capfd):
    path = tmp_path / f"mine{ending}"
    path.write_bytes(content)
    said = message(Dataset(path=str(path), sequence="x"))
    assert expected in said
    if "allowed are x" not in said and " row " not in said:
        assert str(path) in said
    assert capfd.readouterr().err == ""  # nothing beside the one line


@pytest.mark.parametrize(
    ("test", "expected"),
    [({"x": ["1 2"], "label": ["c"]}, "data.label='label': test row 0: no training row has the label='c': allowed"),
     ({"x": ["1", "1 nan"], "label": ["a", "a"]}, "data.sequence='x': test row 1 holds nan"),
     ({"x": ["1 2"], "kind": ["a"]}, "data.label='label': allowed are x, kind (the columns of test)"),
     ({"x": ["1 2", ""], "label": ["a", "b"]}, "data.sequence='x': test row 1 is empty")],
)  # fmt: skip
def test_what_is_wrong_in_the_test_rows_alone_is_named(tmp_path, test, expected):
    write(tmp_path / "train.csv", x=["1 2", "3"], label=["a", "b"])
    write(tmp_path / "test.csv", **test)
    assert expected in message(Dataset(path=str(tmp_path), valid="train", sequence="x"))


@pytest.mark.parametrize(
    ("label", "expected"),
    [
        (2, "test row 1: no training row has the label=2: allowed are 0, 1"),
        (-1, "test row 1: no training row has the label=-1: allowed are 0, 1"),
    ],
)
def test_a_class_that_training_lacks_is_named(tmp_path, label, expected):
    write(tmp_path / "train.jsonl", x=[[1, 2]] * 4, label=[0, 1, 1, 0])
    write(tmp_path / "test.jsonl", x=[[1, 2]] * 2, label=[1, label])
    assert f"data.label='label': {expected}" in message(Dataset(path=str(tmp_path), sequence="x"))


def test_an_unlabelled_row_of_a_class_label_is_named(tmp_path):
    import datasets

    features = datasets.Features(
        x=datasets.List(datasets.Value("float32")), label=datasets.ClassLabel(names=["a", "b"])
    )
    rows = datasets.Dataset.from_dict({"x": [[1, 2]] * 3, "label": [0, 1, -1]}, features=features)
    rows.to_parquet(tmp_path / "mine.parquet")
    said = message(Dataset(path=str(tmp_path / "mine.parquet"), sequence="x"))
    assert "train row 2 has the label -1: must be a whole number from 0 to 1" in said


def test_splits_of_several_widths_are_refused(tmp_path):
    write(tmp_path / "train.jsonl", x=[[[1, 2]] * 2] * 3, label=[0.5, 1, 2])
    write(tmp_path / "test.jsonl", x=[[[1, 2, 3]]] * 2, label=[0.5, 1])
    data = Dataset(path=str(tmp_path), sequence="x", problem="regression")
    assert "data.sequence='x': test row 0 has 3 channels, the rows before have 2" in message(data)
    write(tmp_path / "test.jsonl", x=[[[1, 2]]] * 2, label=[[0.5, 1], [1, 2]])
    os.utime(tmp_path / "test.jsonl", (time.time() + 2,) * 2)
    data = Dataset(path=str(tmp_path), sequence="x", problem="regression")
    assert "data.label='label': test row 0 holds 2 numbers, the rows before 1" in message(data)


def test_a_symbol_that_training_lacks_is_named(tmp_path):
    write(tmp_path / "train.csv", text=["abc", "cab"], label=[0, 1])
    write(tmp_path / "test.csv", text=["ab", "bzb"], label=[0, 1])
    same = {"path": str(tmp_path), "valid": "train", "sequence": "text", "level": "char"}
    expected = "data.sequence='text': test row 1 has 'z', which no training row has; data.min_count=2 makes it <unk>"
    assert message(Dataset(**same)) == expected
    assert Dataset(**same, min_count=2).split("test", 0, 0).lengths.tolist() == [2, 3]


@pytest.mark.parametrize(
    ("options", "expected"),
    [({"path": "{}/mien.csv"}, "there is no such file or folder; did you mean '{}/mine.csv'?"),
     ({"path": "nowhere/mine.csv"}, "data.path='nowhere/mine.csv': there is no such file or folder"),
     ({"path": "./nowhere"}, "data.path='./nowhere': there is no such file or folder"),
     ({"path": "nobody/nothing"}, "data.path='nobody/nothing': can't be loaded (HF_HUB_OFFLINE is set; "),
     ({"path": "{}/mine.csv", "test": "other.csv"}, "data.test='other.csv': data.path='{}/mine.csv' is one file"),
     ({"path": "{}/mine.csv", "config": "en"}, "data.config='en': is for data sets of the hub"),
     ({"train": "mien.csv"}, "data.train='mien.csv': allowed are mine.csv, more.jsonl; did you mean 'mine.csv'?"),
     ({"train": "m*.parquet"}, "data.train='m*.parquet': allowed are"),
     ({"train": "m*"}, "must be of the same format as mine.csv"),
     ({"train": "mine", "valid": "moer"}, "data.valid='moer': allowed are mine.csv, more.jsonl"),
     ({}, "data.train='train': allowed are mine.csv, more.jsonl"),
     ({"path": None}, "data.path=None: must be the name of a data set on the hub, or a local file or folder"),
     ({"sequence": None}, "data.sequence=None: must be the column, or a list of columns")],
)  # fmt: skip
def test_what_is_not_there_is_said_with_what_is(tmp_path, options, expected):
    write(tmp_path / "mine.csv", x=["1 2"] * 3, label=[0, 1, 0])
    write(tmp_path / "more.jsonl", x=[[1, 2]] * 3, label=[0, 1, 0])
    given = {"path": str(tmp_path), "sequence": "x", **options}
    given["path"] = given["path"] and given["path"].replace("{}", str(tmp_path))
    assert expected.replace("{}", str(tmp_path)) in message(Dataset(**given))


def test_two_files_of_one_name_are_refused(tmp_path):
    for ending in (".csv", ".jsonl"):
        write(tmp_path / f"train{ending}", x=[[1, 2]] * 3, label=[0, 1, 0])
    assert "data.train='train': must be one of train.csv, train.jsonl" in message(
        Dataset(path=str(tmp_path), sequence="x")
    )


def test_parts_of_several_columns_are_refused(tmp_path):
    write(tmp_path / "a.csv", x=["1 2"] * 3, label=[0, 1, 0])
    write(tmp_path / "b.csv", label=[0, 1, 0], x=["1 2"] * 3)
    said = message(Dataset(path=str(tmp_path), train="*.csv", sequence="x"))
    assert said.startswith("data.train=")
    assert "b.csv': its columns must be those of a.csv" in said


@pytest.mark.parametrize(
    ("options", "expected"),
    [({"problem": "regresion"}, "did you mean 'regression'"), ({"level": "chars"}, "did you mean 'char'"),
     ({"valid_size": 0}, r"data\.valid_size=0"), ({"test_size": 2.5}, r"data\.test_size=2\.5: must be a share"),
     ({"min_count": 0}, r"data\.min_count=0"), ({"split_seed": -1}, r"data\.split_seed=-1"),
     ({"min_count": 2}, r"data\.min_count=2: is for texts"), ({"label": None}, "there is data=text"),
     ({"sequence": []}, r"data\.sequence=\[\]: must be a column"), ({"sequence": 1.5}, r"data\.sequence=1\.5"),
     ({"sequence": "x", "label": "x"}, r"data\.label='x': this column is used twice"),
     ({"sequence": ["x", "y", "x"]}, r"data\.sequence='x': this column is used twice"),
     ({"length": "label"}, r"data\.label='label': this column is used twice"),
     ({"level": "word", "sequence": ["x", "y"]}, "must be one column"),
     ({"level": "word", "standardise": True}, r"data\.standardise=True: is for numbers"),
     ({"batch_size": 0}, r"data\.batch_size=0")],
)  # fmt: skip
def test_options_out_of_range_are_refused(options, expected):
    with pytest.raises(RecurlabError, match=expected):
        Dataset(**options)
