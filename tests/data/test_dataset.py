import json
import os
import time
from pathlib import Path

import numpy as np
import pyarrow
import pytest
from pyarrow import parquet

from recurlab.data.dataset import Dataset
from recurlab.data.module import DataModule
from recurlab.errors import RecurlabError

SEQUENCES = [[0.5], [1.0, -2.0], [3.0, 4.5, 6.0], [7.0], [8.0, 9.0], [1.5, 2.5], [0.25, 8.0], [1.0, 1.0]]
LABELS = ["b", "a", "b", "a", "a", "b", "a", "b"]


@pytest.fixture(autouse=True)
def _cache(tmp_path_factory, monkeypatch):
    """Nothing is left in the user's cache of data sets."""
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.mktemp("cache"))


def quoted(value):
    text = " ".join(map(str, value)) if isinstance(value, list) else str(value)
    return '"' + text.replace('"', '""') + '"'


def write(path: Path, **columns) -> str:
    """Write a table in the format of its ending; return its path."""
    rows = [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
    if path.suffix in (".csv", ".tsv"):
        separator = "," if path.suffix == ".csv" else "\t"
        lines = [separator.join(columns), *(separator.join(map(quoted, row.values())) for row in rows)]
        path.write_text("\n".join(lines) + "\n")
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    elif path.suffix == ".json":
        path.write_text(json.dumps(rows))
    else:
        parquet.write_table(pyarrow.table(columns), path)
    return str(path)


def whole(data: Dataset):
    """Return the sequences and targets of all splits of one file in one order, that of their values."""
    pairs = []
    for name in ("train", "valid", "test"):
        part = data.split(name, 0, 0)
        parts = np.split(part.inputs, np.cumsum(part.lengths)[:-1])
        pairs += [(x.tolist(), y.tolist()) for x, y in zip(parts, part.targets, strict=True)]
    return sorted(pairs)


@pytest.mark.parametrize("ending", [".csv", ".tsv", ".parquet", ".json", ".jsonl"])
def test_a_file_of_each_format_gives_the_same_sequences_and_classes(tmp_path, ending, capfd):
    import datasets

    datasets.enable_progress_bars()
    path = write(tmp_path / f"mine{ending}", seq=SEQUENCES, kind=LABELS)
    data = Dataset(path=path, sequence="seq", label="kind", valid_size=2, test_size=3)
    assert whole(data) == sorted(([[x] for x in s], "ab".index(y)) for s, y in zip(SEQUENCES, LABELS, strict=True))
    assert (data.input_size, data.output_size, data.names, data.symbols) == (1, 2, ("a", "b"), False)
    assert [len(data.split(name, 0, 0).lengths) for name in ("train", "valid", "test")] == [3, 2, 3]
    for name in ("train", "valid", "test"):
        inputs, lengths, targets, per_step = data.split(name, 5, 7)
        assert (inputs.dtype, lengths.dtype, targets.dtype, per_step) == (np.float32, np.int64, np.int64, False)
        assert lengths.sum() == len(inputs)
    assert capfd.readouterr().err == ""  # no bar for what takes no time
    assert not datasets.are_progress_bars_disabled()  # others may still want theirs


@pytest.mark.parametrize("text", ["1 2.5 -3e2", "1,2.5,-3e2", "1, 2.5 ,-3e2", "[1, 2.5, -300]", " 1  2.5\t-300.0 "])
def test_numbers_in_a_string_may_stand_between_blanks_or_commas(tmp_path, text):
    path = write(tmp_path / "mine.csv", seq=[text] * 4, label=[0, 1, 0, 1])
    assert whole(Dataset(path=path, sequence="seq"))[0][0] == [[1], [2.5], [-300]]


def test_a_list_of_lists_holds_the_channels_of_each_step(tmp_path):
    rows = [[[1, 2, 3], [4, 5, 6.5]], [[7, 8, 9]], [[0, 0, 1]], [[2, 2, 2], [3, 3, 3], [4, 4, 4]]]
    for ending in (".jsonl", ".parquet"):
        data = Dataset(path=write(tmp_path / f"mine{ending}", x=rows, label=[0, 1, 1, 0]), sequence="x")
        assert data.input_size == 3
        assert sorted(x for x, _ in whole(data)) == sorted(rows)


def test_arrays_of_a_fixed_shape_are_read(tmp_path):
    import datasets

    arrays = np.random.default_rng(0).integers(0, 9, (5, 4, 3)).astype(np.float32)
    features = datasets.Features(x=datasets.Array2D((4, 3), "float32"), label=datasets.Value("int8"))
    rows = datasets.Dataset.from_dict({"x": list(arrays), "label": [0, 1, 0, 1, 2]}, features=features)
    rows.to_parquet(tmp_path / "mine.parquet")
    data = Dataset(path=str(tmp_path / "mine.parquet"), sequence="x")
    assert sorted(x for x, _ in whole(data)) == sorted(arrays.tolist())
    assert data.output_size == 3


@pytest.mark.parametrize("ending", [".csv", ".parquet"])
def test_several_columns_are_channels_in_the_order_given(tmp_path, ending):
    x, y = [[1, 2], [3], [4, 5, 6]], [[10, 20], [30], [40, 50, 60]]
    path = write(tmp_path / f"mine{ending}", x=x, other=[9, 9, 9], y=y, label=[0, 1, 0])
    data = Dataset(path=path, sequence=["y", "x"])
    assert data.input_size == 2
    assert [s for s, _ in whole(data)] == [[[10, 1], [20, 2]], [[30, 3]], [[40, 4], [50, 5], [60, 6]]]


@pytest.mark.parametrize("ending", [".csv", ".jsonl"])
def test_steps_beyond_the_length_are_padding_whatever_they_hold(tmp_path, ending):
    padded = [[1, 2, float("nan")], [3, float("nan"), float("nan")], [4, 5, 6]]
    path = write(tmp_path / f"mine{ending}", x=padded, n=[2, 1, 3], label=[0, 1, 0])
    assert [s for s, _ in whole(Dataset(path=path, sequence="x", length="n"))] == [[[1], [2]], [[3]], [[4], [5], [6]]]


def test_nothing_in_a_csv_is_taken_for_a_missing_value(tmp_path):
    path = write(tmp_path / "mine.csv", x=["1 2"] * 4, label=["NA", "None", "null", "nan"])
    assert Dataset(path=path, sequence="x").names == ("NA", "None", "nan", "null")


def test_a_csv_as_spreadsheets_write_it_is_read(tmp_path):
    (tmp_path / "mine.csv").write_bytes("\ufeffx,label\r\n1 2,ä\r\n\r\n3 4,ö\r\n5 6,ä\r\n".encode())
    data = Dataset(path=str(tmp_path / "mine.csv"), sequence="x")
    assert whole(data) == [([[1], [2]], 0), ([[3], [4]], 1), ([[5], [6]], 0)]
    assert data.names == ("ä", "ö")


def test_whole_numbers_that_become_fractions_late_in_a_file_stay_exact(tmp_path):
    rows = [[1, 2]] * 2000 + [[0.5, 0.25]] * 3
    data = Dataset(path=write(tmp_path / "mine.jsonl", x=rows, label=[0, 1] * 1001 + [0]), sequence="x")
    assert [s for s, _ in whole(data)][:4] == [[[0.5], [0.25]]] * 3 + [[[1], [2]]]


def test_rows_in_several_batches_and_files_keep_their_order(tmp_path):
    rng = np.random.default_rng(1)
    rows = [rng.integers(0, 99, n).tolist() for n in rng.integers(1, 5, 2345)]
    for part, (start, stop) in {"a": (0, 1100), "b": (1100, 2345)}.items():
        write(tmp_path / f"part-{part}.csv", x=rows[start:stop], label=[n % 2 for n in range(start, stop)])
    data = Dataset(path=str(tmp_path), train="part-*.csv", valid="part-a.csv", test="part-b", sequence="x")
    train, valid, test = (data.split(name, 0, 0) for name in ("train", "valid", "test"))
    assert train.inputs[:, 0].tolist() == [x for row in rows for x in row]
    assert train.lengths.tolist() == [len(row) for row in rows]
    assert train.targets.tolist() == [n % 2 for n in range(2345)]
    assert [len(valid.lengths), len(test.lengths)] == [1100, 1245]
    assert np.array_equal(test.lengths, train.lengths[1100:])


def test_a_changed_file_is_read_anew(tmp_path):
    path = write(tmp_path / "mine.csv", x=["1 2", "3 4", "5 6"], label=[0, 1, 0])
    assert len(whole(Dataset(path=path, sequence="x"))) == 3
    write(tmp_path / "mine.csv", x=["1 2", "3 4", "5 6", "7 9"], label=[0, 1, 0, 2])
    os.utime(path, (time.time() + 2,) * 2)
    assert whole(Dataset(path=path, sequence="x"))[-1] == ([[7], [9]], 2)


@pytest.mark.parametrize("labels", [[0, 1, 2, 1], ["0", "1", "2", "1"], [False, True, True, False]])
def test_whole_numbers_are_the_classes_themselves(tmp_path, labels):
    path = write(tmp_path / "mine.parquet", x=[[n, n] for n in range(4)], label=labels)
    data = Dataset(path=path, sequence="x")
    assert [y for _, y in whole(data)] == [int(label) for label in labels]
    assert data.names == ("0", "1", "2")[: data.output_size]


def test_ten_classes_in_a_csv_are_in_the_order_of_numbers(tmp_path):
    path = write(tmp_path / "mine.csv", x=[f"{n} 0" for n in range(12)], label=range(12))
    assert [y for _, y in whole(Dataset(path=path, sequence="x"))] == list(range(12))


def test_names_of_a_class_label_keep_their_order_and_unused_ones(tmp_path):
    import datasets

    names = ["zebra", "ant", "never"]
    features = datasets.Features(x=datasets.List(datasets.Value("float32")), label=datasets.ClassLabel(names=names))
    for split, labels in (("train", [0, 1, 0]), ("test", [1, 1])):
        rows = {"x": [[n, n] for n in range(len(labels))], "label": labels}
        datasets.Dataset.from_dict(rows, features=features).to_parquet(tmp_path / f"{split}.parquet")
    data = Dataset(path=str(tmp_path), sequence="x", valid_size=1)
    assert (data.names, data.output_size) == (tuple(names), 3)
    assert data.split("test", 0, 0).targets.tolist() == [1, 1]


@pytest.mark.parametrize(("labels", "width"), [([0.5, -1.0, 2.0], 1), ([[0.5, 1], [2, 3], [4, -5]], 2)])
@pytest.mark.parametrize("ending", [".csv", ".parquet", ".jsonl"])
def test_regression_predicts_a_number_or_a_list_of_them(tmp_path, labels, width, ending):
    kind = {"label": labels if width == 1 else [list(map(float, label)) for label in labels]}
    path = write(tmp_path / f"mine{ending}", x=[[1, 2], [3], [4, 5]], **kind)
    data = Dataset(path=path, sequence="x", problem="regression")
    assert (data.problem, data.output_size, data.names) == ("regression", width, ())
    assert data.split("train", 0, 0).targets.dtype == np.float32
    assert [np.ravel(y).tolist() for _, y in whole(data)] == [np.ravel(label).tolist() for label in labels]


def test_chance_is_that_of_an_answer_that_ignores_the_sequence(tmp_path):
    write(tmp_path / "train.csv", x=["1 2"] * 5, label=list("aabbb"), y=[0, 0, 1, 2, 2])
    write(tmp_path / "test.csv", x=["1 2"] * 4, label=list("abaa"), y=[1, 3, 1, 1])
    same = {"path": str(tmp_path), "sequence": "x", "valid": "train"}
    assert Dataset(**same).chance == {"accuracy": 0.25}
    assert Dataset(**same, label="y", problem="regression").chance == {"mse": 1.0}


def test_put_aside_rows_are_fixed_by_their_own_seed(tmp_path):
    path = write(tmp_path / "mine.csv", x=[f"{n} 0" for n in range(30)], label=[0, 1] * 15)
    first, again, other = (
        Dataset(path=path, sequence="x", valid_size=7, test_size=0.2, split_seed=split_seed) for split_seed in (0, 0, 1)
    )
    for name, count in (("train", 17), ("valid", 7), ("test", 6)):
        assert len(first.split(name, 0, 0).lengths) == count
        assert np.array_equal(first.split(name, 0, 0).inputs, again.split(name, 3, 4).inputs)
        assert not np.array_equal(first.split(name, 0, 0).inputs, other.split(name, 0, 0).inputs)
    assert [int(x[0][0]) for x, _ in whole(first)] == list(range(30))


@pytest.mark.parametrize(
    ("level", "texts", "expected"),
    [("word", ["to be", "or not", "to be"], [["to", "be"], ["or", "not"], ["to", "be"]]),
     ("word", [["to", "be"], ["or"], ["to"]], [["to", "be"], ["or"], ["to"]]),
     ("word", ["to\nbe ", "to be", "be to\n"], [["to", "<eos>", "be"], ["to", "be"], ["be", "to", "<eos>"]]),
     ("char", ["öh", " a", "ö\n"], [["ö", "h"], [" ", "a"], ["ö", "\n"]])],
)  # fmt: skip
def test_texts_are_symbols_of_the_training_rows(tmp_path, level, texts, expected):
    write(tmp_path / "train.jsonl", text=texts, label=[0, 1, 0])
    data = Dataset(path=str(tmp_path), valid="train", test="train", sequence="text", level=level)
    inputs, lengths, _, _ = data.split("test", 0, 0)
    assert (inputs.dtype, inputs.ndim, data.symbols) == (np.int64, 1, True)
    assert data.input_size == len(data.vocabulary.names) > inputs.max()
    found = np.split(np.array(data.vocabulary.names)[inputs], np.cumsum(lengths)[:-1])
    assert [row.tolist() for row in found] == expected
    if isinstance(texts[0], str):
        assert data.vocabulary.encode(texts[0]) == inputs[: lengths[0]].tolist()


def test_rare_words_are_unknown_and_so_are_those_that_training_lacks(tmp_path):
    write(tmp_path / "train.csv", text=["a a b", "a c", "b a"], label=[0, 1, 0])
    write(tmp_path / "test.csv", text=["a c", "z b"], label=[1, 1])
    data = Dataset(path=str(tmp_path), valid="train", sequence="text", level="word", min_count=2)
    assert set(data.vocabulary.names) == {"<unk>", "a", "b", "<eos>"}
    assert data.vocabulary.decode(data.split("test", 0, 0).inputs) == "a <unk> <unk> b"


def test_the_vocabulary_has_nothing_from_rows_put_aside(tmp_path):
    path = write(tmp_path / "mine.csv", text=[f"same w{n}" for n in range(20)], label=[0, 1] * 10)
    options = {"path": path, "sequence": "text", "level": "word", "valid_size": 5, "test_size": 5}
    with pytest.raises(RecurlabError, match=r"train row \d+ has 'w\d+', which no training row has"):
        Dataset(**options).split("train", 0, 0)
    data = Dataset(**options, min_count=2)
    assert set(data.vocabulary.names) == {"same", "<unk>", "<eos>"}


def test_the_length_of_a_text_counts_symbols(tmp_path):
    path = write(tmp_path / "train.csv", text=["abc", "ab"], n=[2, 1], label=[0, 1])
    same = {"path": str(Path(path).parent), "valid": "train", "test": "train", "sequence": "text", "length": "n"}
    assert Dataset(**same, level="char").split("test", 0, 0).lengths.tolist() == [2, 1]


def test_standardising_takes_mean_and_deviation_from_the_training_rows(tmp_path):
    x, y = [[1.0, 5], [3], [7, 2, 4]], [[10.0, 10], [10], [10, 10, 10]]
    write(tmp_path / "train.jsonl", x=x, y=y, label=[0, 1, 0])
    write(tmp_path / "test.jsonl", x=[[3.0, 9.0]], y=[[10.0, 11.0]], label=[0])
    plain, scaled = (
        Dataset(path=str(tmp_path), valid="train", sequence=["x", "y"], standardise=on) for on in (False, True)
    )
    known = plain.split("train", 0, 0).inputs
    np.testing.assert_allclose(scaled.split("train", 0, 0).inputs[:, 0].mean(), 0, atol=1e-6)
    expected = (plain.split("test", 0, 0).inputs[:, 0] - known[:, 0].mean()) / known[:, 0].std()
    np.testing.assert_allclose(scaled.split("test", 0, 0).inputs[:, 0], expected, rtol=1e-5)
    assert scaled.split("test", 0, 0).inputs[:, 1].tolist() == [0, 1]  # constant in training: only shifted


def test_notes_tell_rows_lengths_and_classes(tmp_path):
    path = write(tmp_path / "mine.csv", x=["1 2 3"] * 5, label=list("ababa"))
    notes = Dataset(path=path, sequence="x", valid_size=2, test_size=1).notes
    assert notes[0] == "train: 2 rows; lengths 3 to 3, median 3"
    assert notes[1].startswith("valid: 2 rows, put aside from train")
    assert notes[-1] == "2 classes: a, b"


def test_batches_are_made_of_it(tmp_path):
    path = write(tmp_path / "mine.jsonl", x=SEQUENCES, label=LABELS)
    data = DataModule(Dataset(path=path, sequence="x", batch_size=2), seed=0)
    data.setup()
    batches = list(data.train_dataloader())
    assert sum(len(batch.targets) for batch in batches) == 6
    assert all(batch.inputs.shape == (len(batch.targets), max(batch.lengths), 1) for batch in batches)


def test_a_csv_is_trained_on_from_the_command_line(recurlab, tmp_path):
    write(tmp_path / "mine.csv", x=SEQUENCES * 3, y=SEQUENCES * 3, kind=LABELS * 3)
    code, output, errors = recurlab(
        "train", "data=dataset", "data.path=mine.csv", "data.sequence=[x,y]", "data.label=kind", "data.batch_size=4",
        "model.hidden_size=5", "trainer.max_epochs=1", "trainer.accelerator=cpu", "trainer.enable_progress_bar=false",
        "backend=eager",
    )  # fmt: skip
    assert code == 0, errors
    assert "test/accuracy" in output
    assert "Generating" not in errors
