"""What is said of a kernel that waits in vain, from what device.h writes of it to the line that users read."""

import ctypes
import re

import pytest
import torch

import recurlab
from emulated import DEVICE
from recurlab.fuse import gpu as former
from recurlab.fuse.cpu import compiler
from recurlab.fuse.cuda import faults
from tiny_kernels import run

pytestmark = pytest.mark.skipif(compiler.unavailable() is not None, reason="no C++ compiler on this machine")
RECORD = re.search(r"struct FaultRecord \{.*?\};", DEVICE, re.S)[0]
# The part of device.h that gives up, with a clock that goes on by half of its patience at each look.
GIVING_UP = DEVICE[DEVICE.index("constexpr long long PATIENCE") : DEVICE.index("// ---- a cluster")]
GIVING_UP = re.sub("constexpr long long ([^;]*);", r"enum : long long { \1 };", GIVING_UP).replace("DEVICE", "")
PATIENT = f"""
struct Device {{
    {GIVING_UP}
    long long looks = 0;
    long long clock64() {{ return ++looks << 32; }}
    unsigned atomicExch_system(unsigned *at, unsigned value) {{ return __atomic_exchange_n(at, value, 5); }}
    void __threadfence_system() {{}}
    void __trap() {{ emulation::stop("gave up after %ld looks", looks); }}
}} device;
"""


@pytest.fixture
def record():
    found = faults.record()
    ctypes.memset(ctypes.addressof(found), 0, ctypes.sizeof(found))
    yield found
    found.set = 0


@pytest.mark.parametrize(("before", "looks"), [(0, 3), (1, 6)], ids=["first", "second"])
def test_who_waits_in_vain_gives_up_and_the_first_one_says_where(record, before, looks):
    number = faults.watch("forward of GRU", "some\n  await(counter, target);\nlines")
    record.set = before
    body = f"""{PATIENT}
    if (thread_index() != 5) return;
    for (long long since = 0;;)
        device.be_patient(since, {{(Device::FaultRecord *)p.y, {number}, 512, 64, 96}}, 15, 16, 2);
    """
    with pytest.raises(AssertionError, match=f"gave up after {looks} looks"):
        run(body, torch.zeros(1), record.memory, blocks=3)
    if not before:
        assert faults.fault() == (
            "kernel forward of GRU (T=512, B=64, H=96): block 0 waited in vain at `await(counter, target);`: "
            "15 of 16 signals"
        )


def test_nothing_is_said_where_nothing_has_gone_wrong(record):
    assert faults.fault() is None
    assert former.fault is faults.fault


def test_a_kernel_can_say_who_it_is(gpu, record):
    told = []
    fill = """{
        FaultRecord &r = *(FaultRecord *)p.fault.record;
        r.kernel = p.fault.kernel, r.steps = p.fault.steps, r.batch = p.fault.batch, r.units = p.fault.units;
        r.block = 2, r.line = 1, r.set = 1;
    } """
    with_record = lambda text: text.replace("\nENTRY(", f"\n{RECORD}\nENTRY(", 1)  # noqa: E731
    gpu.use(edit=lambda text: with_record(text).replace("{ run_", "{ " + fill + "run_"))
    layer = recurlab.RNN(3, 20, cell="rnn", recurrence="diagonal", backend="fused").requires_grad_(False)
    for steps, batch in ((4, 2), (5, 3)):
        layer(torch.zeros(steps, batch, 3))
        told.append(faults.fault())
    for line, sizes in zip(told, ("T=4, B=2, H=20", "T=5, B=3, H=20"), strict=True):
        assert line == f"kernel diagonal_forward of Elman ({sizes}): block 2 waited in vain at `#define STORAGE 0`"
