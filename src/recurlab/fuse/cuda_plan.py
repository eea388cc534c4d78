"""How a kernel is laid out on a GPU, and how that is decided for a diagonal one; see cuda_dense_plan for the others."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from recurlab.fuse.gpu import Properties

ACCESS = 16  # bytes that a thread moves at once, at most
IN_FLIGHT = 64  # registers for what is fetched ahead
UNPACKED = 48  # gates of the steps that are fetched together, in a backward: with more the registers do not suffice
CHUNK_STEPS = 64  # the fewest worth a chunk of their own
WARP = 32  # threads of a warp


@dataclass(frozen=True)
class Plan:
    """A program, what it is compiled for, and its launch.

    Attributes:
        program: its name.
        constants: pairs of a name and a number.
        blocks, threads, shared, cluster: the launch: blocks, threads and bytes of shared memory of each, and how many
            blocks make a cluster.
        cooperative: whether all blocks have to be resident at once.
        chunks: of time, in a diagonal backward.
        parts: rows of the sums over time that the kernel leaves.
        teams: of blocks, in a dense kernel.
        exchange: bytes of one of its exchange buffers in the device's memory; 0 where it needs none.
    """

    program: str
    constants: tuple[tuple[str, int], ...]
    blocks: int
    threads: int
    shared: int = 0
    cluster: int = 1
    cooperative: bool = False
    chunks: int = 1
    parts: int = 0
    teams: int = 0
    exchange: int = 0


@dataclass(frozen=True)
class Task:
    """What a plan is made for.

    Attributes:
        gates, states, phases: of the cell; of the phases, how many gates each has.
        steps, batch, units, width, directions: of the call; `width` units are a head.
        itemsize, storage: bytes of a number of a sequence, and which type it is, as the templates count them.
        noisy: whether there are masks, resets, zoneout or recurrent dropout.
        backward: whether the plan is for the gradient.
        aligned: how many numbers all rows in memory are aligned to.
        product: how the dense kernels multiply: see the template dense_product.h.
    """

    gates: int
    states: int
    phases: tuple[int, ...]
    steps: int
    batch: int
    units: int
    width: int
    directions: int
    itemsize: int
    storage: int
    noisy: bool
    backward: bool
    aligned: int
    product: int = 0

    @property
    def elements(self) -> int:
        """Units times samples times directions: what can be computed side by side."""
        return self.directions * self.batch * self.units


def power_of_two(most: float) -> int:
    """Return the largest power of two up to `most`, at least 1."""
    return 1 << max(0, int(most).bit_length() - 1)


@lru_cache
def diagonal(task: Task, device: Properties) -> Plan:
    """Return the plan of a diagonal kernel."""
    wanted = 2 * 128 * device.multiprocessors  # threads that keep the memory busy
    chunks = 1
    if task.backward and task.elements < wanted:
        chunks = min(wanted // task.elements, task.steps // CHUNK_STEPS)
    vector = 1 if chunks >= 4 else _vector(task, wanted // 2)
    chunks = chunks if chunks >= 4 else 1  # fewer don't make up for reading everything twice
    size = -(-task.steps // chunks)
    chunks = -(-task.steps // size)  # none of them empty
    loads = (task.gates + 1 + task.states if task.backward else task.gates) * max(1, vector * task.itemsize // 4)
    most = IN_FLIGHT / (loads + task.noisy)  # what masks and cuts say is a load too
    if task.backward:
        most = min(most, UNPACKED / (task.gates * vector))
    ahead = min(32, max(2, power_of_two(most)))
    lanes = chunks * task.elements // vector
    threads = max(WARP, min(128, power_of_two(lanes / (2 * device.multiprocessors))))
    program = "diagonal_forward" if not task.backward else "diagonal_chunks" if chunks > 1 else "diagonal_backward"
    constants = {
        "STORAGE": task.storage, "NOISY": int(task.noisy), "THREADS": threads, "VECTOR": vector, "AHEAD": ahead,
    }  # fmt: skip
    parts = chunks * task.batch
    return Plan(program, tuple(constants.items()), -(-lanes // threads), threads, chunks=chunks, parts=parts)


def _vector(task: Task, threads: int) -> int:
    """Return how many units a thread takes: as many as keep its registers and all multiprocessors busy."""
    registers = 8 if task.backward or task.noisy else 16
    most = min(ACCESS / task.itemsize, registers / task.gates, task.elements / threads, task.aligned)
    vector = power_of_two(most)
    while task.units % vector:
        vector //= 2
    return vector


def phases_of(phases: Sequence[Sequence[str]]) -> tuple[int, ...]:
    """Return how many gates each phase has."""
    return tuple(len(phase) for phase in phases)
