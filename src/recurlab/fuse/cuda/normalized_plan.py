"""How a kernel with layer normalisation is laid out on a GPU; the names and the sizes are those of normalized.h."""

from functools import lru_cache

from recurlab.fuse.cuda.gpu import Properties
from recurlab.fuse.cuda.plan import WARP, Plan, Task
from recurlab.fuse.headers import norm_constants

THREADS = 512  # of a block, at most
ELEMENTS = 4  # units times samples of a thread, at most: what it keeps of them is in registers
PARTS = 32  # into which sums are added up at first
UNITS, DENSE_UNITS = 2048, 1024  # of a layer, at most; of a dense one a block reads all weights in each step


@lru_cache
def normalized(task: Task, kind: str, device: Properties) -> Plan:
    """Return the plan of a kernel with layer normalisation.

    Args:
        task: what for.
        kind: of the loop: diagonal, or dense, which a block recurrence runs in too.
        device: the GPU.
    """
    threads = min(THREADS, -(-task.units // WARP) * WARP)
    samples = 1
    if kind == "dense":  # samples share what is read of the weights
        most = ELEMENTS // -(-task.units // threads)
        while 2 * samples <= most and _groups(task, samples) > device.multiprocessors:
            samples *= 2
        while samples > 1 and _shared(task, threads, samples) > device.shared:
            samples //= 2
    constants = {
        "STORAGE": task.storage, "NOISY": int(task.noisy), "THREADS": threads, "HIDDEN": task.units,
        "WIDTH": task.width, "DIAGONAL": int(kind == "diagonal"), "SAMPLES": samples, **norm_constants(task.norm),
    }  # fmt: skip
    return Plan(
        "normalized_backward" if task.backward else "normalized_forward",
        tuple((name, int(value)) for name, value in constants.items()),
        _groups(task, samples),
        threads,
        _shared(task, threads, samples),
        parts=-(-task.batch // samples),
    )


def unfit(units: int, kind: str) -> str | None:
    """Return None, or why no kernel with layer normalisation serves so many units."""
    most = DENSE_UNITS if kind == "dense" else UNITS
    return None if units <= most else f"hidden_size={units}: at most {most} in its CUDA kernels with layer_norm"


def _groups(task: Task, samples: int) -> int:
    """Return how many groups of samples there are, over all directions."""
    return task.directions * -(-task.batch // samples)


def _shared(task: Task, threads: int, samples: int) -> int:
    """Return the bytes of shared memory of a block: for sums, and for what enters a product."""
    sums = (task.gates if task.norm == "gate" else 1) * (2 if task.backward else 1)
    gates = max(task.phases, default=0) if task.backward else 1
    return 4 * samples * (sums * (threads + PARTS) + gates * task.units)
