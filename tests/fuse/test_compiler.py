"""The compiler of kernels: what it makes of a source, its choice, its errors, and its threads."""

import os
import platform
import sys

import pytest

from compiling import ANSWER, ASK, COMPILER, entry, needs_compiler, run
from recurlab.errors import RecurlabError
from recurlab.fuse.cpu import compiler


@needs_compiler
def test_a_source_becomes_a_library_and_the_same_one_each_time(cache):
    source = 'extern "C" double half(double x) { return x / 2; }'
    library = compiler.load(source)
    library.half.restype, library.half.argtypes = compiler.ctypes.c_double, [compiler.ctypes.c_double]
    assert library.half(3.0) == 1.5
    assert compiler.load(source) is library
    assert compiler.unavailable() is None


@needs_compiler
def test_a_kernel_is_compiled_without_torch(cache):
    run(ASK + "import sys\nassert 'torch' not in sys.modules\n")  # which takes longer to import


@needs_compiler
def test_threads_get_the_same_library(cache):
    code = f"""
from concurrent.futures import ThreadPoolExecutor
from recurlab.fuse.cpu import compiler
with ThreadPoolExecutor(8) as pool:
    assert len({{id(library) for library in pool.map(compiler.load, [{ANSWER!r}] * 16)}}) == 1
"""
    run(code)


@needs_compiler
@pytest.mark.skipif(platform.machine() != "x86_64", reason="names instructions of x86-64")
def test_instructions_that_the_command_names_are_those_of_the_kernels(cache, monkeypatch):
    monkeypatch.setenv("CXX", f"{COMPILER} -march=x86-64-v2")
    source = 'extern "C" int uses_avx() {\n#ifdef __AVX__\nreturn 1;\n#else\nreturn 0;\n#endif\n}\n'
    run(f"from recurlab.fuse.cpu import compiler\nassert compiler.load({source!r}).uses_avx() == 0\n")


@pytest.mark.parametrize("command", ["nonsense", "'unbalanced", "false", "/", None])
def test_without_a_compiler_a_line_says_what_to_install(cache, tmp_path, monkeypatch, command):
    if command is not None:
        monkeypatch.setenv("CXX", command)
    code = f"""
import os
from recurlab.errors import RecurlabError
from recurlab.fuse.cpu import compiler
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
from recurlab.fuse.cpu import compiler
library = compiler.load({TEAM!r})
torch.set_num_threads(3)
torch.rand(3000, 300).exp()
threads = len(os.listdir("/proc/self/task"))
whole = library.team(3)  # smaller ones end threads, which the next large one then starts anew
assert len(os.listdir("/proc/self/task")) == threads > 2, "a second pool"
print([library.team(1), library.team(2), whole])
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
