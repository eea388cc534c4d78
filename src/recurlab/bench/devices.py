"""GPUs by their names, to compile for one where there is none."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from recurlab.errors import check_choice
from recurlab.fuse.cuda import gpu
from recurlab.fuse.cuda.gpu import Properties

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


# How many clusters of 2, 4, 8 and 16 blocks a Hopper of 132 multiprocessors may hold, which plans
# depend on: the ones that are switched off differ from one GPU of a model to the next. Empty: its
# driver was not asked.
HOPPER = ((), (66, 33, 16, 8), (66, 32, 15, 7), (66, 32, 14, 5))


def variants(name: str) -> list[Properties]:
    """Return the variants of a GPU model, which differ in how many clusters they can hold.

    Raises:
        RecurlabError: if there is no GPU of this name.
    """
    check_choice("name", name, GPUS)
    found = GPUS[name]
    return [replace(found, clusters=clusters) for clusters in (HOPPER if found.capability == (9, 0) else ((),))]


@contextmanager
def taken_for(properties: Properties | None) -> Iterator[None]:
    """Plan kernels for a GPU that need not be present; None: for this machine's own."""
    here = gpu.properties
    try:
        if properties is not None:
            gpu.properties = lambda device: properties
        yield
    finally:
        gpu.properties = here
