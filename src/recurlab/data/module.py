"""Any benchmark as a LightningDataModule."""

from typing import NamedTuple

import numpy as np
import torch
from pytorch_lightning import LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from recurlab.data.benchmark import SPLITS, Arrays, Benchmark
from recurlab.errors import RecurlabError


class Batch(NamedTuple):
    """B sequences: inputs (B, T, C), targets (B, ...), and lengths (B,) where they are right-padded."""

    inputs: Tensor
    targets: Tensor
    lengths: Tensor | None


class BenchmarkData(LightningDataModule):
    """Batches of a benchmark. The order of the training data is a function of the seed and the epoch alone."""

    def __init__(self, benchmark: Benchmark, seed: int) -> None:
        super().__init__()
        self.benchmark, self.seed = benchmark, seed
        self._splits: dict[str, _Rows] = {}
        self._epoch = 0  # that the training data in _splits belong to

    def setup(self, stage: str | None = None) -> None:
        """Read all splits, or for the stage "test" that one, so that a missing file is found before anything starts.

        Raises:
            RecurlabError: for a file that is missing or damaged.
        """
        for name in ("test",) if stage == "test" else SPLITS:
            if name not in self._splits:
                self._splits[name] = self._rows(name, epoch=0)

    def size(self, name: str) -> int:
        """Return the number of sequences in a split that has been set up."""
        return self._splits[name].size

    def train_dataloader(self) -> DataLoader[Batch]:
        """Return the batches of the current epoch, shuffled."""
        epoch = self.trainer.current_epoch if self.trainer is not None else 0
        if self.benchmark.fresh and epoch != self._epoch:
            self._splits["train"], self._epoch = self._rows("train", epoch), epoch
        rows = self._splits["train"]
        order = np.random.default_rng((self.seed, epoch)).permutation(rows.size)
        return _loader(rows, order, self.benchmark.batch_size)

    def val_dataloader(self) -> DataLoader[Batch]:
        """Return the validation batches, in order."""
        return self._in_order("valid")

    def test_dataloader(self) -> DataLoader[Batch]:
        """Return the test batches, in order."""
        return self._in_order("test")

    def _in_order(self, name: str) -> DataLoader[Batch]:
        rows = self._splits[name]
        return _loader(rows, np.arange(rows.size), self.benchmark.eval_batch_size)

    def _rows(self, name: str, epoch: int) -> "_Rows":
        return _Rows(self.benchmark.split(name, self.seed, epoch))


class _Rows(Dataset[Batch]):
    """Arrays from which a whole batch is taken by one indexing."""

    def __init__(self, arrays: Arrays) -> None:
        wanted = {"inputs": ("float32", "int64"), "targets": ("float32", "int64"), "lengths": ("int64",)}
        for name, array in arrays._asdict().items():
            if array is not None and (str(array.dtype) not in wanted[name] or len(array) != len(arrays.inputs)):
                shape, kinds = array.shape, " or ".join(wanted[name])
                raise RecurlabError(f"{name}={shape} {array.dtype}: must be {kinds}, a row for each of the inputs")
        self.tensors = [None if a is None else torch.from_numpy(np.ascontiguousarray(a)) for a in arrays]
        self.size = len(arrays.inputs)

    def __getitem__(self, rows: Tensor) -> Batch:
        return Batch(*(None if t is None else t[rows] for t in self.tensors))  # type: ignore[arg-type]


def _loader(rows: _Rows, order: "np.ndarray[tuple[int], np.dtype[np.int64]]", batch_size: int) -> DataLoader[Batch]:
    batches = torch.split(torch.from_numpy(order), batch_size)
    return DataLoader(rows, batch_size=None, sampler=batches)
