import os
import pickle

import pytest

from recurlab.data.dataset import Dataset
from recurlab.errors import RecurlabError


@pytest.fixture(autouse=True)
def _cache(tmp_path_factory, monkeypatch):
    """Nothing is left in the user's cache of data sets."""
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.mktemp("cache"))


def test_own_splits_are_found_by_their_usual_names_and_nothing_is_put_aside(tmp_path):
    for name, count in (("train", 5), ("validation", 3), ("test", 2)):
        lines = ["x,label", *(f"{count} {n},{n % 2}" for n in range(count))]
        (tmp_path / f"{name}.csv").write_text("\n".join(lines))
    data = Dataset(path=str(tmp_path), sequence="x")
    assert [len(data.split(name, 0, 0).lengths) for name in ("train", "valid", "test")] == [5, 3, 2]
    assert not any("put aside" in note for note in data.notes)


def test_a_sequence_in_a_csv_may_be_long(tmp_path):
    long = "0.125 " * 30_000
    (tmp_path / "waves.csv").write_text("\n".join(["x,label", f"{long},0", *(f"1 {n},{n % 2}" for n in range(9))]))
    data = Dataset(path=str(tmp_path / "waves.csv"), sequence="x")
    assert max(data.split(name, 0, 0).lengths.max() for name in ("train", "valid", "test")) == 30_000


@pytest.mark.parametrize("saved", [True, False])
def test_a_folder_that_the_datasets_library_laid_out_is_read(tmp_path, saved):
    import datasets

    rows = {name: {"x": [[n, 1] for n in range(4)], "label": [0, 1, 1, 0]} for name in ("train", "dev")}
    splits = datasets.DatasetDict({name: datasets.Dataset.from_dict(columns) for name, columns in rows.items()})
    if saved:
        splits.save_to_disk(tmp_path / "mine")
    else:
        (tmp_path / "mine" / "data").mkdir(parents=True)
        for name, table in splits.items():
            table.to_parquet(tmp_path / "mine" / "data" / f"{name}-00000-of-00001.parquet")
    data = Dataset(path=str(tmp_path / "mine"), sequence="x", test_size=1)
    assert [len(data.split(name, 0, 0).lengths) for name in ("train", "valid", "test")] == [3, 4, 1]


def test_a_name_on_the_hub_is_asked_for_with_its_configuration(tmp_path, monkeypatch):
    import datasets

    asked = []
    table = datasets.Dataset.from_dict({"x": [[n, 1] for n in range(6)], "label": [0, 1] * 3})

    def load(*arguments, **options):
        asked.append((arguments, options))
        return datasets.DatasetDict(train=table, validation=table)

    monkeypatch.setattr(datasets, "load_dataset", load)
    data = Dataset(path="somebody/something", config="small", sequence="x", test_size=2)
    assert [len(data.split(name, 0, 0).lengths) for name in ("train", "valid", "test")] == [4, 6, 2]
    assert asked == [(("somebody/something",), {"name": "small"})]  # once
    with pytest.raises(RecurlabError, match=r"data\.test='tset': allowed are train, validation"):
        Dataset(path="somebody/something", sequence="x", test="tset").split("train", 0, 0)


class Evil:
    def __reduce__(self):
        return os.mkdir, ("canary",)


@pytest.mark.parametrize("name", ["train", "train.pkl", "set.py", "*.pkl"])
def test_scripts_and_pickles_in_a_folder_are_not_run(recurlab, tmp_path, name):
    folder = tmp_path / "set"
    folder.mkdir()
    (folder / "set.py").write_text("import os; os.mkdir('canary')")
    (folder / "train.pkl").write_bytes(pickle.dumps(Evil()))
    words = ["data.path=set", f'data.train="{name}"', "data.sequence=a", "data.label=b"]
    code, out, said = recurlab("train", "data=dataset", *words)
    assert (code, out, said.count("\n")) == (2, "", 1)
    assert list(tmp_path.iterdir()) == [folder]


@pytest.mark.parametrize("place", ["own.csv", "own.jsonl", "own/below/train.csv", "own/below/train.jsonl"])
def test_a_changed_file_is_read_anew_whatever_its_times(place, tmp_path):
    """`datasets` by itself gives what it has made of the file that was there before."""
    path = tmp_path / place
    path.parent.mkdir(parents=True, exist_ok=True)
    head, row = ([], '{{"wave": [{0}, {0}], "kind": {1}}}') if ".jsonl" in place else (["wave,kind"], "{0} {0},{1}")
    for value in (1, 2, 1):
        path.write_text("\n".join([*head, *(row.format(value, number % 2) for number in range(9))]) + "\n")
        os.utime(path, (1, 1))
        read = Dataset(path=str(tmp_path / place.partition("/")[0]), sequence="wave", label="kind")
        assert {*read.split("train", 0, 0).inputs.ravel()} == {value}
