"""Files are told apart by their content, whatever they are called by and whenever they were written."""

import os
import shutil

import numpy as np
import pytest

from recurlab.data import DATA, fingerprint
from recurlab.data.data import Data
from recurlab.data.fingerprint import fingerprint as of
from recurlab.errors import RecurlabError

OWN = {"sequence": "wave", "label": "kind"}
# The options of a data set, the key of where its files are, and that place below `tiny_data`.
READ = {
    "text": ("text", {"train": "input.txt"}, "dir", "tinyshakespeare"),
    "text in three parts": (
        "text", {"train": "ptb.train.txt", "valid": "ptb.valid.txt", "test": "ptb.test.txt"}, "dir", "ptb",
    ),
    "mnist": ("mnist", {"verify": False}, "dir", "mnist"),
    "jsb": ("music", {"verify": False}, "dir", "polymusic"),
    "nottingham": ("music", {"verify": False, "collection": "nottingham"}, "dir", "polymusic"),
    "japanese_vowels": ("japanese_vowels", {"verify": False}, "dir", "japanese-vowels"),
    "fsdd": ("fsdd", {"verify": False}, "dir", "fsdd"),
    "fsdd, recordings": ("fsdd", {}, "dir", "recordings"),
    "a table": ("dataset", OWN, "path", "own.csv"),
    "tables of splits": ("dataset", {**OWN, "train": "train", "test": "test"}, "path", "tables"),
    "tables by a pattern": ("dataset", {**OWN, "train": "part*.csv", "test": "test"}, "path", "parts"),
    "a folder for datasets": ("dataset", OWN, "path", "saved"),
    "mnist, a folder for datasets": ("mnist", {}, "hub", "saved"),
}  # fmt: skip


@pytest.fixture(scope="module")
def top(tiny_data, tmp_path_factory):
    """The tiny data, and some more."""
    top = tmp_path_factory.mktemp("read") / "top"
    shutil.copytree(tiny_data, top)
    for folder, names in {
        "recordings": ["0_theo_0.wav", "1_theo_0.wav"], "saved": ["dataset_dict.json", "train/data.arrow"],
        "tables": ["train.csv", "test.csv"], "parts": ["part1.csv", "part2.csv", "test.csv"],
    }.items():  # fmt: skip
        for name in names:
            (top / folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(top / "own.csv", top / folder / name)
    return top


def files_in(place):
    return [place] if place.is_file() else sorted(path for path in place.rglob("*") if path.is_file())


def rewritten(path):
    """Change a byte of a file, and nothing else that one sees without reading it."""
    about, content = path.stat(), bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(about.st_atime_ns, about.st_mtime_ns))
    assert (path.stat().st_size, path.stat().st_mtime_ns) == (about.st_size, about.st_mtime_ns)


@pytest.mark.parametrize("kind", READ)
def test_a_moved_folder_is_the_same_and_each_changed_file_another(kind, top, tmp_path):
    name, options, key, at = READ[kind]

    def there(place):
        return of(DATA[name](**options, **{key: str(place)}))

    first = there(top / at)
    assert len(first) == 12
    moved = tmp_path / "elsewhere" / (at if (top / at).is_file() else "b c")
    (shutil.copy if (top / at).is_file() else shutil.copytree)(top / at, (moved.parent.mkdir(), moved)[1])
    for path in files_in(moved):
        os.utime(path, (1, 1))
    assert there(moved) == first
    found, before = {first}, {path: path.read_bytes() for path in files_in(moved)}
    data = DATA[name](**options, **{key: str(moved)})
    read = list(data.sources().values())
    assert read
    for path in read:
        rewritten(path)
        found.add(there(moved))
        path.write_bytes(before[path])
    assert len(found) == 1 + len(read)
    assert there(moved) == first


def test_files_that_are_not_read_do_not_count(top, tmp_path):
    shutil.copytree(top / "tinyshakespeare", tmp_path / "a")
    book = DATA["text"](dir=str(tmp_path / "a"))
    first = of(book)
    (tmp_path / "a" / "other.txt").write_text("x")
    assert of(book) == first
    saved = DATA["dataset"](path=str(shutil.copytree(top / "saved", tmp_path / "b")), **OWN)
    first = of(saved)
    (tmp_path / "b" / ".cache").mkdir()
    (tmp_path / "b" / ".cache" / "lock").write_text("x")
    assert of(saved) == first
    (tmp_path / "b" / "validation.csv").write_text("x")
    assert of(saved) != first


def test_parts_that_change_places_are_others(tmp_path):
    for folder, texts in {"a": "123", "b": "213", "c": "132"}.items():
        (tmp_path / folder).mkdir()
        for name, text in zip(("train", "valid", "test"), texts, strict=True):
            (tmp_path / folder / name).write_text(text)
    parts = {"train": "train", "valid": "valid", "test": "test"}
    assert len({of(DATA["text"](dir=str(tmp_path / folder), **parts)) for folder in "abc"}) == 3


@pytest.mark.parametrize("name", ["adding", "copy_memory", "listops", "mnist"])
def test_where_the_config_says_it_all_there_is_none(name):
    assert of(DATA[name]()) == ""


def test_an_original_is_known_by_the_config(tmp_path):
    (tmp_path / "input.txt").write_text("abc")
    sha256 = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"

    def there(**options):
        return of(DATA["text"](dir=str(tmp_path), sha256={"input.txt": sha256}, **options))

    assert (there(), there(verify=False)) == ("", "")
    (tmp_path / "input.txt").write_text("abd")
    assert len(there(verify=False)) == 12
    (tmp_path / "input.txt").unlink()
    assert there() == ""


@pytest.mark.parametrize("options", [{"dir": "nowhere"}, {}])
def test_a_missing_file_is_named(options, monkeypatch):
    monkeypatch.delenv("RECURLAB_DATA", raising=False)
    with pytest.raises(RecurlabError, match=r"input\.txt"):
        of(DATA["text"](**options))


class Users(Data):
    """A user's, which says nothing of the files that it reads."""

    def __init__(self, folder):
        object.__setattr__(self, "dir", str(folder))


def test_of_a_users_data_set_all_files_in_its_folder_count(tmp_path):
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / "c.npy").write_bytes(b"1")
    first = of(Users(tmp_path / "a"))
    assert len(first) == 12
    (tmp_path / "a" / "b" / "c.npy").write_bytes(b"2")
    assert of(Users(tmp_path / "a")) != first
    (tmp_path / "a" / "b" / "c.npy").write_bytes(b"1")
    assert of(Users((tmp_path / "a").rename(tmp_path / "d"))) == first


def test_a_large_file_is_read_again_only_if_it_may_have_changed(tmp_path, monkeypatch):
    monkeypatch.setattr(fingerprint, "LARGE", 4)
    monkeypatch.setenv("RECURLAB_CACHE", str(tmp_path / "cache"))
    read, sha256_of = [], fingerprint.sha256_of
    monkeypatch.setattr(fingerprint, "sha256_of", lambda path: read.append(path) or sha256_of(path))
    path = tmp_path / "input.txt"
    path.write_text("a long text")
    book = DATA["text"](dir=str(tmp_path))
    first = of(book)
    assert (of(book), len(read)) == (first, 2)  # it has just been written: a second time would not show
    monkeypatch.setattr(fingerprint, "RECENT", -np.inf)
    assert ({of(book) for _ in range(3)}, len(read)) == ({first}, 3)
    rewritten(path)
    assert (of(book) != first, len(read)) == (True, 4)
    for entry in (tmp_path / "cache" / "data").iterdir():
        entry.write_bytes(b"")
    rewritten(path)
    assert (of(book), len(read)) == (first, 5)
