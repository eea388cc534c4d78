"""What a process imports as it starts, without a look for garbage."""

import gc
import sys

import pytest
import torch

from recurlab.backends.constant import constant
from recurlab.imports import importing


@pytest.fixture
def fresh(monkeypatch):
    """Make this process one that has not imported Lightning."""
    monkeypatch.delitem(sys.modules, "pytorch_lightning", raising=False)
    yield
    gc.unfreeze()


def test_nothing_is_looked_for_meanwhile_whatever_happens(fresh):
    def fail():
        with importing():
            assert not gc.isenabled()
            raise ImportError("no such module")

    with pytest.raises(ImportError):
        fail()
    assert gc.isenabled()
    assert gc.get_freeze_count() > 0


def test_a_second_time_nothing_is_done(monkeypatch):
    monkeypatch.setitem(sys.modules, "pytorch_lightning", sys)
    with importing():
        assert gc.isenabled()


def test_a_constant_is_marked_as_torch_marks_it():
    def ours():
        return 1

    def theirs():
        return 1

    assert vars(constant(ours)) == vars(torch.compiler.assume_constant_result(theirs)) != {}
