"""How a diagonal kernel is laid out on a GPU."""

from functools import lru_cache

from recurlab.fuse.cuda.gpu import Properties
from recurlab.fuse.cuda.plan import WARP, Plan, Task, power_of_two

ACCESS = 16  # bytes that a thread moves at once, at most
IN_FLIGHT = 64  # registers for what is fetched ahead
UNPACKED = 48  # gates of the steps that are fetched together, in a backward: with more the registers do not suffice
CHUNK_STEPS = 64  # the fewest worth a chunk of their own


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
