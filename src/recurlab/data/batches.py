"""Batches out of the arrays of a data set: of one length, padded, or the next steps of a long text."""

import warnings
from abc import ABC, abstractmethod
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from recurlab.data.data import Arrays, Ragged, Stream
from recurlab.errors import RecurlabError

IGNORED = -100  # the target of a step that is not in the loss, as in torch's cross-entropy
POOL = 50  # batches whose sequences are sorted by length at a time


class Batch(NamedTuple):
    """B sequences.

    Attributes:
        inputs: (B, T, C) float32, or (B, T) int64 symbols; 0 where padded.
        targets: (B, ...), or (B, T, ...) where there is one for each step: 0 where padded,
            `IGNORED` in whole numbers.
        lengths: (B,) int64 on the CPU, where sequences are right-padded.
        resets: boolean (B, T), True where the state is zero before the step; None is nowhere.
        counted: False for filler: sequences given to a rank that has no share of the last batch of
            an epoch.
    """

    inputs: Tensor
    targets: Tensor
    lengths: Tensor | None = None
    resets: Tensor | None = None
    counted: bool = True

    def to(self, device: torch.device) -> "Batch":
        """Return the batch on a device; the lengths stay on the host, which reads them."""
        inputs, targets, resets = self.inputs, self.targets, self.resets
        if inputs.device == targets.device == device and (resets is None or resets.device == device):
            return self
        return self._replace(
            inputs=inputs.to(device, non_blocking=True),
            targets=targets.to(device, non_blocking=True),
            resets=None if resets is None else resets.to(device, non_blocking=True),
        )


class Source(Dataset[Batch], ABC):
    """A split, from which whole batches are taken."""

    tensors: dict[str, Tensor]

    @abstractmethod
    def __getitem__(self, item: Any) -> Batch:
        """Return the batch for one item of a plan, as made by `in_order`, `shuffled` or `windows`."""

    @property
    def bytes(self) -> int:
        """Size in memory."""
        return sum(t.nbytes for t in self.tensors.values())

    def move(self, device: torch.device) -> None:
        """Keep the data on a device, so that taking a batch costs the host nothing."""
        self.tensors = {name: t.to(device) for name, t in self.tensors.items()}


class Rows(Source):
    """Sequences of one length."""

    def __init__(self, arrays: Arrays) -> None:
        self.size = len(arrays.inputs)
        _check_any(self.size)
        for name, array in arrays._asdict().items():
            _check(name, array, self.size, "inputs")
        self.tensors = {name: _tensor(array) for name, array in arrays._asdict().items()}

    def __getitem__(self, item: tuple[Tensor, bool]) -> Batch:
        """Return the sequences of the given rows, and whether they count."""
        rows, counted = item
        rows = rows.to(self.tensors["inputs"].device)
        return Batch(_taken(self.tensors["inputs"], rows), _taken(self.tensors["targets"], rows), counted=counted)


class RaggedRows(Source):
    """Sequences of different lengths; a batch is padded to its longest."""

    def __init__(self, ragged: Ragged) -> None:
        self.size, self.lengths = len(ragged.lengths), torch.from_numpy(np.array(ragged.lengths, np.int64))
        _check_any(self.size)
        short = np.flatnonzero(ragged.lengths < 1)
        if len(short):
            raise RecurlabError(f"lengths={ragged.lengths[short[0]]}: sequence {short[0]} is empty")
        self.per_step = ragged.per_step
        steps = int(ragged.lengths.sum())
        _check("inputs", ragged.inputs, steps, "steps")
        _check("targets", ragged.targets, *((steps, "steps") if self.per_step else (self.size, "lengths")))
        self.tensors = {"inputs": _tensor(ragged.inputs), "targets": _tensor(ragged.targets)}
        self.begins = self.lengths.cumsum(0) - self.lengths

    def __getitem__(self, item: tuple[Tensor, bool]) -> Batch:
        """Return the sequences of the given rows, and whether they count."""
        rows, counted = item
        lengths = self.lengths[rows]
        steps = torch.arange(int(lengths.max()))
        device = self.tensors["inputs"].device
        valid = (steps < lengths[:, None]).to(device)
        positions = (self.begins[rows][:, None] + torch.minimum(steps, lengths[:, None] - 1)).to(device)
        inputs, targets = self._padded("inputs", positions, valid, 0), self.tensors["targets"]
        if self.per_step:
            targets = self._padded("targets", positions, valid, 0 if targets.is_floating_point() else IGNORED)
        else:
            targets = _taken(targets, rows.to(device))
        return Batch(inputs, targets, lengths, counted=counted)

    def _padded(self, name: str, positions: Tensor, valid: Tensor, padding: int) -> Tensor:
        taken = _taken(self.tensors[name], positions)
        return taken.masked_fill_(~valid.view(*valid.shape, *(1,) * (taken.dim() - 2)), padding)


class Streams(Source):
    """A long text in parts of the same length, one for each sequence of a batch, that are read side by side.

    The target of each step is its symbol, the input the symbol before it; at the start of a
    document that is `before`.

    Args:
        stream: the text.
        parts: how many parts it is cut into.
        whole: whether every symbol is read: then some parts have one symbol more, and the step that
            the others lack has the target `IGNORED`. Otherwise the rest that does not fill all
            parts is left out.
        rank, world: this process takes the parts rank, rank + world, ...

    Raises:
        RecurlabError: for a text of fewer symbols than parts.
    """

    def __init__(self, stream: Stream, parts: int, *, whole: bool, rank: int = 0, world: int = 1) -> None:
        count = len(stream.symbols)
        if count < parts:
            raise RecurlabError(f"batch_size={parts}: a text of {count} symbols has not as many parts")
        begins = (np.arange(parts) * count + parts - 1) // parts if whole else np.arange(parts) * (count // parts)
        ends = np.append(begins[1:], count) if whole else begins + count // parts
        self.steps = int((ends - begins).max())
        self.before = stream.before
        edges = {name: torch.from_numpy(edge[rank::world, None]) for name, edge in (("begins", begins), ("ends", ends))}
        self.tensors = {"symbols": _tensor(stream.symbols), **edges}
        if (stream.starts > 0).any():
            is_start = np.zeros(count, np.bool_)
            is_start[stream.starts] = True
            self.tensors["is_start"] = torch.from_numpy(is_start)

    def __getitem__(self, window: tuple[int, int]) -> Batch:
        """Return all parts from the first step of a window up to its second, which is not in it."""
        symbols, is_start = self.tensors["symbols"], self.tensors.get("is_start")
        begins, ends = self.tensors["begins"], self.tensors["ends"]
        positions = begins + torch.arange(*window, device=symbols.device)
        valid, positions = positions < ends, positions.minimum(ends - 1)
        inputs = symbols[(positions - 1).clamp_min(0)].long()
        resets = None if is_start is None else is_start[positions]
        inputs[(positions == 0) if resets is None else resets | (positions == 0)] = self.before
        return Batch(inputs, symbols[positions].long().masked_fill_(~valid, IGNORED), resets=resets)


def in_order(count: int, batch_size: int) -> list[Tensor]:
    """Return the rows of each batch, in order."""
    return list(torch.split(torch.arange(count), batch_size))


def shuffled(count: int, batch_size: int, rng: np.random.Generator, lengths: Tensor | None) -> list[Tensor]:
    """Return the rows of each batch in random order.

    With `lengths`, the sequences of each `POOL` batches are sorted by length, so that a batch needs
    little padding; the order of the batches is random.
    """
    order = torch.from_numpy(rng.permutation(count))
    if lengths is None:
        return list(torch.split(order, batch_size))
    pools = torch.split(order, POOL * batch_size)
    batches = [b for pool in pools for b in torch.split(pool[lengths[pool].argsort(stable=True)], batch_size)]
    return [batches[i] for i in rng.permutation(len(batches))]


def shares(batches: Sequence[Tensor], rank: int, world: int) -> list[tuple[Tensor, bool]]:
    """Return the rows that one of several processes takes of each batch, and whether they count."""
    mine = ((batch, batch[rank::world]) for batch in batches)
    return [(rows, True) if len(rows) else (batch[:1], False) for batch, rows in mine]


def windows(steps: int, bptt: int, rng: np.random.Generator | None) -> list[tuple[int, int]]:
    """Return the first step of each batch and the step after its last; with `rng`, the lengths are random.

    The lengths are N(bptt, 5), or one time in 20 N(bptt / 2, 5), at least 5 (Merity et al., arXiv
    1708.02182).
    """
    edges = [0]
    while edges[-1] < steps:
        length = bptt
        if rng is not None:
            length = max(5, int(rng.normal(bptt if rng.random() < 0.95 else bptt / 2, 5)))
        edges.append(min(edges[-1] + length, steps))
    return list(pairwise(edges))


def _check_any(size: int) -> None:
    if size == 0:
        raise RecurlabError("inputs: a split needs at least one sequence")


def _check(name: str, array: NDArray[Any], count: int, of: str) -> None:
    if not (array.dtype == np.float32 or np.issubdtype(array.dtype, np.integer)) or len(array) != count:
        raise RecurlabError(f"{name}={array.shape} {array.dtype}: must be float32 or whole, a row for each of the {of}")


def _taken(tensor: Tensor, indices: Tensor) -> Tensor:
    """Return the rows of a tensor at some indices; whole numbers, which may be kept in few bytes, as int64."""
    taken = tensor[indices]
    return taken if taken.is_floating_point() else taken.long()


def _tensor(array: NDArray[Any]) -> Tensor:
    """Return a tensor that shares an array's memory, which may be a file's; it must not be written to."""
    if array.dtype in (np.uint16, np.uint32, np.uint64):  # torch can't index these
        array = array.astype(np.int32 if array.dtype == np.uint16 else np.int64)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        return torch.from_numpy(np.ascontiguousarray(array))
