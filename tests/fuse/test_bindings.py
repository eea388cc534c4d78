"""The real bindings, from a launch down to a driver that only says what it was asked for."""

import platform
import subprocess
import sys
from pathlib import Path

import pytest

from compiling import COMPILER, needs_compiler, run

if (sys.platform, platform.machine()) != ("linux", "x86_64"):  # there the development tools bring them
    pytest.importorskip("cuda.bindings.driver")

SOURCE = """
struct Problem { double x; int n; void *p; };
extern "C" __global__ void kernel(const __grid_constant__ Problem p) { *(int *)p.p = p.n; }
"""
REAL = """
import ctypes, torch
from types import SimpleNamespace
from recurlab.fuse.cuda import gpu, nvrtc
nvrtc.cubin(SOURCE, (9, 0))  # before there is a driver, which NVRTC would ask too
ctypes.CDLL(LIBRARY)
torch.cuda.get_device_properties = lambda index: SimpleNamespace(
    name="Some GPU", major=9, minor=0, multi_processor_count=132, shared_memory_per_block_optin=232448
)
torch.cuda.current_stream = lambda device: SimpleNamespace(cuda_stream=0x51)
class Problem(ctypes.Structure):
    _fields_ = (("x", ctypes.c_double), ("n", ctypes.c_int), ("p", ctypes.c_void_p))
module = gpu.Module(SOURCE, torch.device("cuda", 1))
print("--", flush=True)
problem = Problem(1.5, -7, 0xabc)
module.launch("kernel", problem, blocks=32, threads=256)
module.launch("kernel", problem, blocks=64, threads=128, shared=200000, cluster=16, cooperative=True)
print("--", flush=True)
print(module.clusters("kernel", threads=256, shared=100, cluster=4), flush=True)
print("--", flush=True)
try: module.launch("kernel", problem, blocks=0, threads=32)
except ValueError as error: print(error)
"""
HEARD = """\
init 0
device 1
retain 6
capture mode 2
push 0xc0
load ELF
pop
capture mode 0
--
push 0xc0
kernel kernel of 0xd0
launch 0xf0: 1.5 -7 0xabc, no extra
  grid 32 1 1, block 256 1 1, shared 0, stream 0x51, attributes 0
pop
push 0xc0
kernel kernel of 0xd0
attribute 1 of 0xf0
attribute 8 of 0xf0 = 232432
attribute 14 of 0xf0 = 1
launch 0xf0: 1.5 -7 0xabc, no extra
  grid 64 1 1, block 128 1 1, shared 200000, stream 0x51, attributes 2
  cluster 16 1 1
  cooperative 1
pop
--
push 0xc0
clusters of 0xf0
  grid 4 1 1, block 256 1 1, shared 100, stream (nil), attributes 1
  cluster 4 1 1
pop
7
--
push 0xc0
launch 0xf0: 1.5 -7 0xabc, no extra
  grid 0 1 1, block 32 1 1, shared 0, stream 0x51, attributes 0
pop
kernel 'kernel' on Some GPU: cuLaunchKernelEx: CUDA_ERROR_INVALID_VALUE: invalid argument \
(blocks=0, threads=32, shared=0, cluster=1, cooperative=False)
"""


@needs_compiler
def test_the_real_bindings_bring_it_all_to_the_driver(cache, tmp_path):
    library = tmp_path / "driver.so"
    source = Path(__file__).with_name("driver.cpp")
    command = [COMPILER, "-std=c++17", "-Wall", "-Werror", "-shared", "-fPIC", "-Wl,-soname,libcuda.so.1", source]
    subprocess.run([*command, "-o", library], check=True)
    assert run(f"{SOURCE=}\nLIBRARY = {str(library)!r}{REAL}")[0] == HEARD
