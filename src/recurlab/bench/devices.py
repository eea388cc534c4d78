"""GPUs by their names, to compile for one where there is none."""

from collections.abc import Iterator
from contextlib import contextmanager

from recurlab.errors import check_choice
from recurlab.fuse import gpu
from recurlab.fuse.gpu import Properties

KIB = 1024
GPUS = {
    "a100": Properties("NVIDIA A100-SXM4-80GB", (8, 0), 108, 163 * KIB),
    "rtx3090": Properties("NVIDIA GeForce RTX 3090", (8, 6), 82, 99 * KIB),
    "rtx4090": Properties("NVIDIA GeForce RTX 4090", (8, 9), 128, 99 * KIB),
    "l40s": Properties("NVIDIA L40S", (8, 9), 142, 99 * KIB),
    "h100": Properties("NVIDIA H100 80GB HBM3", (9, 0), 132, 227 * KIB),
    "h200": Properties("NVIDIA H200", (9, 0), 132, 227 * KIB),
    "b200": Properties("NVIDIA B200", (10, 0), 148, 227 * KIB),
    "rtx5090": Properties("NVIDIA GeForce RTX 5090", (12, 0), 170, 99 * KIB),
}


@contextmanager
def taken_for(name: str) -> Iterator[None]:
    """Let kernels be planned for a GPU of `GPUS` that need not be there; for this machine's own if the name is empty.

    Raises:
        RecurlabError: if there is no GPU of this name.
    """
    if not name:
        yield
        return
    check_choice("name", name, GPUS)
    here = gpu.properties
    try:
        gpu.properties = lambda device: GPUS[name]
        yield
    finally:
        gpu.properties = here
