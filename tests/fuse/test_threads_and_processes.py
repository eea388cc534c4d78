"""The kernels in threads, forked children, data-loader workers and distributed processes."""

import multiprocessing
import threading
from datetime import timedelta

import pytest
import torch
import torch._dynamo.testing
import torch.distributed as dist
import torch.utils.checkpoint
from torch import nn
from torch.testing import assert_close
from torch.utils.data import DataLoader, Dataset

import recurlab
from variants import FEATURES, NOISE, VARIANTS, Model, draw, everything, make, names_of

pytestmark = pytest.mark.usefixtures("able")


@pytest.fixture
def threads():
    """Return the setter of torch's number of threads; it is put back after the test."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


# ---- the same bits ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_same_bits_from_run_to_run_and_for_any_number_of_threads(variant, dtype, threads):
    layer = make(dtype, 35, bidirectional=True, **{**variant, **NOISE})
    x, mask = draw(9, 21, FEATURES, dtype=dtype), draw(9, 21) < 0.7
    runs = []
    for count in (1, 1, 2, 3, 5):
        threads(count)
        runs.append(dict(zip(names_of(layer), everything(layer, x, mask=mask), strict=True)))
    for run in runs[1:]:
        for name in run:
            if not name.startswith(("x", "weight_ih")):  # torch's own product
                assert torch.equal(run[name], runs[0][name]), name


# ---- forks and processes ------------------------------------------------------------------------------------


class Encoded(Dataset):
    """Runs a layer in whoever asks for a sample."""

    def __init__(self, layer, x):
        self.layer, self.x = layer, x

    def __len__(self):
        return self.x.shape[1]

    def __getitem__(self, place):
        # a worker sets one thread; a user may set more
        torch.set_num_threads(2)
        return self.layer(self.x[:, place])[0].detach()


@pytest.mark.parametrize("name", ["gru", "indy_lstm"])
def test_workers_forked_after_the_kernel_ran_in_threads_do_not_hang(name, threads):
    threads(2)
    layer, x = make(units=40, **VARIANTS[name]), draw(6, 8, FEATURES)
    everything(layer, x)
    found = list(DataLoader(Encoded(layer, x), num_workers=2, timeout=60, multiprocessing_context="fork"))
    wanted = layer(x)[0].detach()
    threads(1)
    assert_close(torch.cat(found), wanted.transpose(0, 1), rtol=1e-12, atol=1e-12)


def _train_in_child(layer, x, results):
    results.put([t.numpy() for t in everything(layer, x)])


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
@pytest.mark.parametrize("name", ["gru", "indy_lstm"])
def test_a_forked_child_trains_after_its_parent_ran_in_threads(name, threads):
    threads(2)
    layer, x = make(**VARIANTS[name]), draw(6, 8, FEATURES)
    wanted = everything(layer, x)
    threads(1)  # torch's own products would wait for threads that a fork has lost
    context = multiprocessing.get_context("fork")
    results = context.Queue()
    child = context.Process(target=_train_in_child, args=(layer, x, results))
    child.start()
    try:
        found = results.get(timeout=60)
    finally:
        child.kill()
        child.join()
    for f, w in zip(found, wanted, strict=True):
        assert_close(torch.from_numpy(f), w, rtol=1e-12, atol=1e-12)


def _replica(rank, folder, model, x, results):
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2, timeout=timedelta(seconds=60)
    )
    torch.set_num_threads(1)
    replica = nn.parallel.DistributedDataParallel(model)
    replica(x.chunk(2, 1)[rank])[0].square().sum().backward()
    if rank == 0:
        results.put({name: p.grad.numpy() for name, p in model.named_parameters()})
        results.close()
        results.join_thread()
    dist.barrier()
    dist.destroy_process_group()


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_two_processes_give_the_gradients_of_one(tmp_path):
    model, x = Model(bidirectional=True), draw(5, 6, FEATURES)
    context = multiprocessing.get_context("fork")
    results = context.Queue()
    replicas = [context.Process(target=_replica, args=(k, tmp_path, model, x, results)) for k in range(2)]
    for one in replicas:
        one.start()
    try:
        found = results.get(timeout=60)
        for one in replicas:
            one.join(60)
    finally:
        for one in replicas:
            one.kill()
            one.join()
    model(x)[0].square().sum().backward()
    for name, p in model.named_parameters():
        assert_close(2 * torch.from_numpy(found[name]), p.grad, rtol=1e-10, atol=1e-10, msg=name)


def test_many_threads_of_python_may_use_a_cell_at_once():
    class Fresh(recurlab.Cell):
        gates = ("only",)

        def step(self, x, h, recur):
            return torch.tanh(x.only + recur.only(h) + 0.123)

    layer, x, found = make(cell=Fresh()), draw(4, 3, FEATURES), {}

    def use(place):
        found[place] = layer(x)[0].detach()

    users = [threading.Thread(target=use, args=(k,)) for k in range(4)]
    for user in users:
        user.start()
    for user in users:
        user.join(60)
    wanted = make(cell=layer.cell, backend="eager")(x)[0]
    assert len(found) == 4
    for one in found.values():
        assert_close(one, wanted, rtol=1e-10, atol=1e-10)
