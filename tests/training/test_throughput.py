"""The rate of training counts all processes, and goes on where a run is continued."""

from types import SimpleNamespace

import pytest
import torch

from recurlab.data.batches import Batch
from recurlab.training.throughput import Throughput


class Clock:
    """Stands for the module `time`: it stands still but for what a test adds."""

    now = 100.0

    def perf_counter(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    made = Clock()
    monkeypatch.setattr("recurlab.training.throughput.time", made)
    return made


def train(throughput, clock, shapes, world=1):
    """Train batches of (sequences, steps), each in 2 seconds with 3 more before it, and 5 of validation at the end."""
    trainer, rates = SimpleNamespace(world_size=world), []
    throughput.on_train_start(trainer, None)
    for index, shape in enumerate(shapes):
        batch = Batch(torch.zeros(*shape, 1), torch.zeros(shape[0]))
        clock.now += 3
        throughput.on_train_batch_start(trainer, None, batch, index)
        clock.now += 2
        throughput.on_train_batch_end(trainer, None, None, batch, index)
        rates.append(throughput.rate)
    clock.now += 5
    return rates


@pytest.mark.parametrize("world", [1, 4])
def test_sequences_and_their_steps_are_counted_of_all_processes(clock, world):
    throughput = Throughput()
    rates = train(throughput, clock, [(6, 7), (2, 5)], world)
    throughput.on_train_end(SimpleNamespace(world_size=world), None)
    clock.now += 1000  # after the end
    assert throughput.result() == {
        "seconds": 2 * 5 + 5,  # the batches with what is before them, and the validation
        "sequences_per_second": world * 8 / 4,
        "steps_per_second": world * (6 * 7 + 2 * 5) / 4,
    }
    assert rates == [world * 6 / 2, world * 8 / 4]


def test_a_run_that_is_continued_counts_on(clock):
    first, second, whole = Throughput(), Throughput(), Throughput()
    train(first, clock, [(6, 7)])
    state = first.state_dict()  # while it trains
    assert state == {"sequences": 6, "steps": 42, "seconds": 2, "whole": 10}
    clock.now += 1000  # nobody trains
    second.load_state_dict(state)
    train(second, clock, [(2, 5)])
    found = second.result()
    train(whole, clock, [(6, 7), (2, 5)])
    assert found == {**whole.result(), "seconds": 10 + 10}


def test_a_run_without_a_step_has_no_rate(clock):
    assert Throughput().result() == {"seconds": 0, "sequences_per_second": 0, "steps_per_second": 0}
