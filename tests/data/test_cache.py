import io
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from recurlab.data import progress
from recurlab.data.cache import cached
from recurlab.data.progress import track


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("RECURLAB_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "data"


def make() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(3)
    return {"b": rng.integers(0, 256, 5000, np.uint8), "a": rng.integers(0, 9, 7), "empty": np.zeros(0, np.int32)}


def same(found, wanted) -> bool:
    return list(found) == list(wanted) and all(
        found[name].dtype == array.dtype and np.array_equal(found[name], array) for name, array in wanted.items()
    )


def never():
    raise AssertionError("made anew")


def test_arrays_are_made_once(cache):
    assert same(cached("x", make), make())
    assert same(cached("x", never), make())


def test_another_identity_is_another_entry(cache):
    first, second = ({"a": np.arange(n)} for n in (3, 4))
    assert same(cached("x", lambda: first), first)
    assert same(cached("y", lambda: second), second)
    assert same(cached("x", never), first)


@pytest.mark.parametrize(
    "dtype", [np.uint8, np.uint16, np.int8, np.int32, np.int64, np.float16, np.float32, np.float64, np.bool_]
)
@pytest.mark.parametrize("size", [0, 1, 1001])
def test_numbers_of_any_type_and_count_come_back(cache, dtype, size):
    wanted = {"a": np.random.default_rng(0).normal(0, 30, size).astype(dtype)}
    cached("x", lambda: wanted)
    assert same(cached("x", never), wanted)


def test_values_that_are_not_numbers_come_back(cache):
    cached("x", lambda: {"a": np.array([np.nan, -0.0, np.inf])})
    np.testing.assert_array_equal(cached("x", never)["a"], [np.nan, -0.0, np.inf])


def test_arrays_that_share_memory_with_the_file_are_not_written_to(cache):
    mine = np.arange(5)
    for found in (cached("x", lambda: {"a": mine}), cached("x", never)):
        assert not found["a"].flags.owndata
        with pytest.raises(ValueError, match="read-only"):
            found["a"][0] = 1
    mine[0] = 1  # is still its owner's


def test_arrays_in_use_outlive_their_entry(cache):
    cached("x", make)
    found = cached("x", never)
    for path in cache.iterdir():
        path.unlink()
    assert same(found, make())
    assert same(cached("x", make), make())


def entry_of(cache: Path) -> Path:
    cached("x", make)
    (entry,) = cache.iterdir()
    return entry


@pytest.mark.parametrize("place", [0.0, 0.01, 0.05, 0.2, 0.5, 0.9, 0.99, 0.9999])
def test_an_entry_with_a_changed_bit_is_made_anew(cache, place):
    entry = entry_of(cache)
    content = bytearray(entry.read_bytes())
    content[int(place * len(content))] ^= 4
    entry.write_bytes(content)
    assert same(cached("x", make), make())
    assert same(cached("x", never), make())


@pytest.mark.parametrize("size", [0, 1, 31, 32, 33, 2000, -32, -1])
def test_an_entry_that_was_cut_off_is_made_anew(cache, size):
    entry = entry_of(cache)
    entry.write_bytes(entry.read_bytes()[:size])
    assert same(cached("x", make), make())
    assert same(cached("x", never), make())


def test_an_entry_with_something_behind_it_is_made_anew(cache):
    entry = entry_of(cache)
    entry.write_bytes(entry.read_bytes() + b"x")
    assert same(cached("x", make), make())
    assert same(cached("x", never), make())


def test_a_folder_in_the_place_of_an_entry_does_no_harm(cache):
    entry = entry_of(cache)
    entry.unlink()
    entry.mkdir()
    assert same(cached("x", make), make())
    assert list(cache.iterdir()) == [entry]


def test_without_a_cache_arrays_are_made_each_time(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("RECURLAB_CACHE", str(tmp_path / "file" / "cache"))
    for _ in range(2):
        found = cached("x", make)
        assert same(found, make())
        assert not any(array.flags.writeable for array in found.values())


@pytest.mark.parametrize("place", ["data", "."])
def test_arrays_that_others_could_have_written_are_not_read(cache, place):
    cached("x", make)
    (cache.parent / place).chmod(0o777)
    with pytest.warns(RuntimeWarning, match=r"can be written by everyone; .*RECURLAB_CACHE") as caught:
        assert same(cached("x", lambda: {"a": np.arange(3)}), {"a": np.arange(3)})
    assert [warning.filename for warning in caught] == [__file__]
    (cache.parent / place).chmod(0o700)
    (entry,) = cache.iterdir()
    entry.chmod(0o666)
    assert same(cached("x", lambda: {"a": np.arange(3)}), {"a": np.arange(3)})
    assert same(cached("x", never), {"a": np.arange(3)})


def test_errors_of_making_are_the_callers_and_are_not_kept(cache):
    def fail():
        raise KeyError("no data")

    with pytest.raises(KeyError, match="no data"):
        cached("x", fail)
    assert same(cached("x", make), make())


SCRIPT = """
import pathlib, sys, time
import numpy as np
from recurlab.data.cache import cached

def make():
    return {"a": np.random.default_rng(0).integers(0, 99, 200_000), "b": np.arange(5, dtype=np.uint8)}

if sys.argv[1] == "full":
    import resource
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
print("ready", flush=True)
while sys.argv[1] != "full" and not pathlib.Path(sys.argv[1]).exists():
    time.sleep(0.001)
for _ in range(3):
    found = cached("x", make)
    assert all(found[name].dtype == array.dtype and (found[name] == array).all() for name, array in make().items())
"""


def test_processes_that_start_at_once_all_have_the_arrays(cache, tmp_path):
    """On an entry that is damaged, so that all of them replace it."""
    go = tmp_path / "go"
    command = [sys.executable, "-c", SCRIPT]
    subprocess.run([*command, str(tmp_path)], check=True, capture_output=True)
    (entry,) = cache.iterdir()
    entry.write_bytes(entry.read_bytes()[:-500])
    started = [
        subprocess.Popen([*command, str(go)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    for process in started:
        assert process.stdout.readline() == "ready\n"
    go.touch()
    for process in started:
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 0, errors
    assert list(cache.iterdir()) == [entry]


@pytest.mark.skipif(sys.platform == "win32", reason="has no limit on the size of files")
def test_a_full_disk_does_no_harm_and_leaves_nothing(cache):
    done = subprocess.run([sys.executable, "-c", SCRIPT, "full"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert list(cache.iterdir()) == []


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize(
    ("patience", "terminal", "shown"), [(0.0, True, True), (60.0, True, False), (0.0, False, False)]
)
def test_a_bar_is_shown_on_a_terminal_after_a_while(monkeypatch, patience, terminal, shown):
    monkeypatch.setattr(progress, "PATIENCE", patience)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys, "stderr", Terminal() if terminal else io.StringIO())
    assert list(track(range(5), "counting")) == [0, 1, 2, 3, 4]
    written = sys.stderr.getvalue()
    assert ("counting" in written) == shown
    assert shown or not written


def test_what_has_no_length_can_be_tracked_and_left_early(monkeypatch):
    monkeypatch.setattr(progress, "PATIENCE", 0.0)
    monkeypatch.setattr(sys, "stderr", Terminal())
    items = track(iter("abc"), "letters")
    assert next(items) == "a"
    items.close()
    assert list(track(iter("abc"), "letters")) == ["a", "b", "c"]
