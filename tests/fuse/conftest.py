"""Fixtures of the tests that need compiled kernels."""

import pytest

from cell_runs import RECURRENCES
from compiling import COMPILER, WRAPPER
from emulated_gpu import EmulatedGPU
from variants import VARIANTS


@pytest.fixture(params=VARIANTS)
def variant(request):
    return VARIANTS[request.param]


@pytest.fixture
def able(skip_unless_able):
    skip_unless_able("fused")


@pytest.fixture(params=RECURRENCES)
def recurrence(request):
    return RECURRENCES[request.param]


@pytest.fixture
def gpu(able, monkeypatch):
    """Let layers on the CPU run the CUDA kernels under emulation; return the GPU that they see."""
    return EmulatedGPU().install(monkeypatch)


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
