from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest
import torch

from recurlab.data.adding import Adding
from recurlab.data.benchmark import Arrays, Benchmark
from recurlab.data.module import BenchmarkData
from recurlab.errors import RecurlabError


@dataclass(frozen=True)
class Counting(Benchmark):
    """Sequence i is filled with i and has length i % 3 + 1."""

    size: int = 10
    problem: ClassVar = "regression"

    def split(self, name, seed, epoch):
        inputs = np.arange(self.size, dtype=np.float32)[:, None, None].repeat(3, axis=1)
        return Arrays(inputs, inputs[:, 0], np.arange(self.size) % 3 + 1)


class At:
    """Stands for a trainer in an epoch."""

    def __init__(self, epoch):
        self.current_epoch = epoch


def epoch_of(data, epoch):
    data.trainer = At(epoch)
    return torch.cat([batch.inputs for batch in data.train_dataloader()])


def test_every_sequence_comes_once_an_epoch_with_its_target_and_length():
    data = BenchmarkData(Counting(batch_size=4), seed=0)
    data.setup()
    batches = list(data.train_dataloader())
    assert [len(batch.inputs) for batch in batches] == [4, 4, 2]
    inputs, targets, lengths = (torch.cat(parts) for parts in zip(*batches, strict=True))
    assert sorted(targets.flatten().tolist()) == list(range(10))
    assert torch.equal(inputs[:, 0], targets)
    assert torch.equal(lengths, targets.flatten().long() % 3 + 1)


def test_the_order_is_a_function_of_seed_and_epoch():
    def order(seed, epoch):
        data = BenchmarkData(Counting(batch_size=3), seed)
        data.setup()
        return epoch_of(data, epoch)[:, 0, 0].tolist()

    assert order(1, 2) == order(1, 2)
    assert order(1, 2) != order(1, 3)
    assert order(1, 2) != order(2, 2)


@pytest.mark.parametrize("part", ["inputs", "targets", "lengths"])
@pytest.mark.parametrize("damage", [lambda a: a.astype(np.int8), lambda a: a[:-1]])
def test_arrays_of_another_type_or_length_are_refused(monkeypatch, part, damage):
    plain = Counting.split
    monkeypatch.setattr(
        Counting, "split", lambda *a: (arrays := plain(*a))._replace(**{part: damage(getattr(arrays, part))})
    )
    with pytest.raises(RecurlabError, match="a row for each of the inputs"):
        BenchmarkData(Counting(), seed=0).setup()


def test_validation_and_test_come_in_order():
    data = BenchmarkData(Counting(eval_batch_size=7), seed=3)
    data.setup()
    for loader in (data.val_dataloader(), data.test_dataloader()):
        assert torch.cat([batch.targets for batch in loader]).flatten().tolist() == list(range(10))


def test_fresh_data_are_new_in_every_epoch():
    data = BenchmarkData(Adding(length=4, train_size=6), seed=0)
    data.setup()
    assert not torch.equal(epoch_of(data, 0).sort(0).values, epoch_of(data, 1).sort(0).values)
    assert torch.equal(epoch_of(data, 1), epoch_of(data, 1))


def test_a_users_benchmark_registers_and_a_taken_name_is_refused():
    import recurlab
    from recurlab.data import BENCHMARKS

    recurlab.register_benchmark("counting")(Counting)
    assert BENCHMARKS["counting"] is Counting
    with pytest.raises(RecurlabError, match="benchmark='adding': this name is taken"):
        recurlab.register_benchmark("adding")(Counting)
