"""An entry of the cache of kernels is loaded only if it is ours, and by the file that was checked."""

import os
from pathlib import Path

import pytest

from recurlab.fuse import cache as disk

SOMEBODY = 12345
pytestmark = pytest.mark.skipif(os.name != "posix", reason="there is no cache elsewhere")


@pytest.fixture
def obtained(cache):
    """Return what obtains a kernel, as the path that it is loaded by, and the list of the texts compiled so far."""
    built = []

    def build(work: Path) -> None:
        built.append((work / "kernel.cpp").read_text())
        (work / "kernel.so").write_bytes(b"a kernel")

    def obtain() -> tuple[str, str | None]:
        return disk.obtain("a source", (), (".cpp", ".so"), build, lambda content, path: path)

    return obtain, built


@pytest.fixture
def given_away(monkeypatch):
    """Return what gives a file or a folder to another user, as far as `os.fstat` tells; only root could really."""
    theirs, fstat = [], os.fstat

    def status_of(descriptor):
        found = fstat(descriptor)
        owner = SOMEBODY if any(os.path.samestat(found, other) for other in theirs) else found.st_uid
        return os.stat_result((*found[:4], owner, *found[5:]))

    monkeypatch.setattr(os, "fstat", status_of)
    return lambda path: theirs.append(path.stat())


def test_an_entry_of_ours_is_made_once(cache, obtained, given_away):
    obtain, built = obtained
    assert [obtain()[1], obtain()[1]] == [None, None]
    assert built == ["a source"]
    assert disk.holds("a source", (), (".cpp", ".so"))


def test_an_entry_of_another_user_is_made_anew(cache, obtained, given_away):
    obtain, built = obtained
    obtain()
    (entry,) = cache.glob("*.so")
    given_away(entry)
    assert not disk.holds("a source", (), (".cpp", ".so"))
    assert obtain()[1] is None
    assert len(built) == 2


@pytest.mark.parametrize("which", ["the folder", "one above it"])
def test_a_folder_of_another_user_keeps_no_kernel(cache, obtained, given_away, which):
    obtain, built = obtained
    obtain()
    place = cache if which == "the folder" else cache.parent
    given_away(place)
    assert f"{place} belongs to another user" in obtain()[1]
    assert len(built) == 2
    assert not disk.holds("a source", (), (".cpp", ".so"))


def test_an_entry_is_loaded_by_its_descriptor_or_where_that_leads_elsewhere_by_its_name(cache, obtained, monkeypatch):
    obtain, _ = obtained
    obtain()
    (entry,) = cache.glob("*.so")
    if Path("/proc/self/fd").exists():
        assert obtain()[0].startswith("/proc/self/fd/")
    stat = os.stat

    def elsewhere(path, **options):
        return stat(entry.parent if str(path).startswith("/proc/self/fd") else path, **options)

    def nowhere(path, **options):
        return stat("/proc/nowhere" if str(path).startswith("/proc/self/fd") else path, **options)

    for other in (elsewhere, nowhere):
        with monkeypatch.context() as patch:
            patch.setattr(os, "stat", other)
            assert obtain()[0] == str(entry)
