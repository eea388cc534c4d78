"""How a dense or block kernel is laid out on a GPU; the names and the sizes are those of the header dense.h."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache

from recurlab.fuse.cuda.gpu import CLUSTERS, Properties
from recurlab.fuse.cuda.plan import WARP, Multiplication, Plan, Task

THREADS, WARPS = 256, 256 // WARP  # of a block
REGISTERS, WEIGHTS = 200, 128  # of a thread: in all, and for weights
FRAGMENT, GROUP, TILES_OF_GROUP = 16, 16, 2  # rows of a tile; words of a group's depth, and the tiles in it
WORDS = 8  # of a group in a thread's registers
ARRIVALS = 16  # bytes of the counters of what a cluster's blocks send


@lru_cache
def dense(task: Task, device: Properties) -> Plan | None:
    """Return the fastest plan of a dense kernel by a rough count of cycles; None if the weights fit nowhere."""
    fitting = [layout for layout in _layouts(task, device) if layout.fits]
    return min(fitting, key=lambda layout: layout.cycles).plan if fitting else None


def unfit(task: Task) -> str:
    """Return why no dense kernel can be laid out."""
    weights = sum(task.phases) * task.width**2 * task.itemsize
    return f"hidden_size={task.width}: {weights >> 10} KiB of recurrent weights do not fit onto this GPU's chip"


def _layouts(task: Task, device: Properties) -> Iterator["Layout"]:
    for units in (16, 32, 64, 128):
        for samples in (8, 16, 32, 64):
            if units > max(16, 2 * task.width) or samples >= 2 * max(8, task.batch):
                continue
            for chunk in (8, 16, 32):
                if samples % chunk == 0:
                    yield from (Layout(task, device, units, samples, chunk, warps) for warps in (1, 2, 4, 8))


@dataclass(frozen=True)
class Layout:
    """A way to lay out a dense kernel.

    Attributes:
        task, device: what for.
        units: that a block computes.
        samples: that a team of blocks takes through time.
        chunk: samples multiplied at a time.
        warps: those that share the rows of the weights; the others share the depth of the product.
    """

    task: Task
    device: Properties
    units: int
    samples: int
    chunk: int
    warps: int

    @property
    def blocks(self) -> int:
        """The fewest blocks that compute a head."""
        return -(-self.task.width // self.units)

    @property
    def clustered(self) -> bool:
        """Whether a team is a cluster, whose blocks reach each other's shared memory."""
        if self.device.capability < (9, 0):
            return self.blocks == 1
        # More than 8 are for those who ask, and need a large part of the GPU: a slice of one may not have it.
        large = self.device.capability < (11, 0) and self.device.multiprocessors > 100
        if self.device.clusters:
            large = self.device.clusters[-1] > 0
        return self.blocks <= (16 if large else 8)

    @property
    def team(self) -> int:
        """Blocks of a team; in a cluster a power of two, the sizes that every GPU with clusters has."""
        return 1 << (self.blocks - 1).bit_length() if self.clustered else self.blocks

    @property
    def padded(self) -> int:
        """Units of a head with its padding."""
        return self.team * self.units

    @cached_property
    def products(self) -> tuple["Product", ...]:
        """The product of each phase."""
        per_word = 4 // self.task.itemsize
        shapes = (
            (self.units, gates * self.padded) if self.task.backward else (gates * self.units, self.padded)
            for gates in self.task.phases
        )
        return tuple(Product(rows, depth, per_word, self.warps) for rows, depth in shapes)

    @property
    def gates(self) -> int:
        """The most gates that blocks exchange at once."""
        return max(self.task.phases) if self.task.backward else 1

    @property
    def share(self) -> int:
        """Elements of a chunk that a thread computes."""
        return -(-self.chunk * self.units // THREADS)

    @cached_property
    def registers(self) -> int:
        """About how many registers a thread needs, without those for weights."""
        gates, states = self.task.gates, self.task.states
        of_element = 6 * gates + 4 * states + 4 if self.task.backward else 4 * gates + 2 * states + 4
        sums = max(p.tiles_of_warp for p in self.products) * self.chunk // 8 * 4
        split = 8 * self.chunk // 8 + 8 if self.task.product == Multiplication.SPLIT else 0
        return self.share * (self.samples // self.chunk) * of_element + sums + 4 * self.chunk // 8 + split

    @cached_property
    def held(self) -> int:
        """Groups of each warp's weights that are in registers; the others are in shared memory."""
        room = min(WEIGHTS, REGISTERS - self.registers)
        held = max(p.groups_of_warp for p in self.products)
        for p in self.products:
            if (most := max(0, room // (p.tiles_of_warp * WORDS))) < p.groups_of_warp:  # of it alone
                held = min(held, most)
        while held and sum(p.tiles_of_warp * min(held, p.groups_of_warp) * WORDS for p in self.products) > room:
            held -= 1
        return held

    @cached_property
    def rest(self) -> int:
        """Bytes of the weights in shared memory."""
        left = sum(p.tiles_of_warp * max(0, p.groups_of_warp - self.held) for p in self.products)
        return left * WORDS * 4 * THREADS

    @cached_property
    def shared(self) -> int:
        """Bytes of shared memory of a block."""
        full = 4 * self.samples * max(p.stride for p in self.products) * (2 if self.clustered else 1)
        sums = 4 * 2 * (WARPS // self.warps) * self.chunk * max(p.sums for p in self.products)
        slices = self.samples * self.gates * self.units * self.task.itemsize
        return ARRIVALS + full + sums + slices + self.rest

    @property
    def items(self) -> int:
        """What the teams work through: directions, heads and groups of samples."""
        return self.task.directions * (self.task.units // self.task.width) * self.groups

    @property
    def groups(self) -> int:
        """Groups of samples."""
        return -(-self.task.batch // self.samples)

    @property
    def teams(self) -> int:
        """Teams that run side by side."""
        fit = self.device.multiprocessors // self.team
        if self.clustered and self.team > 1:
            if self.device.clusters:
                fit = self.device.clusters[CLUSTERS.index(self.team)]
            elif self.team > 8 and fit:  # a large cluster may fit less often than its number of blocks says
                fit = max(1, fit - 1)
        return min(self.items, fit)

    @property
    def fits(self) -> bool:
        """Whether registers, shared memory and the number of multiprocessors suffice."""
        return self.registers <= REGISTERS and self.shared <= self.device.shared and self.teams > 0

    @property
    def exchanged(self) -> int:
        """Bytes that a team exchanges at once."""
        return self.samples * self.gates * self.padded * self.task.itemsize

    @property
    def cycles(self) -> float:
        """About how long a step takes, over all items.

        The constants were fitted to what a model of a warp makes of the machine code of 108
        programs, to a fifth in most of them; that 32 bytes can be moved in a cycle is an
        assumption.
        """
        phases, passes = len(self.products), self.samples // self.chunk
        meeting = 50 if self.team == 1 else (400 if self.clustered else 1300) + self.exchanged / 32
        pointwise = (600 if self.task.backward else 350) * (1 + phases) / 2 * self.share * passes
        products = sum(p.cycles(self.samples, self.chunk, self.task.product) for p in self.products)
        step = products + self.rest * passes / 128 + phases * (meeting + 100 * passes) + pointwise
        return step * -(-self.items // self.teams)

    @property
    def plan(self) -> Plan:
        """The plan of this layout."""
        constants = {
            "STORAGE": self.task.storage, "NOISY": int(self.task.noisy), "THREADS": THREADS, "HIDDEN": self.task.units,
            "WIDTH": self.task.width,
            "TEAM": self.team, "UNITS": self.units, "SAMPLES": self.samples, "CHUNK": self.chunk,
            "WARPS_M": self.warps, "HELD": self.held, "PRODUCT": self.task.product, "CLUSTERED": int(self.clustered),
        }  # fmt: skip
        return Plan(
            "dense_backward" if self.task.backward else "dense_forward",
            tuple(constants.items()),
            self.teams * self.team,
            THREADS,
            self.shared,
            cluster=self.team if self.clustered else 1,
            cooperative=not self.clustered,
            parts=self.groups * (THREADS // self.units),
            teams=self.teams,
            exchange=0 if self.clustered else self.exchanged,
        )


@dataclass(frozen=True)
class Product:
    """The product of one phase: `rows` of weights in a block, `depth` numbers long, the rows shared by `warps`."""

    rows: int
    depth: int
    per_word: int
    warps: int

    @property
    def tiles(self) -> int:
        """Tiles of rows."""
        return -(-self.rows // FRAGMENT)

    @property
    def tiles_of_warp(self) -> int:
        """Tiles of rows that a warp multiplies."""
        return -(-self.tiles // self.warps)

    @property
    def groups_of_warp(self) -> int:
        """Groups of the depth that a warp multiplies."""
        return -(-self.depth // (GROUP * self.per_word * (WARPS // self.warps)))

    @property
    def stride(self) -> int:
        """Words of a row of what enters."""
        groups = self.groups_of_warp * (WARPS // self.warps)
        return (groups + (groups + 1) % 2) * GROUP

    @property
    def sums(self) -> int:
        """Floats of a row of sums."""
        return self.tiles * FRAGMENT + 4

    def cycles(self, samples: int, chunk: int, product: Multiplication) -> float:
        """Return about how long a step's product takes: the longer of multiplication and reads, and the sums."""
        sums_at_once = self.tiles_of_warp * chunk / 8
        # A sum that waits for the one before it takes 24 cycles; else two warps share a tensor core.
        tile = 80 + 50 * sums_at_once if product == Multiplication.SPLIT else max(24, 13 * sums_at_once)
        multiply = self.groups_of_warp * TILES_OF_GROUP * tile * samples / chunk
        read = samples * self.warps * self.stride * 4 / 128
        return max(multiply, read) + samples * 2 * (WARPS // self.warps) * self.sums * 4 / 128
