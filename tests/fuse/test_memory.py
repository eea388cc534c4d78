"""Memory that large tensors have one after the other."""

import os

import pytest
import torch

from recurlab.fuse import memory
from recurlab.fuse.memory import GIVEN_BACK, reused

COUNT = GIVEN_BACK // 4 + 5  # numbers of a tensor that is large


@pytest.fixture
def pieces(monkeypatch):
    found = memory._Pieces()
    monkeypatch.setattr(memory, "_pieces", found)
    return found


def test_a_large_tensor_has_the_memory_of_one_that_is_gone_and_of_no_other(pieces):
    like = torch.empty(0)
    first, second = reused(like, COUNT), reused(like, 1, COUNT)
    first.fill_(1)
    second.fill_(2)
    view = first[3:5]
    pages = {tensor.data_ptr() >> 21 for tensor in (first, second)}
    assert len(pages) == 2
    del first
    third = reused(like, COUNT)
    third.fill_(3)
    assert view.tolist() == [1, 1], "a view keeps the memory"
    del view, second
    fourth = reused(like, 5, COUNT // 5, 1, swapped=True)
    assert fourth.shape == (5, COUNT // 5, 1)
    assert fourth.stride()[:2] == (1, 5)
    assert fourth.data_ptr() >> 21 in pages
    assert third.eq(3).all()


def test_memory_that_is_not_asked_for_again_is_given_back(pieces):
    kept = reused(torch.empty(0), COUNT)
    del kept
    assert len(pieces._free) == 1
    for _ in range(pieces.UNUSED):
        reused(torch.empty(0), 2 * COUNT)
    assert [len(piece) > 8 * COUNT for _, piece in pieces._free] == [True]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this platform has no fork")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_forked_process_has_a_copy(pieces):
    tensor = reused(torch.empty(0), COUNT)
    tensor.fill_(1)
    child = os.fork()
    if child == 0:
        tensor.fill_(2)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    assert tensor.eq(1).all()


def test_a_profiler_can_see_all_memory(pieces):
    with memory.visible(), torch.profiler.profile(profile_memory=True) as profiler:
        reused(torch.empty(0), COUNT)
    assert max(event.self_cpu_memory_usage for event in profiler.key_averages()) >= 4 * COUNT
    assert pieces.on
    assert not pieces._free
