"""A file holds all of the old or all of the new, and what killed writers leave is removed by the next."""

import errno
import fcntl
import os
import signal
import stat
import subprocess
import sys
from contextlib import suppress

import pytest

from recurlab.files import replacing, write_bytes, write_link, write_text

WRITER = """
import signal, sys
from pathlib import Path
from recurlab.files import replacing
with replacing(Path(sys.argv[1])) as file:
    file.write(b"half of the n")
    print("began", flush=True)
    signal.pause()
"""


@pytest.fixture
def writer(tmp_path):
    """A process that is in the middle of writing a file of a folder."""
    command = [sys.executable, "-c", WRITER, str(tmp_path / "file")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "began\n"
        yield process
        process.kill()


def test_only_what_killed_writers_left_is_removed(tmp_path, writer):
    (tmp_path / "file").write_text("old")
    half = set(tmp_path.iterdir()) - {tmp_path / "file"}
    assert len(half) == 1
    write_text(tmp_path / "other", "new")
    assert set(tmp_path.iterdir()) == {tmp_path / "file", tmp_path / "other", *half}
    os.kill(writer.pid, signal.SIGKILL)
    writer.wait()
    assert half < set(tmp_path.iterdir())
    write_text(tmp_path / "other", "newer")
    assert {path: path.read_text() for path in tmp_path.iterdir()} == {
        tmp_path / "file": "old",
        tmp_path / "other": "newer",
    }


def test_what_other_machines_and_people_write_is_left(tmp_path):
    others = [tmp_path / name for name in (".new-elsewhere-0123456789abcdef", ".new-old", ".lock", "new-file")]
    for path in others:
        path.write_text("")
    write_bytes(tmp_path / "file", b"new", durable=True)
    assert set(tmp_path.iterdir()) == {tmp_path / "file", *others}


def test_an_error_leaves_the_old(tmp_path):
    path = tmp_path / "file"
    path.write_text("old")
    with suppress(KeyError), replacing(path) as file:
        file.write(b"half")
        raise KeyError
    assert (list(tmp_path.iterdir()), path.read_text()) == ([path], "old")


def test_a_new_file_has_the_usual_rights(tmp_path):
    write_text(tmp_path / "one", "")
    (tmp_path / "two").write_text("")
    assert stat.S_IMODE((tmp_path / "one").stat().st_mode) == stat.S_IMODE((tmp_path / "two").stat().st_mode)


def test_a_file_system_without_locks_is_written_to_but_not_cleared(tmp_path, writer, monkeypatch):
    def refuse(file, how):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    writer.kill()
    writer.wait()
    half = set(tmp_path.iterdir())
    write_text(tmp_path / "file", "new")
    assert (tmp_path / "file").read_text() == "new"
    assert set(tmp_path.iterdir()) == {tmp_path / "file", *half}


def test_a_link_replaces_what_had_its_name(tmp_path):
    link = tmp_path / "link"
    for before in ("nothing", "a file", "one", "two"):
        if before == "a file":
            link.unlink()
            link.write_text("old")
        for target in (tmp_path / "one", tmp_path / "two", tmp_path / "two"):
            write_link(link, target)
            assert link.readlink() == target
    assert list(tmp_path.iterdir()) == [link]
