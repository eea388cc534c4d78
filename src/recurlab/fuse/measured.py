"""How long the fused kernels take beside cuDNN's on a GPU: the rows of measured.csv, measured by the bench."""

import csv
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from functools import lru_cache
from itertools import pairwise
from math import isqrt
from pathlib import Path

from recurlab.errors import INT64, RecurlabError, check_number, one_line

PATH = Path(__file__).with_name("measured.csv")
# A row says nothing about a hidden size or a batch that differs from its own by more than these factors.
HIDDEN_WITHIN, BATCH_WITHIN = 2, 4
Point = tuple[str, str, str, str, int, int]


@dataclass(frozen=True, order=True)
class Ratio:
    """The time of the fused kernels as a ratio to cuDNN's; the fields are the columns of the table.

    Attributes:
        cell, recurrence: what is computed; the cell as cuDNN has it: gru, lstm, rnn_tanh or
            rnn_relu.
        capability: the compute capability, as 9.0.
        dtype: of the sequences; tf32 is float32 with products in TF32, on both sides.
        hidden, batch: units and samples.
        forward_ratio: of a forward pass that keeps nothing for a gradient.
        forward_backward_ratio: of a training step's two passes.
        device: the model of the GPU.
        date: of the measurement, in UTC, as 2026-12-01T09:30:00+00:00.
    """

    cell: str
    recurrence: str
    capability: str
    dtype: str
    hidden: int
    batch: int
    forward_ratio: float
    forward_backward_ratio: float
    device: str
    date: str

    def __post_init__(self) -> None:
        for name in NUMBERS:
            check_number(name, getattr(self, name), above=0)

    @property
    def point(self) -> Point:
        """What was measured; a table has one row of each."""
        return self.cell, self.recurrence, self.capability, self.dtype, self.hidden, self.batch

    def __str__(self) -> str:
        size = layer(self.cell, self.recurrence, self.dtype, self.hidden, self.batch)
        return (
            f"fused takes {self.forward_backward_ratio:.3g} of cuDNN's time ({size} on {self.device}, {self.date[:10]})"
        )


Reach = tuple[int, int, Ratio]  # the least and the most samples that a row speaks of, and the row
FIELDS = tuple(field.name for field in fields(Ratio))
NUMBERS: dict[str, Callable[[str], float]] = {
    "hidden": int, "batch": int, "forward_ratio": float, "forward_backward_ratio": float,
}  # fmt: skip


def layer(cell: str, recurrence: str, dtype: str, hidden: int, batch: int) -> str:
    """Return a layer and its batch as they are shown."""
    return f"{cell} {recurrence} {dtype}, H={hidden} B={batch}"


def capabilities() -> frozenset[str]:
    """Return the compute capabilities on which the kernels have been measured."""
    return _capabilities(PATH)


@lru_cache
def _capabilities(path: Path) -> frozenset[str]:
    return frozenset(row.capability for row in _read_once(path))


def in_reach(cell: str, recurrence: str, capability: str, dtype: str, hidden: int) -> tuple[Reach, ...]:
    """Return the rows that speak of a layer, each with the least and the most samples for which it does.

    They are those of the hidden size nearest to the layer's, as a factor and within
    `HIDDEN_WITHIN`; of these the one with the nearest batch counts, within `BATCH_WITHIN`.
    """
    return _in_reach(PATH, (cell, recurrence, capability, dtype), hidden)


@lru_cache
def _in_reach(path: Path, case: tuple[str, ...], hidden: int) -> tuple[Reach, ...]:
    def far(size: int) -> float:
        return max(size / hidden, hidden / size)

    sizes = {row.hidden for row in _read_once(path) if row.point[:4] == case and far(row.hidden) <= HIDDEN_WITHIN}
    nearest = min(sorted(sizes), key=far, default=0)
    found = sorted(row for row in _read_once(path) if row.point[:5] == (*case, nearest))  # by the batch
    # Of two batches the nearer one changes at the root of their product.
    roots = [isqrt(row.batch * after.batch) for row, after in pairwise(found)]
    return tuple(
        (max(-(-row.batch // BATCH_WITHIN), low), min(row.batch * BATCH_WITHIN, high), row)
        for row, low, high in zip(found, [1, *(root + 1 for root in roots)], [*roots, INT64], strict=False)
    )


@lru_cache
def _read_once(path: Path) -> tuple[Ratio, ...]:
    return read(path)


def read(path: Path) -> tuple[Ratio, ...]:
    """Return the rows of a table.

    Raises:
        RecurlabError: if it can't be read, or holds what is no row of it.
    """
    with opened(path) as reader:
        if tuple(reader.fieldnames or ()) != FIELDS:
            raise RecurlabError(f"{path}: its columns must be {', '.join(FIELDS)}")
        return tuple(_ratio(row, f"{path}: line {reader.line_num}") for row in reader)


@contextmanager
def opened(path: Path) -> Iterator["csv.DictReader[str]"]:
    """Read the rows of a csv; raise RecurlabError if it can't be read."""
    try:
        with path.open(newline="", encoding="utf-8") as file:
            yield csv.DictReader(file, restval="", strict=True)
    except (OSError, UnicodeError, csv.Error) as error:
        raise RecurlabError(f"{path}: can't be read: {getattr(error, 'strerror', None) or one_line(error)}") from error


def _ratio(row: dict[str, str], where: str) -> Ratio:
    try:
        return Ratio(**{name: NUMBERS.get(name, str)(row[name]) for name in FIELDS})  # type: ignore[arg-type]
    except ValueError as error:
        raise RecurlabError(f"{where}: {error}") from error
