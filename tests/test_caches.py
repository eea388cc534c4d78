"""The folder of what is kept between runs: opened only where nobody else could have put anything into it."""

import os
import re
import stat
from contextlib import nullcontext
from pathlib import Path

import pytest

from recurlab.caches import Untrusted, opened

SOMEBODY = 12345
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")


@pytest.fixture
def path(tmp_path, monkeypatch) -> Path:
    """A folder below two that exist; its home lies elsewhere."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "above" / "root").mkdir(mode=0o755, parents=True)
    return tmp_path / "above" / "root" / "kernels"


def refused(reason: str):
    return pytest.raises(Untrusted, match=f"{reason}$")


# Owner, group and mode of the folder that is named, and why it is refused.
CASES = {
    "everyone": ((-1, -1, 0o777), "can be written by everyone"),
    "everyone else": ((-1, -1, 0o757), "can be written by everyone"),
    "group": ((-1, SOMEBODY, 0o775), "can be written by its group"),
    "group of root's name": ((-1, -1, 0o775), None),
    "readers": ((-1, SOMEBODY, 0o755), None),
    "owner": ((SOMEBODY, -1, 0o700), "belongs to another user"),
    "sticky": ((-1, -1, 0o1777), None),
    "sticky for a group": ((-1, SOMEBODY, 0o3775), None),
    "sticky of another user": ((SOMEBODY, -1, 0o1777), "belongs to another user"),
}


@needs_root
@pytest.mark.parametrize("place", ["above", "above/root"])
@pytest.mark.parametrize("case", CASES)
def test_each_folder_on_the_way_is_looked_at(path, tmp_path, case, place):
    (owner, group, mode), reason = CASES[case]
    os.chown(tmp_path / place, owner, group)
    (tmp_path / place).chmod(mode)
    with refused(f"{tmp_path / place} {reason}") if reason else nullcontext(), opened(path) as folder:
        assert folder.path == path
        assert os.path.samestat(os.fstat(folder.descriptor), path.stat())
    assert path.is_dir() == (reason is None)


@pytest.mark.parametrize("mode", [0o777, 0o1777, 0o702])
def test_the_folder_itself_is_of_one_user_even_where_it_is_sticky(path, mode):
    path.mkdir()
    path.chmod(mode)
    with refused(f"{path} can be written by everyone"), opened(path):
        pass


def test_what_lies_above_the_home_is_no_concern(path, tmp_path, monkeypatch):
    (tmp_path / "above").chmod(0o777)
    monkeypatch.setenv("HOME", str(tmp_path / "above" / "root"))
    with opened(path):
        pass
    (tmp_path / "above" / "root").chmod(0o777)
    with refused("root can be written by everyone"), opened(path):
        pass


@pytest.mark.parametrize("umask", [0, 0o002, 0o022, 0o077])
def test_what_is_made_is_for_one_user_whatever_the_umask(path, umask):
    before = os.umask(umask)
    try:
        with opened(path / "a" / "b"), opened(path / "a" / "b"):
            pass
    finally:
        os.umask(before)
    made = (path, path / "a", path / "a" / "b")
    assert all(stat.S_IMODE(each.stat().st_mode) == 0o700 & ~umask for each in made)


def test_a_link_leads_where_the_folders_are_looked_at(path, tmp_path):
    (tmp_path / "link").symlink_to(path.parent, target_is_directory=True)
    with opened(tmp_path / "link" / "kernels") as folder:
        assert folder.path == path
    (tmp_path / "above").chmod(0o777)
    with refused("above can be written by everyone"), opened(tmp_path / "link" / "kernels"):
        pass


def test_a_link_that_appears_on_the_way_is_not_followed(path, tmp_path, monkeypatch):
    """Somebody puts it there after the path was resolved."""
    (tmp_path / "theirs").mkdir()
    path.symlink_to(tmp_path / "theirs")
    monkeypatch.setattr(os.path, "realpath", os.path.abspath)
    with pytest.raises(OSError, match="kernels"), opened(path):
        pass


@pytest.mark.parametrize(
    ("place", "error"), [("/proc/nowhere", FileNotFoundError), ("/dev/null/below", NotADirectoryError)]
)
def test_a_folder_that_can_not_be_is_named(place, error):
    with pytest.raises(error, match=re.escape(place.removesuffix("/below"))), opened(Path(place)):
        pass


def test_files_are_read_that_nobody_else_could_have_written(path):
    with opened(path) as folder:
        for name in ("ours", "open", "pipe", "link"):
            (path / name).write_text("content")
        (path / "open").chmod(0o666)
        (path / "pipe").unlink()
        os.mkfifo(path / "pipe")
        (path / "link").unlink()
        (path / "link").symlink_to(path / "ours")
        with folder.open("ours") as file:
            assert file.read() == b"content"
        for name in ("open", "pipe", "link", "missing"):
            with pytest.raises(OSError, match=name):
                folder.open(name)


def test_no_descriptor_stays_open(path):
    def descriptors() -> int:
        return len(os.listdir("/dev/fd"))  # noqa: PTH208

    before = descriptors()
    for _ in range(3):
        with opened(path) as folder, pytest.raises(OSError, match="missing"):
            folder.open("missing")
    path.chmod(0o777)
    with pytest.raises(Untrusted), opened(path):
        pass
    assert descriptors() == before


@needs_root
def test_a_file_of_another_user_is_not_read(path):
    with opened(path) as folder:
        (path / "theirs").write_text("content")
        os.chown(path / "theirs", SOMEBODY, SOMEBODY)
        with refused("theirs belongs to another user"):
            folder.open("theirs")
