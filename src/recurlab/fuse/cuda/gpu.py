"""CUDA kernels on a GPU: compiled, loaded, and launched on torch's current stream, through cuda-bindings.

A forked process can launch nothing, as nothing in it can use CUDA after its parent has: torch says
so when it is asked for the stream.
"""

import ctypes
import functools
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch

from recurlab.errors import RecurlabError, one_line
from recurlab.fuse.cuda.faults import fault, record
from recurlab.fuse.cuda.nvrtc import cubin

# What a kernel may have without asking for more: bytes of dynamic shared memory, and blocks of a cluster.
SHARED, CLUSTER = 48 * 1024, 8
CLUSTERS = (2, 4, 8, 16)  # their sizes
# The smallest kernel: as many clusters of it fit as of any kernel of which one block fills a multiprocessor.
LEAST = 'extern "C" __global__ void least() {}'


@dataclass(frozen=True)
class Properties:
    """What a GPU has.

    Attributes:
        name: of the model.
        capability: the compute capability, e.g. ``(9, 0)``.
        multiprocessors: how many.
        shared: the most bytes of shared memory that a block may have.
        clusters: how many clusters of 2, 4, 8 and 16 blocks it holds at once, one block a
            multiprocessor; empty if it has none, or nobody knows.
    """

    name: str
    capability: tuple[int, int]
    multiprocessors: int
    shared: int
    clusters: tuple[int, ...] = ()


def dotted(capability: tuple[int, int]) -> str:
    """Return a compute capability as it is written."""
    return ".".join(map(str, capability))


def properties(device: torch.device) -> Properties:
    """Return the properties of a cuda device, the current one if it has no index."""
    return _with_clusters(_index(device))


class Module:
    """The kernels of a CUDA source on one device, each with one parameter: a struct by value.

    Compiled and loaded at once, and for the life of the process: made before a CUDA graph is
    captured, a module costs the capture nothing.

    Args:
        source: CUDA C++ with ``extern "C"`` kernels.
        device: a cuda device, the current one if it has no index.

    Raises:
        RecurlabError: if the source can't be compiled or loaded.
    """

    def __init__(self, source: str, device: torch.device) -> None:
        self.device = torch.device("cuda", _index(device))
        self._context, self._module = _load(source, self.device.index)
        self._kernels: dict[tuple[str, bool, bool], Any] = {}

    def launch(
        self, name: str, problem: ctypes.Structure, *,
        blocks: int, threads: int, shared: int = 0, cluster: int = 1, cooperative: bool = False,
    ) -> None:  # fmt: skip
        """Launch a kernel on torch's current stream of the device, without waiting for it.

        Args:
            name: of the kernel.
            problem: its parameter, which is copied.
            blocks: of the grid, a multiple of `cluster`.
            threads: of a block.
            shared: bytes of dynamic shared memory of a block.
            cluster: blocks of a cluster.
            cooperative: whether all blocks have to be resident at once.

        Raises:
            RecurlabError: if the driver refuses, with its reason; and where an earlier kernel has
                waited in vain.
        """
        stream = torch.cuda.current_stream(self.device).cuda_stream
        config = _config(blocks, threads, shared, cluster, cooperative, stream)
        parameters = ctypes.c_void_p(ctypes.addressof(problem))  # an array of one pointer
        try:
            with _current(self._context):
                _call("cuLaunchKernelEx", config, self._kernel(name, shared, cluster), ctypes.addressof(parameters), 0)
        except RecurlabError as error:
            size = f"{blocks=}, {threads=}, {shared=}, {cluster=}, {cooperative=}"
            earlier = "" if (what := fault()) is None else f"; before that, {what}"
            where = f"kernel {name!r} on {_properties(self.device.index).name}"
            raise RecurlabError(f"{where}: {error} ({size}){earlier}") from None

    def clusters(self, name: str, *, threads: int, shared: int, cluster: int) -> int:
        """Return how many clusters of blocks of a kernel the whole device can hold at once."""
        with _current(self._context):
            kernel = self._kernel(name, shared, cluster)
            config = _config(cluster, threads, shared, cluster, False, 0)
            return int(_call("cuOccupancyMaxActiveClusters", kernel, config))

    def _kernel(self, name: str, shared: int, cluster: int) -> Any:
        """Return the handle of a kernel that may be launched with this much, in the current context."""
        key = (name, shared > SHARED, cluster > CLUSTER)
        if key not in self._kernels:
            attributes = _driver().CUfunction_attribute
            kernel = _call("cuModuleGetFunction", self._module, name.encode())
            # Constant values: two threads that set them at once do no harm.
            if shared > SHARED:
                static = _call("cuFuncGetAttribute", attributes.CU_FUNC_ATTRIBUTE_SHARED_SIZE_BYTES, kernel)
                most = _properties(self.device.index).shared - static
                _call("cuFuncSetAttribute", kernel, attributes.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES, most)
            if cluster > CLUSTER:
                allowed = attributes.CU_FUNC_ATTRIBUTE_NON_PORTABLE_CLUSTER_SIZE_ALLOWED
                _call("cuFuncSetAttribute", kernel, allowed, 1)
            self._kernels[key] = kernel
        return self._kernels[key]


@functools.cache
def _with_clusters(index: int) -> Properties:
    """Return a device's properties, after its driver was asked for its clusters."""
    found = _properties(index)
    if found.capability < (9, 0):
        return found
    alone = found.shared // 2 + 1024  # no block fits beside another
    counts = tuple(_clusters(index, size, alone) for size in CLUSTERS)
    return replace(found, clusters=counts) if any(counts) else found


def _clusters(index: int, size: int, shared: int) -> int:
    """Return how many clusters of a size a device holds, 0 if it can't be asked or refuses them."""
    try:
        return Module(LEAST, torch.device("cuda", index)).clusters("least", threads=256, shared=shared, cluster=size)
    except (RecurlabError, RuntimeError):  # the latter where there is no driver
        return 0


@functools.cache
def _properties(index: int) -> Properties:
    found: Any = torch.cuda.get_device_properties(index)
    capability = (found.major, found.minor)
    return Properties(found.name, capability, found.multi_processor_count, found.shared_memory_per_block_optin)


def _index(device: torch.device) -> int:
    if device.type != "cuda":
        raise RecurlabError(f"device={str(device)!r}: must be a cuda device")
    return torch.cuda.current_device() if device.index is None else device.index


@functools.cache
def _load(source: str, index: int) -> tuple[Any, Any]:
    """Return a device's context, which is torch's too, and the module loaded into it; neither is ever given back."""
    image = cubin(source, _properties(index).capability)
    _call("cuInit", 0)
    context = _call("cuDevicePrimaryCtxRetain", _call("cuDeviceGet", index))
    # While a graph is captured, by whatever thread, the driver else refuses what may have to wait for the device.
    relaxed = _driver().CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_RELAXED
    mode = _call("cuThreadExchangeStreamCaptureMode", relaxed)
    try:
        with _current(context):
            record()  # takes memory, once
            return context, _call("cuModuleLoadData", image)
    finally:
        _call("cuThreadExchangeStreamCaptureMode", mode)


@contextmanager
def _current(context: Any) -> Iterator[None]:
    """Make a context the thread's current one: a new thread has none until torch has called CUDA's runtime in it."""
    _call("cuCtxPushCurrent", context)
    try:
        yield
    finally:
        _call("cuCtxPopCurrent")


@functools.lru_cache(1024)
def _config(blocks: int, threads: int, shared: int, cluster: int, cooperative: bool, stream: int) -> Any:
    """Return a CUlaunchConfig; several threads may use it at once, so that nobody changes it."""
    driver = _driver()
    config, attributes = driver.CUlaunchConfig(), []
    config.gridDimX, config.gridDimY, config.gridDimZ = blocks, 1, 1
    config.blockDimX, config.blockDimY, config.blockDimZ = threads, 1, 1
    config.sharedMemBytes, config.hStream = shared, stream
    if cluster > 1:
        attributes.append(driver.CUlaunchAttribute())
        attributes[-1].id = driver.CUlaunchAttributeID.CU_LAUNCH_ATTRIBUTE_CLUSTER_DIMENSION
        size = attributes[-1].value.clusterDim
        size.x, size.y, size.z = cluster, 1, 1
    if cooperative:
        attributes.append(driver.CUlaunchAttribute())
        attributes[-1].id = driver.CUlaunchAttributeID.CU_LAUNCH_ATTRIBUTE_COOPERATIVE
        attributes[-1].value.cooperative = 1
    config.attrs, config.numAttrs = attributes, len(attributes)
    return config


@functools.cache
def _driver() -> Any:
    from cuda.bindings import driver  # there if NVRTC is, which is asked first

    return driver


def _call(name: str, *arguments: Any) -> Any:
    """Call a function of the driver and return its result, if it has one; raise what it says went wrong."""
    driver = _driver()
    status, *result = getattr(driver, name)(*arguments)
    if status:
        _, meaning = driver.cuGetErrorString(status)
        raise RecurlabError(f"{name}: {status.name}: {one_line((meaning or b'').decode())}")
    return result[0] if result else None
