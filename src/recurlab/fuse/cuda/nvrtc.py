"""From CUDA C++ source to a cubin: compiled once by NVRTC, then read from the cache on disk.

Needs neither a driver nor a CUDA toolkit: cuda-bindings and the NVRTC wheel, which torch's CUDA
wheels bring.
"""

import ctypes
import functools
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from recurlab.errors import RecurlabError, one_line
from recurlab.fuse import cache

OLDEST = (7, 5)  # compute capability: that of NVRTC 13
# A function without a qualifier is the device's, and no header is included.
FLAGS = ("-std=c++17", "-default-device")
SUFFIXES = (".cu", ".cubin")


@dataclass(frozen=True)
class _Compiler:
    """NVRTC: its functions, its version, and the architectures that it knows, as 90 for compute capability 9.0."""

    api: Any
    version: str
    architectures: tuple[int, ...]


def unavailable() -> str | None:
    """Return None if there is an NVRTC that works, else the reason in a line; found once a process."""
    with cache.lock:
        found = _compiler()
    return found if isinstance(found, str) else None


def version() -> str | None:
    """Return the version of the NVRTC in use, which each kernel in the cache is named by; None without one."""
    with cache.lock:
        found = _compiler()
    return None if isinstance(found, str) else found.version


def kept(source: str, capability: tuple[int, int]) -> bool:
    """Return whether `cubin` finds a source compiled in the cache."""
    with cache.lock:
        compiler = _compiler()
        if isinstance(compiler, str):
            return False
        try:
            return cache.holds(source, _identity(compiler, _flags(compiler, capability)), SUFFIXES)
        except RecurlabError:  # what it can't compile for is not there
            return False


def cubin(source: str, capability: tuple[int, int]) -> bytes:
    """Return CUDA C++ `source` compiled for a compute capability, e.g. ``(9, 0)``.

    Raises:
        RecurlabError: if there is no NVRTC, it does not know the architecture, or it can't compile
            the source.
    """
    with cache.lock:
        compiler = _compiler()
        if isinstance(compiler, str):
            raise RecurlabError(compiler)
        flags = _flags(compiler, capability)

        def build(work: Path) -> None:
            (work / "kernel.cubin").write_bytes(_compile(compiler.api, source, flags))

        try:
            identity = _identity(compiler, flags)
            image, problem = cache.obtain(source, identity, SUFFIXES, build, lambda content, _: content)
        except (OSError, RecurlabError) as error:
            raise RecurlabError(f"NVRTC {compiler.version} can't build a kernel: {one_line(error)}") from None
    if problem is not None:
        cache.warn(problem)
    return image


@functools.cache
def _compiler() -> _Compiler | str:
    """Return the NVRTC of this process, or the reason why there is none."""
    if sys.platform != "linux":
        return f"platform={sys.platform!r}: must be linux for kernels on a GPU"
    major = (torch.version.cuda or "13").partition(".")[0]
    try:
        from cuda.bindings import nvrtc
    except ImportError as error:
        return f"kernels on a GPU need cuda-bindings ({one_line(error)}): pip install 'cuda-bindings=={major}.*'"
    try:
        status, *version = nvrtc.nvrtcVersion()
        _check(nvrtc, status)
        _load_builtins(*version)
        status, architectures = nvrtc.nvrtcGetSupportedArchs()
        _check(nvrtc, status)
    except (RuntimeError, RecurlabError) as error:
        wheel = "nvidia-cuda-nvrtc-cu12" if major == "12" else f"nvidia-cuda-nvrtc=={major}.*"
        # What the loader tried fills a page.
        reason = one_line(str(error).partition("\n")[0])
        return f"kernels on a GPU need the library NVRTC ({reason}): pip install '{wheel}'"
    return _Compiler(nvrtc, ".".join(map(str, version)), tuple(architectures))


def _load_builtins(major: int, minor: int) -> None:
    """Load the library that NVRTC asks for by its bare name, which the loader does not look for in a wheel."""
    with suppress(OSError), Path("/proc/self/maps").open() as file:
        for library in {Path(line.split(maxsplit=5)[-1].strip()) for line in file if "/libnvrtc.so." in line}:
            ctypes.CDLL(str(library.with_name(f"libnvrtc-builtins.so.{major}.{minor}")))


def _flags(compiler: _Compiler, capability: tuple[int, int]) -> tuple[str, ...]:
    return (f"--gpu-architecture=sm_{_architecture(compiler, capability)}", *FLAGS)


def _identity(compiler: _Compiler, flags: tuple[str, ...]) -> tuple[str, ...]:
    return (f"nvrtc {compiler.version}", *flags)


def _architecture(compiler: _Compiler, capability: tuple[int, int]) -> int:
    """Return the architecture to compile for: the device's own, or an earlier one of the same major version."""
    name = f"compute capability {capability[0]}.{capability[1]}"
    if capability < OLDEST:
        raise RecurlabError(f"{name}: must be at least {OLDEST[0]}.{OLDEST[1]} for compiled kernels")
    wanted = 10 * capability[0] + capability[1]
    able = [one for one in compiler.architectures if one // 10 == capability[0] and one <= wanted]
    if not able:
        ends = [f"{one // 10}.{one % 10}" for one in (min(compiler.architectures), max(compiler.architectures))]
        raise RecurlabError(
            f"{name}: NVRTC {compiler.version} compiles for {ends[0]} to {ends[1]}; install a torch built for a CUDA "
            "that knows this GPU"
        )
    return max(able)


def _compile(api: Any, source: str, flags: tuple[str, ...]) -> bytes:
    status, program = api.nvrtcCreateProgram(source.encode(), b"kernel.cu", 0, [], [])
    _check(api, status)
    try:
        (status,) = api.nvrtcCompileProgram(program, len(flags), [flag.encode() for flag in flags])
        if status:
            log = _read(api, api.nvrtcGetProgramLogSize, api.nvrtcGetProgramLog, program)
            lines = [line for line in log.rstrip(b"\0").decode(errors="replace").splitlines() if line.strip()]
            lines = [line for line in lines if "error" in line] or lines
            _check(api, status, lines[0] if lines else "")
        return _read(api, api.nvrtcGetCUBINSize, api.nvrtcGetCUBIN, program)
    finally:
        api.nvrtcDestroyProgram(program)


def _read(api: Any, size: Callable[..., Any], get: Callable[..., Any], program: Any) -> bytes:
    status, length = size(program)
    _check(api, status)
    buffer = bytearray(length)
    (status,) = get(program, buffer)
    _check(api, status)
    return bytes(buffer)


def _check(api: Any, status: Any, reason: str = "") -> None:
    """Raise if a call has failed, with a `reason` or the one that NVRTC gives."""
    if status:
        raise RecurlabError(one_line(reason or api.nvrtcGetErrorString(status)[1].decode()))
