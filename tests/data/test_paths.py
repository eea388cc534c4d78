"""A path is the file of that very name, whatever letters it has: no pattern, no variable, nobody's home."""

import json
import os

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from recurlab.data.dataset import Dataset
from recurlab.data.hub import load_hub
from recurlab.data.nesting import deepest
from recurlab.errors import RecurlabError, path_of

MINE, OTHERS = 7.0, 5.0
# With what each would be read for.
NAMES = {
    "data[1]": "data1", "q?": "qq", "star*": "starry", "[old] x": "o x", "**": "both", "[!a]": "b", "~name": "name",
    "$KIND": "data", "a::b": "a", "a=b": "a", "{a,b}": "a", "it's": "its", 'say "hi"': "say hi", "50%20a": "50 a",
    "a#b": "a", "-x": "x", "a\nb": "a", "日本": "x", " a, b ": "a", "a\\b": "ab", "@x": "x", "..a": "a",
}  # fmt: skip


@pytest.fixture(autouse=True)
def _cache(tmp_path_factory, monkeypatch):
    """Nothing is left in the user's caches."""
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.mktemp("cache"))
    monkeypatch.setenv("RECURLAB_CACHE", str(tmp_path_factory.mktemp("recurlab")))
    monkeypatch.setenv("KIND", "data")


def write(path, value):
    """Write a table of 12 rows, whose sequences are of one number."""
    path.parent.mkdir(parents=True, exist_ok=True)
    sequences, labels = [[value, value]] * 12, [0, 1] * 6
    match path.suffix.lower():
        case ".parquet":
            pq.write_table(pa.table({"x": sequences, "label": labels}), path)
        case ".json" | ".jsonl":
            rows = ({"x": x, "label": label} for x, label in zip(sequences, labels, strict=True))
            path.write_text("\n".join(map(json.dumps, rows)))
        case ending:
            comma = "\t" if ending == ".tsv" else ","
            rows = (f"{value} {value}{comma}{label}" for label in labels)
            path.write_text("\n".join([f"x{comma}label", *rows]))


def read(**where):
    inputs = Dataset(sequence="x", **where).split("train", 0, 0).inputs
    assert (inputs == inputs[0]).all()
    return float(inputs[0, 0])


@pytest.mark.parametrize("name", NAMES)
def test_a_file_of_any_name_is_read_and_not_its_neighbour(tmp_path, monkeypatch, name):
    ending = [".csv", ".parquet"][len(name) % 2]
    write(tmp_path / f"{name}{ending}", MINE)
    write(tmp_path / f"{NAMES[name]}{ending}", OTHERS)
    monkeypatch.chdir(tmp_path)
    assert read(path=f"{name}{ending}") == MINE
    assert read(path=str(tmp_path), train=name) == MINE


@pytest.mark.parametrize("name", ["data[1]", "[old] x", "~name", "$KIND", "a::b", "a=b"])
def test_so_is_one_in_a_folder_of_any_name(tmp_path, monkeypatch, name):
    write(tmp_path / name / "t.csv", MINE)
    write(tmp_path / NAMES[name] / "t.csv", OTHERS)
    (tmp_path / "link.csv").symlink_to(tmp_path / name / "t.csv")
    monkeypatch.chdir(tmp_path)
    for path in (f"{name}/t.csv", f"{name}/../{name}/t.csv", "link.csv"):
        assert read(path=path) == MINE
    assert read(path=f"{name}/", train="t") == MINE


@pytest.mark.parametrize("ending", ["CSV", "Tsv", "PARQUET", "JSON", "Jsonl"])
def test_an_ending_may_be_written_in_capitals(tmp_path, ending):
    write(tmp_path / f"data.{ending}", MINE)
    assert read(path=str(tmp_path / f"data.{ending}")) == MINE
    assert read(path=str(tmp_path), train="data") == MINE


def test_a_pattern_is_one_where_there_is_no_file_of_that_name(tmp_path):
    for name in ("a[1]", "a[2]", "a1"):
        write(tmp_path / f"{name}.csv", OTHERS if name == "a1" else MINE)
    assert read(path=str(tmp_path), train="a[*") == MINE
    with pytest.raises(RecurlabError, match=r"^data\.train='\*\*x': (no pattern of files|.*allowed are)"):
        read(path=str(tmp_path), train="**x")


def test_what_a_link_leads_to_is_read_anew_when_it_has_changed(tmp_path):
    write(tmp_path / "[1].csv", OTHERS)
    assert read(path=str(tmp_path / "[1].csv")) == OTHERS
    write(tmp_path / "[1].csv", MINE)
    os.utime(tmp_path / "[1].csv", ns=(1, 1))
    assert read(path=str(tmp_path / "[1].csv")) == MINE


def test_a_folder_that_the_datasets_library_would_read_as_a_pattern_is_refused(tmp_path):
    write(tmp_path / "[old]" / "data" / "train-0.parquet", MINE)
    write(tmp_path / "o" / "data" / "train-0.parquet", OTHERS)
    for load in (lambda path: read(path=path), lambda path: load_hub("data.hub", path)):
        with pytest.raises(RecurlabError, match=r"^data\.\w+='.*\[old\]': a folder .* can't have '\[' in its path$"):
            load(str(tmp_path / "[old]"))


def test_home_is_a_tilde_and_a_slash(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "~root").mkdir()
    paths = {"~": "/home/me", "~/a": "/home/me/a", "~name.csv": "~name.csv", "~root/a": "~root/a", "./~x/a": "~x/a"}
    assert {given: str(path_of("key", given)) for given in paths} == paths
    with pytest.raises(RecurlabError, match=r"^key='~no_such_user/a': there can be no such"):
        path_of("key", "~no_such_user/a")


@pytest.mark.parametrize(
    ("text", "depth"),
    [("", 0), ('{"x": [[1, 2]]}\n' * 3, 3), ('{"x": "[[[", "y": "\\"[["}', 1), ("]" * 9 + "[[", 2), ("[" * 70, 70),
     ('["' + "[" * 3_000_000 + '"' + "[" * 9, 10), ('"\\\\\\"[[["[[', 2)],
)  # fmt: skip
def test_how_deep_lists_stand_in_each_other(tmp_path, text, depth):
    (tmp_path / "x.json").write_text(text)
    assert deepest(tmp_path / "x.json") == depth


@pytest.mark.parametrize("text", ["[" * 100_000, '{"x":' + "[" * 100_000 + "]" * 100_000 + "}\n", '{"a":' * 100_000])
@pytest.mark.parametrize("before", ["", '{"x": [1, 2], "label": 0}\n'])
def test_lists_in_lists_without_end_are_one_line(tmp_path, text, before):
    (tmp_path / "x.jsonl").write_text(before + text)
    with pytest.raises(RecurlabError, match=r"^data\.path='.*': lists in lists of more than 64 levels$"):
        read(path=str(tmp_path / "x.jsonl"))


def test_columns_without_end_are_counted_once(tmp_path):
    (tmp_path / "x.csv").write_text(",".join([*map(str, range(199_999)), "0"]) + "\n1\n")
    with pytest.raises(RecurlabError, match="two columns are called '0'"):
        read(path=str(tmp_path / "x.csv"))


@pytest.mark.parametrize("kind", ["pipe", "hole"])
@pytest.mark.parametrize("ending", [".csv", ".jsonl", ".parquet", ".txt"])
def test_what_is_no_file_of_a_size_is_not_waited_for(recurlab, tmp_path, kind, ending):
    path = tmp_path / f"x{ending}"
    os.mkfifo(path) if kind == "pipe" else path.touch()
    if kind == "hole":
        os.truncate(path, 2**42)
    problem = ["data=text", "data.dir=.", f"data.train=x{ending}"]
    words = problem if ending == ".txt" else ["data=dataset", f"data.path=x{ending}", "data.sequence=x"]
    code, _, said = recurlab("train", *words)
    assert (code, said.count("\n")) == (2, 1)
    assert f"x{ending}" in said
