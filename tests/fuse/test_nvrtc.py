"""The compiler of CUDA kernels: what it makes of a source without a GPU, what it keeps, and its errors."""

import dataclasses
import functools
import platform
import sys

import pytest

from compiling import run
from recurlab.errors import RecurlabError
from recurlab.fuse import cache as disk
from recurlab.fuse.cuda import nvrtc

if (sys.platform, platform.machine()) != ("linux", "x86_64"):  # there the development tools bring them
    pytest.importorskip("cuda.bindings.nvrtc")

SOURCE = """
struct Problem { unsigned *x; };
unsigned twice(unsigned x) { return 2 * x; }
extern "C" __global__ void kernel(const __grid_constant__ Problem p) { *p.x = twice(*p.x); }
"""
CAPABILITIES = [(7, 5), (8, 0), (8, 6), (8, 9), (9, 0), (10, 0), (12, 0)]


@pytest.fixture
def afresh(monkeypatch):
    """Let the compiler be looked for again, by what the test makes of its surroundings."""
    monkeypatch.setattr(nvrtc, "_compiler", functools.cache(nvrtc._compiler.__wrapped__))


@pytest.fixture
def no_more_compiling(monkeypatch):
    def stop():
        monkeypatch.setattr(nvrtc, "_compile", lambda *_: pytest.fail("compiled again"))

    return stop


def test_a_source_is_compiled_once_for_each_architecture(cache, no_more_compiling):
    assert nvrtc.unavailable() is None
    made = {capability: nvrtc.cubin(SOURCE, capability) for capability in CAPABILITIES}
    assert len(set(made.values())) == len(CAPABILITIES)
    assert all(image.startswith(b"\x7fELF") and b".text.kernel" in image for image in made.values())
    assert len(list(cache.glob("*.cubin"))) == len(CAPABILITIES)
    assert {path.read_text() for path in cache.glob("*.cu")} == {SOURCE}
    no_more_compiling()
    assert {capability: nvrtc.cubin(SOURCE, capability) for capability in CAPABILITIES} == made


def test_another_version_or_source_is_compiled_anew(cache, monkeypatch):
    nvrtc.cubin(SOURCE, (9, 0))
    nvrtc.cubin(SOURCE + "// another\n", (9, 0))
    assert len(list(cache.glob("*.cubin"))) == 2
    other = dataclasses.replace(nvrtc._compiler(), version="99.0")
    monkeypatch.setattr(nvrtc, "_compiler", lambda: other)
    nvrtc.cubin(SOURCE, (9, 0))
    assert len(list(cache.glob("*.cubin"))) == 3


@pytest.mark.parametrize("damage", ["truncated", "one bit", "empty", "directory"])
def test_a_damaged_entry_is_compiled_again(cache, no_more_compiling, damage):
    image = nvrtc.cubin(SOURCE, (8, 0))
    (path,) = cache.glob("*.cubin")
    sealed = path.read_bytes()
    if damage == "directory":
        path.unlink()
        path.mkdir()
    else:
        flipped = sealed[:99] + bytes([sealed[99] ^ 1]) + sealed[100:]
        path.write_bytes({"truncated": sealed[:-1], "one bit": flipped, "empty": b""}[damage])
    assert nvrtc.cubin(SOURCE, (8, 0)) == image
    no_more_compiling()
    assert nvrtc.cubin(SOURCE, (8, 0)) == image


def test_without_a_cache_it_compiles_and_warns_once(cache, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("RECURLAB_CACHE", str(tmp_path / "file"))
    monkeypatch.setattr(disk, "_warned", False)
    with pytest.warns(RuntimeWarning, match="can't keep compiled kernels in .*file: .*RECURLAB_CACHE") as caught:
        assert nvrtc.cubin(SOURCE, (9, 0)) == nvrtc.cubin(SOURCE, (9, 0))
    assert [warning.filename for warning in caught] == [__file__]


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("\nint f() { return g(); }", r'kernel\.cu\(2\): error: identifier "g" is undefined'),
        ('extern "C" __global__ void f() { asm("nonsense;"); }', "error.*'nonsense'"),
        ("#include <cuda_fp16.h>", 'error: could not open source file "cuda_fp16.h"'),
    ],
)
def test_a_source_with_an_error_is_refused_with_its_first_line(cache, source, message):
    with pytest.raises(RecurlabError, match=rf"^NVRTC [\d.]+ can't build a kernel: [^\n]*{message}[^\n]*$"):
        nvrtc.cubin(source, (9, 0))
    assert list(cache.iterdir()) == []


def test_a_gpu_of_the_same_generation_runs_what_its_elder_runs(cache, monkeypatch):
    old = dataclasses.replace(nvrtc._compiler(), version="12.6", architectures=(75, 80, 86, 90))
    monkeypatch.setattr(nvrtc, "_compiler", lambda: old)
    assert nvrtc.cubin(SOURCE, (8, 9)) == nvrtc.cubin(SOURCE, (8, 6))
    with pytest.raises(
        RecurlabError, match=r"^compute capability 12\.0: NVRTC 12\.6 compiles for 7\.5 to 9\.0; install"
    ):
        nvrtc.cubin(SOURCE, (12, 0))


def test_a_gpu_that_is_too_old_is_refused(cache):
    with pytest.raises(RecurlabError, match=r"^compute capability 7\.0: must be at least 7\.5"):
        nvrtc.cubin(SOURCE, (7, 0))


@pytest.mark.parametrize(("cuda", "package"), [(None, "13"), ("13.0", "13"), ("12.9", "12")])
def test_without_cuda_bindings_a_line_says_what_to_install(afresh, monkeypatch, cuda, package):
    monkeypatch.setattr("torch.version.cuda", cuda)
    monkeypatch.setitem(sys.modules, "cuda.bindings", None)
    reason = nvrtc.unavailable()
    assert reason.startswith("kernels on a GPU need cuda-bindings (")
    assert reason.endswith(f"): pip install 'cuda-bindings=={package}.*'")
    assert "\n" not in reason
    with pytest.raises(RecurlabError) as caught:
        nvrtc.cubin(SOURCE, (9, 0))
    assert str(caught.value) == reason


@pytest.mark.parametrize(("cuda", "wheel"), [("13.0", "nvidia-cuda-nvrtc==13.*"), ("12.9", "nvidia-cuda-nvrtc-cu12")])
def test_without_the_library_a_line_says_what_to_install(afresh, monkeypatch, cuda, wheel):
    def missing():
        raise RuntimeError("Failed to dlopen libnvrtc.so\nNo such file: here\nNo such file: there")

    monkeypatch.setattr("torch.version.cuda", cuda)
    monkeypatch.setattr("cuda.bindings.nvrtc.nvrtcVersion", missing)
    expected = f"kernels on a GPU need the library NVRTC (Failed to dlopen libnvrtc.so): pip install '{wheel}'"
    assert nvrtc.unavailable() == expected


def test_elsewhere_than_on_linux_there_is_none(afresh, monkeypatch):
    monkeypatch.setattr(sys, "platform", "darwin")
    assert nvrtc.unavailable() == "platform='darwin': must be linux for kernels on a GPU"


def test_a_library_that_is_loaded_already_finds_its_other_half(cache):
    code = f"""
import ctypes, nvidia
from pathlib import Path
from recurlab.fuse.cuda import nvrtc
found = [path for root in nvidia.__path__ for path in Path(root).rglob("libnvrtc.so.1?")]
ctypes.CDLL(str(found[0]))
assert nvrtc.cubin({SOURCE!r}, (9, 0)).startswith(b"\\x7fELF")
"""
    run(code)
