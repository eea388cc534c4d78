"""Any data set as a LightningDataModule."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from pytorch_lightning import LightningDataModule
from torch.utils.data import DataLoader

from recurlab.data import batches
from recurlab.data.batches import Batch, RaggedRows, Rows, Source, Streams
from recurlab.data.data import SPLITS, Arrays, Data, RaggedData, Stream, StreamData
from recurlab.errors import RecurlabError

KEPT_ON_DEVICE = 2 << 30  # bytes of a split that is kept on the device

Loader = Iterable[Batch]  # whose length is known, too


class DataModule(LightningDataModule):
    """Batches of a data set. The order of the training data is a function of the seed and the epoch alone.

    Batch sizes are totals: with several processes, each takes its share of every batch, and no
    sequence twice.

    Args:
        data: the data set.
        seed: of the order of the training data.
        rank, world: the number of this process, and how many there are.
        workers: processes that make batches ahead; with 0, this one makes them.
    """

    def __init__(self, data: Data, seed: int, rank: int = 0, world: int = 1, workers: int = 0) -> None:
        super().__init__()
        self.data, self.seed = data, seed
        self.rank, self.world, self.workers = rank, world, workers
        self._sources: dict[str, Source] = {}
        self._epoch = 0  # that the training data in _sources belong to
        self._skip = (0, 0)

    def setup(self, stage: str | None = None) -> None:
        """Read all splits, or for the stage "test" that one, so that a missing file is found before anything starts.

        Raises:
            RecurlabError: for a file that is missing or damaged, or a batch that can't be shared
                among the processes.
        """
        for key in ("batch_size", "eval_batch_size"):
            size = getattr(self.data, key)
            if isinstance(self.data, StreamData) and size % self.world:
                raise RecurlabError(f"data.{key}={size}: must be a multiple of the {self.world} processes")
        for name in ("test",) if stage == "test" else SPLITS:
            if name not in self._sources:
                self._sources[name] = self._source(name, epoch=0)

    def sequences(self, name: str) -> int | None:
        """Return the number of sequences in a split that has been set up, None for a text."""
        source = self._sources[name]
        return source.size if isinstance(source, Rows | RaggedRows) else None

    def batches(self, name: str) -> int:
        """Return the number of batches in the first epoch of a split that has been set up."""
        return len(self._plan(name, epoch=0))

    def skip(self, epoch: int, batches: int) -> None:
        """Leave out the first batches of the current epoch, which a run that is resumed has trained on."""
        self._skip = (epoch, batches)

    def train_dataloader(self) -> Loader:
        """Return the batches of the current epoch: shuffled, those of a text in order."""
        epoch = self.trainer.current_epoch if self.trainer is not None else 0
        if self.data.fresh and epoch != self._epoch:
            self._sources["train"], self._epoch = self._source("train", epoch), epoch
        return self._loader("train", epoch, self._skip[1] if epoch == self._skip[0] else 0)

    def val_dataloader(self) -> Loader:
        """Return the validation batches, in order."""
        return self._loader("valid", epoch=0)

    def test_dataloader(self) -> Loader:
        """Return the test batches, in order."""
        return self._loader("test", epoch=0)

    def transfer_batch_to_device(self, batch: Batch, device: torch.device, dataloader_idx: int) -> Batch:
        """Move a batch to a device; its lengths stay on the host."""
        return batch.to(device)

    def _source(self, name: str, epoch: int) -> Source:
        split = self.data.split(name, self.seed, epoch)
        if isinstance(split, Stream):
            train, count = name == "train", len(split.symbols)
            key = "batch_size" if train else "eval_batch_size"
            parts = getattr(self.data, key)
            if count < parts:
                raise RecurlabError(f"data.{key}={parts}: the {name} text of {count} symbols has not as many parts")
            return Streams(split, parts, whole=not train, rank=self.rank, world=self.world)
        return Rows(split) if isinstance(split, Arrays) else RaggedRows(split)

    def _plan(self, name: str, epoch: int) -> Sequence[Any]:
        """Return the items that the batches of an epoch are taken by."""
        source, data, train = self._sources[name], self.data, name == "train"
        rng = np.random.default_rng((self.seed, epoch))
        if isinstance(source, Streams):
            assert isinstance(data, StreamData)
            return batches.windows(source.steps, data.bptt, rng if train and data.random_bptt else None)
        assert isinstance(source, Rows | RaggedRows)
        if train:
            by_length = isinstance(data, RaggedData) and data.buckets
            lengths = source.lengths if by_length and isinstance(source, RaggedRows) else None
            rows = batches.shuffled(source.size, data.batch_size, rng, lengths)
        else:
            rows = batches.in_order(source.size, data.eval_batch_size)
        return batches.shares(rows, self.rank, self.world)

    def _loader(self, name: str, epoch: int, done: int = 0) -> Loader:
        source = self._sources[name]
        if self.trainer is not None and source.bytes <= KEPT_ON_DEVICE and not self.workers:
            source.move(self.trainer.strategy.root_device)
        plan = _From(done, self._plan(name, epoch))
        if not self.workers:
            return _Batches(source, plan)
        # Of its own, as a loader draws from its generator whenever it is begun: the numbers of a run are not to depend
        # on how often it was.
        generator = torch.Generator().manual_seed(0)
        return DataLoader(source, batch_size=None, sampler=plan, num_workers=self.workers, generator=generator)


class _From(Sequence[Any]):
    """A plan of an epoch whose first batches are done: its length counts them, an iteration leaves them out."""

    def __init__(self, done: int, plan: Sequence[Any]) -> None:
        self._done, self._plan = done, plan

    def __len__(self) -> int:
        return len(self._plan)

    def __getitem__(self, index: Any) -> Any:
        return self._plan[index]

    def __iter__(self) -> Iterator[Any]:
        return iter(self._plan[self._done :])


class _Batches:
    """The batches of a plan, made in this process: torch's loader takes longer over a small one than making it."""

    def __init__(self, source: Source, plan: _From) -> None:
        self._source, self._plan = source, plan

    def __len__(self) -> int:
        return len(self._plan)

    def __iter__(self) -> Iterator[Batch]:
        return map(self._source.__getitem__, self._plan)
