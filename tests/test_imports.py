"""What a process imports as it starts: without a look for garbage, and without a package that nobody uses."""

import gc
import sys

import pytest
import torch

from recurlab.backends.constant import constant
from recurlab.imports import SIGNALS, importing


@pytest.fixture
def fresh(monkeypatch):
    """Make this process one that has imported neither Lightning nor SciPy's signals."""
    scipy = pytest.importorskip("scipy")
    monkeypatch.delattr(scipy, "signal", raising=False)
    for name in list(sys.modules):
        if name == "pytorch_lightning" or f"{name}.".startswith(f"{SIGNALS}."):
            monkeypatch.delitem(sys.modules, name)
    yield
    gc.unfreeze()


def test_what_torchmetrics_looks_for_is_there_and_the_package_is_not_imported(fresh):
    with importing():
        assert not gc.isenabled()
        import scipy.signal

        assert hasattr(scipy.signal, "hamming")
        assert "windows" not in vars(sys.modules[SIGNALS])
    assert gc.isenabled()
    assert SIGNALS not in sys.modules


def test_whoever_uses_the_package_meanwhile_has_it(fresh):
    with importing():
        from scipy.signal import lfilter

        assert lfilter([1.0], [1.0], [2.0, 3.0]).tolist() == [2.0, 3.0]
        assert hasattr(sys.modules[SIGNALS], "windows")
    assert hasattr(sys.modules[SIGNALS], "windows")


def test_an_error_leaves_all_as_it_was(fresh):
    with pytest.raises(ImportError), importing():
        import there_is_no_such_module  # noqa: F401
    assert gc.isenabled()
    assert SIGNALS not in sys.modules


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
