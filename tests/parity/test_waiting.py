"""What the tests of a GPU rely on, of which no GPU is needed to see that it holds."""

import warnings

import pytest
import torch

from waiting import nothing_waits

TORCHS_OWN = "Synchronization debug mode is a prototype feature and does not yet detect all synchronizing operations"


@pytest.fixture
def modes(monkeypatch):
    """Return the list of the modes that are set, each with the warning that torch gives after it is set."""
    found = []

    def put(mode):
        found.append(mode)
        warnings.warn(TORCHS_OWN, UserWarning, stacklevel=2)

    if torch.backends.cuda.is_built():  # as the real one does it

        def put(mode):
            found.append(mode)
            torch._C._cuda_set_sync_debug_mode(2 if mode == "error" else 0)

    monkeypatch.setattr(torch.cuda, "set_sync_debug_mode", put)
    return found


def test_the_mode_is_taken_back_whatever_happens_and_only_its_own_warning_is_ignored(modes):
    with nothing_waits():
        assert modes == ["error"]
    assert modes == ["error", "default"]
    with pytest.raises(UserWarning, match="another"), nothing_waits():
        warnings.warn("another", UserWarning, stacklevel=1)
    assert modes == ["error", "default"] * 2


@pytest.mark.parametrize(
    ("message", "kind"),
    [
        ("Attempting to run cuBLAS, but there was no current CUDA context! Attempting to set the primary context...",
         UserWarning),
        ("Please use the new API settings to control TF32 behavior, such as torch.backends.cudnn.conv.fp32_precision",
         UserWarning),
        ("The pynvml package is deprecated. Please install nvidia-ml-py instead.", FutureWarning),
        ("Can't initialize NVML", UserWarning),
        ("Can't get nvml device count", UserWarning),
    ],
)  # fmt: skip
def test_what_torch_warns_of_by_itself_fails_no_test(message, kind):
    warnings.warn(message, kind, stacklevel=1)
