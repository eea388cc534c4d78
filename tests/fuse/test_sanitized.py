"""No kernel of a cell leaves its memory or does what C++ does not define: all of them run under ASan and UBSan."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from compiling import COMPILER
from sanitized import LAYERS, LOOPS

HERE = Path(__file__).parent
SLOWEST = 1800  # seconds that a process may take on a busy machine


def library(name: str) -> str:
    """Return the path of a library of the compiler's, "" where it has none."""
    if COMPILER is None or sys.platform != "linux":
        return ""
    command = [COMPILER, f"-print-file-name={name}"]
    path = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    return path if Path(path).is_absolute() else ""


LIBRARIES = [library("libasan.so"), library("libubsan.so")]
pytestmark = [
    pytest.mark.slow,
    pytest.mark.usefixtures("able", "cache"),
    pytest.mark.skipif(not all(LIBRARIES), reason="needs GCC's libasan and libubsan"),
]


def run(*words: str) -> subprocess.CompletedProcess[str]:
    """Run Python with the library that has to come before all others; what Python leaks is no concern."""
    own = {"LD_PRELOAD": " ".join(LIBRARIES), "ASAN_OPTIONS": "detect_leaks=0", "OMP_NUM_THREADS": "2"}
    own["PYTHONPATH"] = os.pathsep.join([str(HERE), *filter(None, [os.environ.get("PYTHONPATH")])])
    command = [sys.executable, *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=SLOWEST, env=os.environ | own, check=False)


@pytest.mark.parametrize(
    ("fault", "reported"),
    [
        ("const int *volatile y = x - n; return y != x", "to null pointer"),
        ("int *volatile all = (int *)__builtin_malloc(12); return all[n]", "heap-buffer-overflow"),
    ],
)
def test_a_fault_ends_the_process(fault, reported):
    source = f'extern "C" long fault(const int *x, int n) {{ {fault}; }}'
    code = f"import sanitized; sanitized.watch(); sanitized.compiler.load({source!r}).fault(None, 3)"
    done = run("-c", code)
    assert done.returncode != 0
    assert reported in done.stderr, done.stderr[-3000:]


@pytest.mark.parametrize("loop", LOOPS)
def test_the_kernels_of_all_cells_run_without_a_fault(loop):
    done = run(str(HERE / "sanitized.py"), loop, *LAYERS)
    assert done.returncode == 0, done.stderr[-5000:]
    assert len(done.stdout.splitlines()) == len(LAYERS) * len(LOOPS[loop])
