"""Loading and launching CUDA kernels: what the driver is asked for, without one."""

import ctypes
import platform
import sys
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest
import torch

from recurlab.errors import RecurlabError
from recurlab.fuse.cuda import faults, gpu

if (sys.platform, platform.machine()) != ("linux", "x86_64"):  # there the development tools bring them
    pytest.importorskip("cuda.bindings.driver")

SOURCE = """
struct Problem { double x; int n; void *p; };
extern "C" __global__ void kernel(const __grid_constant__ Problem p) { *(int *)p.p = p.n; }
"""
HOPPER = SimpleNamespace(
    name="Some GPU", major=9, minor=0, multi_processor_count=132, shared_memory_per_block_optin=232448
)
GPU = torch.device("cuda", 1)


class Problem(ctypes.Structure):
    _fields_ = (("x", ctypes.c_double), ("n", ctypes.c_int), ("p", ctypes.c_void_p))


class Driver:
    """The types of the real bindings; functions that note what they are asked for, and answer or fail as told."""

    def __init__(self, real):
        self.real = real
        self.asked = []
        self.failing = {}
        self.answers = {
            "cuDeviceGet": "device", "cuDevicePrimaryCtxRetain": "context", "cuModuleLoadData": "module",
            "cuModuleGetFunction": "function", "cuFuncGetAttribute": 16, "cuCtxPopCurrent": "context",
            "cuThreadExchangeStreamCaptureMode": "old mode", "cuOccupancyMaxActiveClusters": 7,
            "cuGetErrorString": b"the  meaning",
        }  # fmt: skip

    def __getattr__(self, name):
        there = getattr(self.real, name)
        if not name.startswith("cu"):
            return there

        def function(*arguments):
            if name == "cuLaunchKernelEx":
                pointer = ctypes.cast(arguments[2], ctypes.POINTER(ctypes.c_void_p))[0]
                problem = Problem.from_address(pointer)
                self.asked.append((name, describe(arguments[0]), arguments[1], (problem.x, problem.n, problem.p)))
            else:
                self.asked.append((name, *arguments))
            status = self.real.CUresult(self.failing.get(name, 0))
            return (status, self.answers[name]) if name in self.answers else (status,)

        return function

    def names(self):
        return [name for name, *_ in self.asked]


def describe(config):
    attributes = {}
    for one in config.attrs[: config.numAttrs]:
        size = one.value.clusterDim
        cluster = one.id == type(one.id).CU_LAUNCH_ATTRIBUTE_CLUSTER_DIMENSION
        attributes[one.id.name] = (size.x, size.y, size.z) if cluster else one.value.cooperative
    grid = (config.gridDimX, config.gridDimY, config.gridDimZ)
    block = (config.blockDimX, config.blockDimY, config.blockDimZ)
    return grid, block, config.sharedMemBytes, int(config.hStream), attributes


@pytest.fixture
def device(monkeypatch):
    """Return the properties of the GPU that torch finds; its current stream is the device's index and 0x50."""
    found = SimpleNamespace(**vars(HOPPER))
    faults.record()  # in memory that needs no GPU
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: found)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda one: SimpleNamespace(cuda_stream=0x50 + one.index))
    yield found
    for kept in (gpu._properties, gpu._load, gpu._driver, gpu._config, gpu._with_clusters):
        kept.cache_clear()


@pytest.fixture
def driver(device, cache, monkeypatch):
    from cuda.bindings import driver as real
    from cuda.bindings import nvrtc  # noqa: F401 - takes types of the real one

    driver = Driver(real)
    monkeypatch.setattr("cuda.bindings.driver", driver)
    monkeypatch.setitem(sys.modules, "cuda.bindings.driver", driver)
    return driver


def attributes(driver):
    return [(asked[2].name, asked[3]) for asked in driver.asked if asked[0] == "cuFuncSetAttribute"]


def test_properties_are_those_that_torch_finds(device):
    expected = gpu.Properties("Some GPU", (9, 0), 132, 232448)
    assert gpu.properties(GPU) == expected
    device.name = "Another"
    assert gpu.properties(torch.device("cuda")) is gpu.properties(GPU) == expected
    with pytest.raises(RecurlabError, match=r"^device='cpu': must be a cuda device$"):
        gpu.properties(torch.device("cpu"))


def test_a_module_is_loaded_at_once_and_once_a_device(driver):
    gpu.Module(SOURCE, GPU)
    modes = driver.real.CUstreamCaptureMode
    image = driver.asked[5][1]
    assert driver.asked == [
        ("cuInit", 0),
        ("cuDeviceGet", 1),
        ("cuDevicePrimaryCtxRetain", "device"),
        ("cuThreadExchangeStreamCaptureMode", modes.CU_STREAM_CAPTURE_MODE_RELAXED),
        ("cuCtxPushCurrent", "context"),
        ("cuModuleLoadData", image),
        ("cuCtxPopCurrent",),
        ("cuThreadExchangeStreamCaptureMode", "old mode"),
    ]
    assert image.startswith(b"\x7fELF")
    gpu.Module(SOURCE, torch.device("cuda"))
    assert len(driver.asked) == 8
    gpu.Module(SOURCE, torch.device("cuda", 0))
    gpu.Module(SOURCE + "// another\n", GPU)
    assert driver.names().count("cuModuleLoadData") == 3


def test_a_launch_takes_the_struct_and_the_stream(driver):
    module = gpu.Module(SOURCE, GPU)
    module.launch("kernel", Problem(1.5, -7, 0xABC), blocks=33, threads=128)
    driver.asked.clear()
    module.launch("kernel", Problem(2.5, 8, 0xDEF), blocks=33, threads=128, shared=48 * 1024)
    config = ((33, 1, 1), (128, 1, 1), 48 * 1024, 0x51, {})
    assert driver.asked == [
        ("cuCtxPushCurrent", "context"),
        ("cuLaunchKernelEx", config, "function", (2.5, 8, 0xDEF)),
        ("cuCtxPopCurrent",),
    ]


def test_each_stream_gets_its_own_launch(driver, monkeypatch):
    module = gpu.Module(SOURCE, GPU)
    for stream in (0, 0xAAAA, 0xBBBB, 0xAAAA):
        monkeypatch.setattr(torch.cuda, "current_stream", lambda one, s=stream: SimpleNamespace(cuda_stream=s))
        module.launch("kernel", Problem(), blocks=1, threads=32)
    launches = [asked for asked in driver.asked if asked[0] == "cuLaunchKernelEx"]
    assert [config[3] for _, config, *_ in launches] == [0, 0xAAAA, 0xBBBB, 0xAAAA]


def test_what_a_kernel_needs_more_is_asked_for_once(driver):
    module = gpu.Module(SOURCE, GPU)
    for _ in range(2):
        module.launch("kernel", Problem(), blocks=8, threads=64, cluster=8)
        assert attributes(driver) == []
    for _ in range(2):
        module.launch("kernel", Problem(), blocks=32, threads=64, shared=50000, cluster=16, cooperative=True)
        assert attributes(driver) == [
            ("CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES", 232448 - 16),
            ("CU_FUNC_ATTRIBUTE_NON_PORTABLE_CLUSTER_SIZE_ALLOWED", 1),
        ]
    wanted = {"CU_LAUNCH_ATTRIBUTE_CLUSTER_DIMENSION": (16, 1, 1), "CU_LAUNCH_ATTRIBUTE_COOPERATIVE": 1}
    assert driver.asked[-2][1] == ((32, 1, 1), (64, 1, 1), 50000, 0x51, wanted)


def test_the_driver_is_asked_once_for_clusters_of_blocks_alone_on_a_multiprocessor(driver):
    for _ in range(2):
        assert gpu.properties(GPU).clusters == (7, 7, 7, 7)
    found = [given for name, *given in driver.asked if name == "cuOccupancyMaxActiveClusters"]
    for (function, config), size in zip(found, (2, 4, 8, 16), strict=True):
        wanted = {"CU_LAUNCH_ATTRIBUTE_CLUSTER_DIMENSION": (size, 1, 1)}
        assert function == "function"
        assert describe(config) == ((size, 1, 1), (256, 1, 1), 232448 // 2 + 1024, 0, wanted)


@pytest.mark.parametrize("why", ["no clusters", "driver"])
def test_clusters_of_which_nobody_knows(driver, device, why):
    if why == "no clusters":
        device.major = 8
    else:
        driver.failing["cuOccupancyMaxActiveClusters"] = 1
    assert gpu.properties(GPU).clusters == ()
    assert ("cuOccupancyMaxActiveClusters" in driver.names()) == (why == "driver")


FAILURES = {"cuLaunchKernelEx": 720, "cuModuleGetFunction": 500, "cuFuncSetAttribute": 1}


@pytest.mark.parametrize("name", FAILURES)
def test_what_the_driver_refuses_is_said_in_a_line(driver, name):
    module = gpu.Module(SOURCE, GPU)
    driver.failing[name] = FAILURES[name]
    error = driver.real.CUresult(FAILURES[name]).name
    with pytest.raises(RecurlabError) as caught:
        module.launch("kernel", Problem(), blocks=999, threads=64, shared=50000, cooperative=True)
    assert str(caught.value) == (
        f"kernel 'kernel' on Some GPU: {name}: {error}: the meaning "
        "(blocks=999, threads=64, shared=50000, cluster=1, cooperative=True)"
    )
    assert driver.names().count("cuCtxPushCurrent") == driver.names().count("cuCtxPopCurrent")
    driver.failing.clear()
    module.launch("kernel", Problem(), blocks=1, threads=64)


def test_a_launch_after_a_wait_in_vain_says_where_it_was(driver, monkeypatch):
    module = gpu.Module(SOURCE, GPU)
    driver.failing["cuLaunchKernelEx"] = 719
    monkeypatch.setattr(gpu, "fault", lambda: "kernel forward of GRU waited")
    with pytest.raises(RecurlabError, match=r"^kernel 'kernel' .*\); before that, kernel forward of GRU waited$"):
        module.launch("kernel", Problem(), blocks=1, threads=64)


def test_a_module_that_can_not_be_loaded_leaves_the_thread_as_it_was(driver):
    driver.failing["cuModuleLoadData"] = 209
    with pytest.raises(RecurlabError, match=r"^cuModuleLoadData: CUDA_ERROR_NO_BINARY_FOR_GPU: the meaning$"):
        gpu.Module(SOURCE, GPU)
    assert driver.asked[-2] == ("cuCtxPopCurrent",)
    assert driver.asked[-1] == ("cuThreadExchangeStreamCaptureMode", "old mode")
    driver.failing.clear()
    gpu.Module(SOURCE, GPU)


def test_threads_may_launch_at_once(driver):
    module = gpu.Module(SOURCE, GPU)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda n: module.launch("kernel", Problem(n=n), blocks=1 + n % 3, threads=32), range(200)))
    launches = [asked for asked in driver.asked if asked[0] == "cuLaunchKernelEx"]
    assert sorted((n, config[0][0]) for _, config, _, (_, n, _) in launches) == [(n, 1 + n % 3) for n in range(200)]
