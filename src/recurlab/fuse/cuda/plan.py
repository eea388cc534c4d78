"""How a kernel is laid out on a GPU: what that is decided for, and what the decision says."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

WARP = 32  # threads of a warp


class Storage(IntEnum):
    """The types that sequences have in memory."""

    FLOAT32 = 0
    BFLOAT16 = 1
    FLOAT16 = 2


class Multiplication(IntEnum):
    """How the dense kernels multiply: in the half-precision type stored, in TF32, or in TF32 three times, by parts."""

    STORED = 0
    TF32 = 1
    SPLIT = 2


@dataclass(frozen=True)
class Plan:
    """A program, what it is compiled for, and its launch.

    Attributes:
        program: its name.
        constants: pairs of a name and a number.
        blocks, threads, shared, cluster: the launch: blocks, threads and bytes of shared memory of
            each, and how many blocks make a cluster.
        cooperative: whether all blocks have to be resident at once.
        chunks: of time, in a diagonal backward.
        parts: rows of the sums over time that the kernel leaves.
        teams: of blocks, in a dense kernel.
        exchange: bytes of one of its exchange buffers in the device's memory; 0 where it needs
            none.
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
        itemsize, storage: bytes of a number of a sequence, and its type.
        noisy: whether there are masks, resets, zoneout or recurrent dropout.
        backward: whether the plan is for the gradient.
        aligned: how many numbers all rows in memory are aligned to.
        product: how the dense kernels multiply.
        norm: the kind of layer normalisation, see `LayerNorm`; empty without it.
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
    storage: Storage
    noisy: bool
    backward: bool
    aligned: int
    product: Multiplication = Multiplication.STORED
    norm: str = ""

    @property
    def elements(self) -> int:
        """Units times samples times directions: what can be computed side by side."""
        return self.directions * self.batch * self.units


def power_of_two(most: float) -> int:
    """Return the largest power of two up to `most`, at least 1."""
    return 1 << max(0, int(most).bit_length() - 1)


def phases_of(phases: Sequence[Sequence[str]]) -> tuple[int, ...]:
    """Return how many gates each phase has."""
    return tuple(len(phase) for phase in phases)
