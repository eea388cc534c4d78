"""The kernels in threads, forked children, data-loader workers and distributed processes."""

import multiprocessing
import os
import threading
import warnings
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
from recurlab.fuse.cpu import kernel, openmp
from variants import FEATURES, NOISE, VARIANTS, Model, draw, everything, make, names_of

pytestmark = pytest.mark.usefixtures("able")


@pytest.fixture
def threads():
    """Return the setter of torch's number of threads; it is put back after the test."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


# ---- the same bits ------------------------------------------------------------------------------------------


def everything_by_name(layer, x, **flags):
    return dict(zip(names_of(layer), everything(layer, x, **flags), strict=True))


@pytest.mark.parametrize("batch", [2, 21])  # of two, several threads share each of the directions
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_kernels_give_the_same_bits_for_any_number_of_threads(variant, dtype, batch, threads, products, monkeypatch):
    monkeypatch.setattr(kernel, "TEAMWORK", 0)
    monkeypatch.setattr(openmp, "cores", lambda: 5)
    layer = make(dtype, 35, bidirectional=True, **{**variant, **NOISE})
    x, mask = draw(9, batch, FEATURES, dtype=dtype), draw(9, batch) < 0.7
    resets = draw(9, batch) < -1
    runs = []
    for count in (1, 1, 2, 3, 5):
        threads(count)
        runs.append(everything_by_name(layer, x, mask=mask, resets=resets))
    for run in runs[1:]:
        for name, value in run.items():
            assert torch.equal(value, runs[0][name]), name


@pytest.mark.parametrize("backend", ["fused", "eager"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("batch_first", [False, True])
def test_the_same_bits_from_run_to_run_wherever_the_input_lies(variant, backend, dtype, batch_first, threads, products):
    threads(2)
    layer = make(dtype, 35, bidirectional=True, batch_first=batch_first, **{**variant, **NOISE, "backend": backend})
    x = draw(9, 21, FEATURES, dtype=dtype)
    wanted = everything_by_name(layer, x)
    for place in (0, 1, 3, 8):
        elsewhere = torch.empty(x.numel() + place, dtype=dtype)[place:].view_as(x).copy_(x)
        for name, value in everything_by_name(layer, elsewhere).items():
            assert torch.equal(value, wanted[name]), (name, place)


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


def test_a_layer_sent_to_a_new_process_runs_the_kernel_there():
    layer = make(cell="indy_lstm").requires_grad_(False)  # a result that hangs on a graph can't be sent back
    x = draw(5, 3, FEATURES)
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        output, _ = pool.apply_async(layer, (x,)).get(timeout=120)
    assert torch.equal(output, layer(x)[0])


@pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning")  # on one core
@pytest.mark.parametrize("name", ["gru", "indy_lstm"])
def test_workers_forked_after_the_kernel_ran_in_threads_do_not_hang(name, threads):
    threads(2)
    layer, x = make(units=40, **VARIANTS[name]), draw(6, 8, FEATURES)
    everything(layer, x)
    found = list(DataLoader(Encoded(layer, x), num_workers=2, timeout=60, multiprocessing_context="fork"))
    assert_close(torch.cat(found), layer(x)[0].detach().transpose(0, 1), rtol=1e-12, atol=1e-12)


def everything_in_threads(module, x):
    torch.mm(draw(300, 300), draw(300, 300))  # of a size that torch shares among threads
    return everything(module, x)


def _train_in_child(module, x, results):
    results.put((torch.get_num_threads(), [t.numpy() for t in everything_in_threads(module, x)]))


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
@pytest.mark.parametrize(
    "module",
    [make(units=80), make(units=80, cell="indy_lstm"), make(units=80, backend="eager"), nn.GRU(FEATURES, 80).double()],
    ids=["gru", "indy_lstm", "eager", "torch"],
)
def test_a_forked_child_trains_in_threads_after_its_parent_did(module, threads):
    threads(2)
    x = draw(5, 80, FEATURES)
    wanted = everything_in_threads(module, x)
    context = multiprocessing.get_context("fork")
    results = context.Queue()
    child = context.Process(target=_train_in_child, args=(module, x, results))
    child.start()
    try:
        count, found = results.get(timeout=60)
    finally:
        child.kill()
        child.join()
    assert count == torch.get_num_threads() == 2
    for f, w in zip(found, wanted, strict=True):
        assert_close(torch.from_numpy(f), w, rtol=1e-12, atol=1e-12)


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_where_the_threads_can_not_be_ended_a_forked_child_uses_one_and_says_so(monkeypatch, threads):
    threads(2)
    monkeypatch.setattr(openmp, "_ended", True)
    monkeypatch.setattr(openmp.ctypes, "CDLL", lambda name: object())  # an OpenMP runtime of old
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        if (child := os.fork()) == 0:
            said = [str(one.message) for one in told if one.category is RuntimeWarning]
            os._exit(0 if torch.get_num_threads() == 1 and said == [openmp.ADVICE] else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert torch.get_num_threads() == 2


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
