from dataclasses import dataclass
from types import SimpleNamespace
from typing import ClassVar

import numpy as np
import pytest
import torch

from recurlab.data.adding import Adding
from recurlab.data.batches import IGNORED
from recurlab.data.data import Arrays, Data, Ragged, RaggedData, Stream, StreamData
from recurlab.data.module import DataModule
from recurlab.errors import RecurlabError


@dataclass(frozen=True)
class Counting(Data):
    """Sequence i is filled with i."""

    size: int = 10
    problem: ClassVar = "regression"

    def split(self, name, seed, epoch):
        inputs = np.arange(self.size, dtype=np.float32)[:, None, None].repeat(3, axis=1)
        return Arrays(inputs, inputs[:, 0])


@dataclass(frozen=True)
class RaggedCounting(RaggedData):
    """Sequence i is filled with i and has length i % 3 + 1."""

    size: int = 10
    problem: ClassVar = "classification"

    def split(self, name, seed, epoch):
        lengths = np.arange(self.size) % 3 + 1
        return Ragged(np.arange(self.size).repeat(lengths), lengths, np.arange(self.size))


@dataclass(frozen=True)
class Alphabet(StreamData):
    """Each split is the numbers from 0."""

    size: int = 50

    def split(self, name, seed, epoch):
        return Stream(np.arange(self.size), np.array([0, 7]), 99)


def module_of(data, seed=0, rank=0, world=1, epoch=0):
    module = DataModule(data, seed, rank, world)
    module.setup()
    at(module, epoch)
    return module


def at(module, epoch):
    """Put the module under a trainer that is in an epoch."""
    strategy = SimpleNamespace(root_device=torch.device("cpu"))
    module.trainer = SimpleNamespace(current_epoch=epoch, strategy=strategy)


def epoch_of(module, epoch):
    at(module, epoch)
    return torch.cat([batch.inputs for batch in module.train_dataloader()])


@pytest.mark.parametrize("epoch", [0, 4])
def test_every_sequence_comes_once_an_epoch_with_its_target(epoch):
    batches = list(module_of(Counting(batch_size=4), epoch=epoch).train_dataloader())
    assert [len(batch.inputs) for batch in batches] == [4, 4, 2]
    inputs, targets = (torch.cat(parts) for parts in list(zip(*batches, strict=True))[:2])
    assert sorted(targets.flatten().tolist()) == list(range(10))
    assert torch.equal(inputs[:, 0], targets)


@pytest.mark.parametrize("buckets", [True, False])
def test_every_ragged_sequence_comes_once_an_epoch_with_its_target_and_length(buckets):
    batches = list(module_of(RaggedCounting(batch_size=4, buckets=buckets)).train_dataloader())
    assert sorted(len(batch.inputs) for batch in batches) == [2, 4, 4]
    for batch in batches:
        assert torch.equal(batch.inputs[:, 0], batch.targets)
        assert torch.equal(batch.lengths, batch.targets % 3 + 1)
        assert batch.inputs.shape[1] == batch.lengths.max()
    assert sorted(torch.cat([batch.targets for batch in batches]).tolist()) == list(range(10))


@pytest.mark.parametrize("data", [Counting(batch_size=3), RaggedCounting(batch_size=3)])
def test_the_order_is_a_function_of_seed_and_epoch(data):
    def order(seed, epoch):
        module = module_of(data, seed)
        list(module.train_dataloader())  # what was read before does not matter, nor torch's generator
        torch.manual_seed(seed + epoch)
        at(module, epoch)
        return torch.cat([batch.targets for batch in module.train_dataloader()]).flatten().tolist()

    assert order(1, 2) == order(1, 2)
    assert order(1, 2) != order(1, 3)
    assert order(1, 2) != order(2, 2)


@pytest.mark.parametrize("part", ["inputs", "targets"])
@pytest.mark.parametrize("damage", [lambda a: a.astype(np.float64), lambda a: a[:-1]])
def test_arrays_of_another_type_or_length_are_refused(monkeypatch, part, damage):
    plain = Counting.split
    monkeypatch.setattr(
        Counting, "split", lambda *a: (arrays := plain(*a))._replace(**{part: damage(getattr(arrays, part))})
    )
    with pytest.raises(RecurlabError, match="a row for each of the inputs"):
        DataModule(Counting(), seed=0).setup()


def test_validation_and_test_come_in_order():
    module = module_of(Counting(eval_batch_size=7), seed=3)
    for loader in (module.val_dataloader(), module.test_dataloader()):
        assert torch.cat([batch.targets for batch in loader]).flatten().tolist() == list(range(10))


def test_fresh_data_are_new_in_every_epoch():
    module = module_of(Adding(length=4, train_size=6))
    assert not torch.equal(epoch_of(module, 0).sort(0).values, epoch_of(module, 1).sort(0).values)
    assert torch.equal(epoch_of(module, 1), epoch_of(module, 1))


def test_the_sizes_of_a_split():
    module = module_of(RaggedCounting(batch_size=4, eval_batch_size=3))
    assert (module.sequences("train"), module.batches("train"), module.batches("test")) == (10, 3, 4)
    text = module_of(Alphabet(batch_size=3, bptt=5))
    assert text.sequences("train") is None
    assert text.batches("train") == 4  # 16 symbols a part
    assert text.batches("train") == len(list(text.train_dataloader()))


def test_the_test_alone_is_read_for_an_evaluation(monkeypatch):
    asked = []
    plain = Counting.split
    monkeypatch.setattr(Counting, "split", lambda *a: (asked.append(a[1]), plain(*a))[1])
    module = DataModule(Counting(), seed=0)
    module.setup("test")
    module.setup("test")
    assert asked == ["test"]


@pytest.mark.parametrize("data", [Counting(batch_size=4, size=9), RaggedCounting(batch_size=4, size=9)])
@pytest.mark.parametrize("epoch", [0, 1])
def test_processes_share_each_batch_without_overlap(data, epoch):
    """The last batch has 1 sequence: the other process only keeps busy."""
    alone = module_of(data, epoch=epoch)
    both = [module_of(data, rank=rank, world=2, epoch=epoch) for rank in (0, 1)]
    for loader in ("train_dataloader", "test_dataloader"):
        for whole, *parts in zip(*(getattr(module, loader)() for module in (alone, *both)), strict=True):
            counted = torch.cat([part.targets for part in parts if part.counted]).flatten().tolist()
            assert sorted(counted) == sorted(whole.targets.flatten().tolist())
            assert [part.counted for part in parts] == [True, len(whole.targets) > 1]


def test_processes_hold_parts_of_their_own_of_a_text():
    data = Alphabet(batch_size=4, eval_batch_size=2, bptt=6, random_bptt=True, size=53)
    both = [module_of(data, rank=rank, world=2) for rank in (0, 1)]
    for loader, count in (("train_dataloader", 52), ("val_dataloader", 53)):
        parts = [torch.cat([batch.targets for batch in getattr(module, loader)()], dim=1) for module in both]
        targets = torch.cat([part.flatten() for part in parts])
        assert sorted(targets[targets != IGNORED].tolist()) == list(range(count))
    lengths = [[batch.inputs.shape[1] for batch in module.train_dataloader()] for module in both]
    assert lengths[0] == lengths[1]  # windows of the same lengths at the same time


def test_random_windows_are_a_function_of_seed_and_epoch_and_not_for_evaluation():
    def lengths(seed, epoch, loader="train_dataloader"):
        data = Alphabet(batch_size=1, eval_batch_size=1, bptt=8, random_bptt=True, size=400)
        return [batch.inputs.shape[1] for batch in getattr(module_of(data, seed, epoch=epoch), loader)()]

    assert lengths(1, 2) == lengths(1, 2)
    assert lengths(1, 2) != lengths(1, 3)
    assert lengths(1, 2) != lengths(2, 2)
    assert lengths(1, 2, "val_dataloader") == [8] * 50


@pytest.mark.parametrize(
    ("data", "world", "message"),
    [
        (Alphabet(batch_size=3), 2, "data.batch_size=3: must be a multiple of the 2 processes"),
        (Alphabet(batch_size=4, eval_batch_size=5), 2, "data.eval_batch_size=5: must be a multiple of the 2"),
        (Alphabet(batch_size=51), 1, "data.batch_size=51: the train text of 50 symbols has not as many parts"),
        (Alphabet(eval_batch_size=60), 1, "data.eval_batch_size=60: the valid text of 50 symbols has not as many"),
        (Counting(size=0), 1, "a split needs at least one sequence"),
    ],
)
def test_what_cannot_be_shared_is_refused(data, world, message):
    with pytest.raises(RecurlabError, match=message):
        DataModule(data, 0, 0, world).setup()


def test_a_users_data_set_registers_and_a_taken_name_is_refused():
    import recurlab
    from recurlab.data import DATA

    recurlab.register_data("counting")(Counting)
    assert DATA["counting"] is Counting
    with pytest.raises(RecurlabError, match="data='adding': this name is taken"):
        recurlab.register_data("adding")(Counting)


def test_what_a_users_data_set_does_not_say_is_told_in_a_line():
    from recurlab.training.build import Facts

    with pytest.raises(RecurlabError, match=r"^the data set Counting gives no input_size$"):
        Facts.of(Counting())
