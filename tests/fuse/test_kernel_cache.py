"""The cache of compiled kernels, seen from processes of their own: races, kills, damage, unusable places."""

import hashlib
import os
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from compiling import ANSWER, ASK, COMPILER, entry, leftovers, needs_compiler, run, start, wait_for


@needs_compiler
def test_the_next_process_reads_the_cache(cache, counted):
    assert run()[1] == ""
    assert counted() == 1
    assert run()[1] == ""
    assert counted() == 1
    assert stat.S_IMODE(cache.stat().st_mode) == 0o700
    assert leftovers(cache) == []


@needs_compiler
def test_processes_that_start_at_once_compile_once(cache, counted):
    counted.wrap("sleep 0.5")
    processes = [start() for _ in range(4)]
    assert [(process.communicate(timeout=60)[1], process.returncode) for process in processes] == [("", 0)] * 4
    assert counted() == 1
    assert leftovers(cache) == []


@needs_compiler
def test_a_process_killed_while_it_compiles_is_not_missed(cache, counted, tmp_path):
    counted.wrap("sleep 10")
    killed = start()
    wait_for(lambda: counted() == 1)
    killed.kill()
    killed.communicate(timeout=60)
    counted.wrap()
    begun = time.monotonic()
    run()
    assert time.monotonic() - begun < 5, "waited for the dead process"
    os.kill(int((tmp_path / "runs.log").read_text().split()[0]), signal.SIGKILL)  # its compiler, still asleep
    # What it left is removed a day later, by whoever compiles next.
    (left,) = cache.glob("tmp-*")
    os.utime(left, (0, 0))
    entry(cache).unlink()
    run()
    assert leftovers(cache) == []


@needs_compiler
def test_a_fork_while_another_thread_compiles_stops_neither_process(cache, counted, tmp_path):
    counted.wrap("sleep 1")
    code = f"""
import os, threading
from recurlab.fuse.cpu import compiler
thread = threading.Thread(target=compiler.load, args=({ANSWER!r},))
assert compiler.unavailable() is None
thread.start()
while not os.path.exists({str(tmp_path / "runs.log")!r}): pass
child = os.fork()
for source in ({ANSWER!r}, {ANSWER!r} + "// another"):
    assert compiler.load(source).answer() == 42
if child: assert os.waitpid(child, 0)[1] == 0
thread.join()
"""
    run(code)


@needs_compiler
@pytest.mark.parametrize("damage", ["truncated", "cut at a page", "garbage", "empty", "directory", "one bit", "fifo"])
def test_a_damaged_entry_is_built_again(cache, counted, damage):
    run()
    path = entry(cache)
    content = path.read_bytes()
    path.unlink()
    if damage == "directory":
        (path / "inside").mkdir(parents=True)
    elif damage == "fifo":
        os.mkfifo(path)
    else:
        flipped = content[:5000] + bytes([content[5000] ^ 1]) + content[5001:]
        path.write_bytes(
            {"truncated": content[:-40], "cut at a page": content[:4096], "garbage": b"\x7fELF" * 999, "empty": b"",
             "one bit": flipped}[damage]
        )  # fmt: skip
    assert run()[1] == ""
    assert counted() == 2
    assert path.read_bytes()[-32:] == hashlib.sha256(path.read_bytes()[:-32]).digest()


UNUSABLE = {"below a file": "{tmp}/file/below", "in no file system": "/proc/nowhere", "a file": "{tmp}/file"}


@needs_compiler
@pytest.mark.parametrize("place", UNUSABLE)
def test_without_a_cache_kernels_work_and_one_line_warns(cache, tmp_path, monkeypatch, place):
    (tmp_path / "file").write_text("")
    named = UNUSABLE[place].format(tmp=tmp_path)
    monkeypatch.setenv("RECURLAB_CACHE", named)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    code = "assert compiler.unavailable() is None\n" + f"compiler.load({ANSWER + ' '!r})"
    _, errors = run(ASK + code)
    assert errors.count("RuntimeWarning") == 1
    assert f"can't keep compiled kernels in {named}: " in errors
    assert "RECURLAB_CACHE" in errors
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@needs_compiler
@pytest.mark.skipif(os.geteuid() == 0, reason="permissions don't bind root")
def test_a_cache_that_can_only_be_read_is_still_read(cache, counted):
    run()
    cache.chmod(0o500)
    try:
        assert run()[1] == ""
        assert counted() == 1
        assert "RuntimeWarning" in run(ASK.replace("42", "43").replace("answer", "answer2"))[1]
    finally:
        cache.chmod(0o700)


@needs_compiler
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a directory away")
def test_a_cache_of_another_user_is_not_trusted(cache, counted):
    run()
    os.chown(cache, 12345, 12345)
    assert "belongs to another user" in run()[1]
    assert counted() == 2


@needs_compiler
def test_a_cache_that_everyone_can_write_is_not_trusted_nor_one_below_it(cache, counted):
    run()
    for count, place in enumerate((cache, cache.parent), 2):
        place.chmod(0o777)
        errors = run()[1]
        assert f"can't keep compiled kernels in {cache.parent}: {place} can be written by everyone; " in errors
        assert errors.count("RuntimeWarning") == 1
        assert counted() == count
        place.chmod(0o700)


@needs_compiler
def test_nothing_is_compiled_where_everyone_can_write(cache, counted, tmp_path, monkeypatch):
    run()
    cache.chmod(0o777)
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o777)
    monkeypatch.setenv("TMPDIR", str(tmp_path / "open"))
    code = f"""
from recurlab.errors import RecurlabError
from recurlab.fuse.cpu import compiler
try:
    compiler.load({ANSWER!r})
except RecurlabError as error:
    print(error)
"""
    output, _ = run(code)
    assert f"nor make them in TMPDIR: {tmp_path / 'open'} can be written by everyone" in output
    assert output.count("\n") == 1
    assert counted() == 1
    assert list((tmp_path / "open").iterdir()) == []


@needs_compiler
def test_what_is_compiled_under_any_umask_is_read_again(cache, counted):
    run("import os\nos.umask(0)\n" + ASK)
    assert all(path.stat().st_mode & 0o022 == 0 for path in cache.glob("*.so"))
    run()
    assert counted() == 1
    entry(cache).chmod(0o777)
    run()
    assert counted() == 2


def other_library(cache: Path, tmp_path: Path) -> Path:
    """Fill the cache; return another user's folder of kernels with the same name and another answer, and a checksum."""
    run()
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    (theirs / "other.cpp").write_text(ANSWER.replace("42", "66"))
    library = theirs / entry(cache).name
    subprocess.run([str(COMPILER), "-shared", "-fPIC", "other.cpp", "-o", library.name], cwd=theirs, check=True)
    library.write_bytes(library.read_bytes() + hashlib.sha256(library.read_bytes()).digest())
    if os.geteuid() == 0:
        for path in (theirs, library):
            os.chown(path, 12345, 12345)
    return library


@needs_compiler
@pytest.mark.skipif(sys.platform != "linux", reason="a library is loaded by its descriptor there alone")
@pytest.mark.parametrize("exchanged", ["file", "folder"])
def test_a_kernel_exchanged_before_it_is_loaded_is_the_one_that_was_checked(cache, tmp_path, exchanged):
    library = other_library(cache, tmp_path)
    old, new = (entry(cache), library) if exchanged == "file" else (cache, library.parent)
    code = f"""
import ctypes, os
load = ctypes.CDLL
def late(name, *args, **options):
    if os.path.exists({str(new)!r}) and name and os.path.basename(os.path.realpath(name)) == {library.name!r}:
        os.rename({str(old)!r}, {str(tmp_path / "kept")!r})
        os.rename({str(new)!r}, {str(old)!r})
    return load(name, *args, **options)
ctypes.CDLL = late
"""
    run(code + ASK)
    assert not new.exists()


@needs_compiler
@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="a library is loaded by its descriptor there alone")
@pytest.mark.parametrize("exchanged", ["file", "folder"])
def test_no_process_loads_what_others_exchange_all_the_time(cache, tmp_path, exchanged):
    library = other_library(cache, tmp_path)
    if exchanged == "folder":
        cache.parent.chmod(0o777)  # by which they could
    old, new = (entry(cache), library) if exchanged == "file" else (cache, library.parent)
    code = f"""
import os, signal, time
from recurlab.fuse.cpu import compiler
names = old, new, kept = {str(old)!r}, {str(new)!r}, {str(tmp_path / "kept")!r}
exchanging = os.fork()
while exchanging == 0:
    for a, b in ((old, kept), (new, old), (old, new), (kept, old)):
        os.rename(a, b)
        time.sleep(0.0001)
def fail(*_): raise compiler.RecurlabError("compiled")
assert compiler.unavailable() is None
compiler._compile = fail
for _ in range(1500):
    child = os.fork()
    if child == 0:
        try: os._exit(compiler.load({ANSWER!r}).answer())
        except compiler.RecurlabError: os._exit(1)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
os.kill(exchanging, signal.SIGKILL)
os.wait()
"""
    answers = set(run(code, seconds=600)[0].split())
    assert answers == {"file": {"1", "42"}, "folder": {"1"}}[exchanged]


@needs_compiler
def test_libraries_loaded_by_one_descriptor_after_the_other_are_several(cache):
    code = """
from recurlab.fuse.cpu import compiler
for _ in range(2):
    for n in range(4):
        assert compiler.load(f'extern "C" int answer() { return %d; }' % n).answer() == n
    compiler._loaded.clear()  # then they come from the cache
maps = [line for line in open("/proc/self/maps") if "/kernels/" in line and line.split()[1] == "r-xp"]
assert len(maps) == 5  # the probe's too
"""
    run(code.replace("f'", "'"))


@needs_compiler
def test_a_full_disk_sends_the_compilation_elsewhere(cache, counted):
    fail = 'echo "error: No space left on device"; head -c 99 /dev/zero > kernel.o; exit 1'
    counted.wrap(f'case "$PWD" in "{cache}"*) {fail};; esac')
    assert "can't keep compiled kernels" in run()[1]
    assert counted() == 2
    assert not list(cache.glob("tmp-*"))
    counted.wrap()
    assert run()[1] == ""
    assert entry(cache).is_file()


@needs_compiler
def test_when_nothing_can_be_written_an_error_says_so_and_nothing_stays(cache):
    code = f"""
import resource
from recurlab.errors import RecurlabError
from recurlab.fuse.cpu import compiler
assert compiler.unavailable() is None
resource.setrlimit(resource.RLIMIT_FSIZE, (300, 300))
try:
    compiler.load({ANSWER!r})
except RecurlabError as error:
    print(error)
"""
    output, _ = run(code)
    assert "can't build a kernel: " in output
    assert output.count("\n") == 1
    assert leftovers(cache) == []
    run()
