"""The compiler of kernels and its cache, seen from processes of their own: a cache matters to the next process."""

import os
import shutil
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from recurlab.errors import RecurlabError
from recurlab.fuse import compiler

COMPILER = next((path for name in ("c++", "g++", "clang++") if (path := shutil.which(name))), None)
needs_compiler = pytest.mark.skipif(COMPILER is None, reason="no C++ compiler on this machine")

ANSWER = 'extern "C" int answer() { return 42; }\n'
ASK = f"from recurlab.fuse import compiler\nassert compiler.load({ANSWER!r}).answer() == 42\n"
# Marks every compilation of a kernel, the probe's aside, and may be told to be slow or to fail in some directory.
WRAPPER = """#!/bin/sh
case "$*" in *-c\\ kernel.cpp*) if grep -q answer kernel.cpp; then
    echo $$ >> "{log}"; {extra}
fi;; esac
exec "{compiler}" "$@"
"""


@pytest.fixture
def cache(tmp_path, monkeypatch):
    for name in ("CXX", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("RECURLAB_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "kernels"


@pytest.fixture
def counted(tmp_path, monkeypatch, cache):
    """Put a wrapper around the compiler; return what counts its runs."""
    log, script = tmp_path / "runs.log", tmp_path / "wrapped compiler"

    def wrap(extra: str = ":") -> None:
        script.write_text(WRAPPER.format(log=log, compiler=COMPILER, extra=extra))
        script.chmod(0o755)

    wrap()
    monkeypatch.setenv("CXX", f"'{script}'")
    count = lambda: len(log.read_text().splitlines()) if log.exists() else 0  # noqa: E731
    count.wrap = wrap
    return count


def start(code: str = ASK) -> subprocess.Popen[str]:
    command = [sys.executable, "-W", "always", "-c", code]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def run(code: str = ASK) -> tuple[str, str]:
    """Run code in a process of its own, which must succeed; return its output and its warnings."""
    process = start(code)
    output, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    return output, errors


def wait_for(condition) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def entry(cache: Path) -> Path:
    (source,) = (path for path in cache.glob("*.cpp") if path.read_text() == ANSWER)
    return source.with_suffix(".so")


def leftovers(cache: Path) -> list[str]:
    return [path.name for path in cache.iterdir() if path.suffix not in (".so", ".cpp")]


@needs_compiler
def test_a_source_becomes_a_library_and_the_same_one_each_time(cache):
    source = 'extern "C" double half(double x) { return x / 2; }'
    library = compiler.load(source)
    library.half.restype, library.half.argtypes = compiler.ctypes.c_double, [compiler.ctypes.c_double]
    assert library.half(3.0) == 1.5
    assert compiler.load(source) is library
    assert compiler.unavailable() is None


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
def test_threads_get_the_same_library(cache):
    code = f"""
from concurrent.futures import ThreadPoolExecutor
from recurlab.fuse import compiler
with ThreadPoolExecutor(8) as pool:
    assert len({{id(library) for library in pool.map(compiler.load, [{ANSWER!r}] * 16)}}) == 1
"""
    run(code)


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
from recurlab.fuse import compiler
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
    assert path.read_bytes()[-32:] == compiler.hashlib.sha256(path.read_bytes()[:-32]).digest()


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
def test_a_cache_that_everyone_can_write_is_not_trusted(cache, counted):
    run()
    cache.chmod(0o777)
    assert "can be written by everyone" in run()[1]
    assert counted() == 2


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
from recurlab.fuse import compiler
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


@pytest.mark.parametrize("command", ["nonsense", "'unbalanced", "false", "/", None])
def test_without_a_compiler_a_line_says_what_to_install(cache, tmp_path, monkeypatch, command):
    if command is not None:
        monkeypatch.setenv("CXX", command)
    code = f"""
import os
from recurlab.errors import RecurlabError
from recurlab.fuse import compiler
if {command is None}: os.environ["PATH"] = {str(tmp_path)!r}
reason = compiler.unavailable()
try:
    compiler.load({ANSWER!r})
except RecurlabError as error:
    assert str(error) == reason
    print(reason)
"""
    output, _ = run(code)
    assert output.count("\n") == 1
    assert "CXX" in output
    assert "install g++ (Debian, Ubuntu), gcc-c++ (Fedora) or run xcode-select --install (macOS)" in output or (
        command == "'unbalanced" and "No closing quotation" in output
    )


@needs_compiler
def test_a_source_with_an_error_is_refused_with_its_first_line(cache):
    compiler.load(ANSWER + "// to have a cache\n")
    before = sorted(cache.iterdir())
    for source, message in {
        "int f( {\n": r"kernel.cpp:1:\d+: error: ",
        ANSWER + "int g() { return h; }": "kernel.cpp:2",
    }.items():
        with pytest.raises(RecurlabError, match=rf"can't build a kernel: {message}[^\n]*$"):
            compiler.load(source)
    with pytest.raises(RecurlabError, match="missing"):
        compiler.load('extern "C" int missing(); extern "C" int f() { return missing(); }')
    assert sorted(cache.iterdir()) == before


@needs_compiler
def test_another_compiler_or_flag_makes_another_entry(cache, counted, monkeypatch):
    entries = lambda: sum(path.read_text() == ANSWER for path in cache.glob("*.cpp"))  # noqa: E731
    run()
    assert entries() == 1
    wrapper = os.environ["CXX"]
    monkeypatch.setenv("CXX", f"{wrapper} -DSOMETHING='a b'")
    run()
    assert entries() == 2
    run()
    assert (entries(), counted()) == (2, 2)
    monkeypatch.setenv("CXX", str(COMPILER))
    run()
    assert entries() == 3


TEAM = """
#ifdef _OPENMP
extern "C" int omp_get_num_threads();
#endif
extern "C" int team(int n) {
    int size = 1;
#pragma omp parallel num_threads(n)
    {
#ifdef _OPENMP
#pragma omp single
        size = omp_get_num_threads();
#endif
    }
    return size;
}
extern "C" int is_nan(double x) { return x != x; }
"""


@needs_compiler
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_kernel_shares_the_threads_and_the_denormals_of_torch(cache):
    code = f"""
import os, torch
from recurlab.fuse import compiler
library = compiler.load({TEAM!r})
torch.set_num_threads(3)
torch.rand(3000, 300).exp()
threads = len(os.listdir("/proc/self/task"))
print([library.team(n) for n in (1, 2, 3)])
assert len(os.listdir("/proc/self/task")) == threads > 2, "a second pool"
maps = [line.split()[-1] for line in open("/proc/self/maps") if "omp" in line.split("/")[-1]]
print(len(set(maps)))
library.is_nan.argtypes = [compiler.ctypes.c_double]
assert library.is_nan(float("nan")) and not library.is_nan(1.0), "fast math"
print((torch.full((1,), 1e-39) / 2).item() > 0, (torch.full((999,), 1e-39) / 2).min().item() > 0)
"""
    output, _ = run(code)
    teams, runtimes, denormals = output.splitlines()
    assert teams == "[1, 2, 3]"
    assert denormals == "True True"
    assert int(runtimes) == 1
    # Nor may it name one itself: a torch with a libgomp by another name would get a second one beside it.
    assert not [path for path in cache.glob("*.so") if b"libgomp" in path.read_bytes()]


@needs_compiler
def test_the_cache_lies_where_the_system_keeps_caches(cache, tmp_path, monkeypatch):
    monkeypatch.delenv("RECURLAB_CACHE")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    run()
    assert entry(tmp_path / "home" / ".cache" / "recurlab" / "kernels").is_file()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    run()
    assert entry(tmp_path / "xdg" / "recurlab" / "kernels").is_file()
