"""How a kernel with layer normalisation is laid out on a GPU; the names and the sizes are those of normalized.h."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache

from recurlab.fuse.cuda.gpu import Properties
from recurlab.fuse.cuda.plan import WARP, Plan, Task
from recurlab.fuse.headers import norm_constants

THREADS = 512  # of a block, at most
ELEMENTS = 4  # units times samples of a thread, at most: what it keeps of them is in registers
PARTS = 32  # into which sums are added up at first
TEAMS = (1, 2, 4, 8, 16)  # blocks of a team
EXCHANGING = (8, 0)  # the compute capability from which on blocks can exchange
UNITS, DENSE_UNITS = 2048, 1024  # of a layer, at most
# Assumed, in cycles: to exchange; for a step besides; to read a byte of weights from the L2 cache, and from L1.
MEETING, STEP, FAR, NEAR = 2000, 1500, 1 / 32, 1 / 128
CACHED = 128 << 10  # bytes of weights of a block that stay in L1


@lru_cache
def normalized(task: Task, kind: str, device: Properties) -> Plan:
    """Return the plan of a kernel with layer normalisation, the fastest by a rough count of cycles.

    Args:
        task: what for.
        kind: of the loop: diagonal, or dense, which a block recurrence runs in too.
        device: the GPU.
    """
    return min(_layouts(task, kind == "dense", device), key=lambda layout: layout.cycles).plan


def unfit(units: int, kind: str) -> str | None:
    """Return None, or why no kernel with layer normalisation serves so many units."""
    most = DENSE_UNITS if kind == "dense" else UNITS
    return None if units <= most else f"hidden_size={units}: at most {most} in its CUDA kernels with layer_norm"


def _layouts(task: Task, dense: bool, device: Properties) -> Iterator["Layout"]:
    yield Layout(task, dense, device, 1, 1)
    if not dense:  # nothing is shared by samples or by blocks
        return
    for team in TEAMS if device.capability >= EXCHANGING else (1,):
        for samples in (1, 2, 4):
            layout = Layout(task, dense, device, team, samples)
            if layout.fits:
                yield layout


@dataclass(frozen=True)
class Layout:
    """A way to lay out a kernel with layer normalisation.

    Attributes:
        task, dense, device: what for.
        team: blocks that share the units.
        samples: that they take through time.
    """

    task: Task
    dense: bool
    device: Properties
    team: int
    samples: int

    @property
    def units(self) -> int:
        """Units of a block; it exchanges pieces of four numbers."""
        units = -(-self.task.units // self.team)
        return units if self.team == 1 else -(-units // 4) * 4

    @property
    def row(self) -> int:
        """Threads that compute units."""
        return min(THREADS, -(-self.units // WARP) * WARP)

    @property
    def split(self) -> int:
        """Threads that share the product of a unit."""
        return max(1, min(THREADS // self.row, self.task.width // WARP)) if self.dense else 1

    @property
    def groups(self) -> int:
        """Groups of samples."""
        return -(-self.task.batch // self.samples)

    @property
    def teams(self) -> int:
        """Teams that run side by side, or, of a single block, all that there are."""
        items = self.task.directions * self.groups
        return items if self.team == 1 else min(items, self.device.multiprocessors // self.team)

    @property
    def sums(self) -> int:
        """Numbers that are added up at once."""
        rows = self.task.gates if self.task.norm == "gate" else 1
        return rows * self.samples * (2 if self.task.backward or self.team > 1 else 1)

    @property
    def joined(self) -> int:
        """Bytes of the sums of all blocks."""
        return self.team * -(-self.sums // 4) * 16

    @property
    def entering(self) -> int:
        """Bytes of what enters a product."""
        gates = max(self.task.phases, default=0) if self.task.backward else 1
        return 4 * gates * self.team * self.units * self.samples

    @cached_property
    def shared(self) -> int:
        """Bytes of shared memory of a block."""
        gates = 1 if self.task.backward else max(self.task.phases, default=0)
        products = 4 * (self.split - 1) * gates * self.row * self.samples
        return self.joined + 4 * self.sums * (self.row + PARTS) + self.entering + products

    @property
    def fits(self) -> bool:
        """Whether registers, shared memory and the number of multiprocessors suffice, and each block has units."""
        elements = -(-self.units // self.row) * self.samples
        used = (self.team - 1) * self.units < self.task.units
        return used and elements <= ELEMENTS and self.shared <= self.device.shared and self.teams > 0

    @property
    def cycles(self) -> float:
        """About how long a step takes, over all items."""
        weights = 4 * sum(self.task.phases) * self.units * self.task.width if self.dense else 0
        phases = len(self.task.phases)
        meetings = (1 + 2 * phases) * MEETING if self.team > 1 else 0
        step = STEP * (1 + phases) + meetings + weights * (NEAR if weights <= CACHED else FAR)
        side_by_side = self.device.multiprocessors if self.team == 1 else self.teams
        return step * -(-self.task.directions * self.groups // side_by_side)

    @property
    def plan(self) -> Plan:
        """The plan of this layout."""
        task, threads = self.task, self.row * self.split
        constants = {
            "STORAGE": task.storage, "NOISY": int(task.noisy), "THREADS": threads, "HIDDEN": task.units,
            "WIDTH": task.width, "DIAGONAL": int(not self.dense), "TEAM": self.team, "UNITS": self.units,
            "SAMPLES": self.samples, "OF_UNIT": self.split, **norm_constants(task.norm),
        }  # fmt: skip
        return Plan(
            "normalized_backward" if task.backward else "normalized_forward",
            tuple((name, int(value)) for name, value in constants.items()),
            self.teams * self.team,
            threads,
            self.shared,
            cooperative=self.team > 1,
            parts=self.groups,
            teams=self.teams,
            exchange=max(self.joined, self.entering) if self.team > 1 else 0,
        )
