"""The backends of a GPU against the eager one, in all that they compute in; skipped without a GPU.

RECURLAB_DEVICE=cpu tries the tests themselves on any machine.
"""

import faulthandler
import os
from collections import Counter

import pytest
import torch

from device_cases import DTYPES, groups, noisy
from layer_cases import Case, assert_near, run
from recurlab import RecurlabError
from recurlab.bench.machine import lost, tf32
from recurlab.bench.stages import BROKEN, LOST
from recurlab.errors import one_line

DEVICE = os.environ.get("RECURLAB_DEVICE", "cuda")
STUCK = 60  # seconds after which a test is given up with its process: nothing else ends a kernel that waits for ever
# Largest relative error by norm of outputs and of gradients. Half precision rounds the state before each product and
# the projection; the state itself stays float32 in the fused kernels, cuDNN rounds it too.
BOUNDS = {
    ("fused", "bfloat16"): (1e-2, 2e-2), ("fused", "float16"): (1.5e-3, 3e-3), ("fused", "tf32"): (1.5e-3, 3e-3),
    ("cudnn", "bfloat16"): (2e-2, 5e-2), ("cudnn", "float16"): (3e-3, 8e-3), ("cudnn", "tf32"): (1.5e-3, 3e-3),
}  # fmt: skip

pytestmark = [
    pytest.mark.skipif(DEVICE == "cuda" and not torch.cuda.is_available(), reason="it needs a CUDA device"),
    pytest.mark.filterwarnings("ignore::RuntimeWarning"),  # that the kernels are not measured on this device
]


@pytest.fixture(autouse=True)
def _all_bits():
    with tf32(False):
        yield


@pytest.fixture(autouse=True)
def _device(request):
    """Say which test has begun, and end the process once its device is lost: the next one goes on behind this test."""
    print(f"begun: {request.node.nodeid}", flush=True)
    if DEVICE == "cuda":
        faulthandler.dump_traceback_later(STUCK, exit=True)
    yield
    faulthandler.cancel_dump_traceback_later()
    if (reason := lost(torch.device(DEVICE))) is not None:
        pytest.exit(f"{LOST}{reason}", returncode=BROKEN)


@pytest.fixture(scope="session")
def refusals():
    """Collect the reasons of calls that a backend does not serve; they are shown, for a test can't ask for them."""
    counts = Counter()
    yield counts
    for (backend, precision, reason), count in counts.items():
        print(f"{backend} {precision}: {count} cases not served: {reason}", flush=True)


def served(case, backend, precision, refusals):
    """Return what a backend gives, for fused ones the same bits twice, or None where it refuses by its name."""
    print(backend, precision, case, flush=True)  # a kernel that never ends leaves no other trace
    dtype = DTYPES[precision]
    with tf32(precision == "tf32"):
        try:
            found = run(case, backend, dtype, device=DEVICE)
        except RecurlabError as refusal:
            reason = str(refusal)
            assert f"backend={backend!r}: " in reason, "a refusal is one of two right answers"
            refusals[backend, precision, reason] += 1
            return None
        again = run(case, backend, dtype, device=DEVICE) if backend == "fused" else found
    for name, tensor in found.items():
        assert torch.equal(tensor, again[name]), f"{name} differs from run to run"
    return found


def assert_near_by_norm(found, wanted, bounds):
    """Assert the bounds on the norm of the errors of outputs and states, and of gradients."""
    assert found.keys() == wanted.keys()
    for name, right in wanted.items():
        right, left = right.double(), found[name].double()
        assert left.isfinite().all(), name
        # A gradient whose terms cancel has no more digits than they have.
        size = max(right.norm().item(), 0.1 * right.numel() ** 0.5)
        error, bound = (left - right).norm().item() / size, bounds[name.startswith("gradient")]
        assert error <= bound, f"{name}: {error:.2e} of the norm, allowed is {bound:.0e}"


def assert_right(case, backend, precision, refusals):
    """Assert that a backend serves a layer with right numbers, or refuses it; return whether it was served."""
    found = served(case, backend, precision, refusals)
    if found is None:
        return False
    if precision == "float32":
        assert_near(found, run(case, "eager", torch.float32, device=DEVICE), 2e-5)
    elif noisy(case):
        # The draws of torch depend on the dtype, so that both have rounded, and elsewhere.
        wide, narrow = BOUNDS[backend, precision]
        assert_near_by_norm(found, run(case, "eager", DTYPES[precision], device=DEVICE), (3 * wide, 3 * narrow))
    else:
        wanted = run(case, "eager", torch.float64, device=DEVICE, values=DTYPES[precision])
        assert_near_by_norm(found, wanted, BOUNDS[backend, precision])
    return True


@pytest.mark.parametrize("group", groups(), ids=str)
def test_layers_agree_and_give_the_same_bits_twice(group, refusals):
    ran = 0
    for case in group.cases:
        try:
            ran += assert_right(case, group.backend, group.precision, refusals)
        except Exception as error:  # the larger ones would say the same
            print(f"WRONG {group}: {one_line(str(error).partition(chr(10))[0])}: {case}", flush=True)
            raise
    if not ran:
        pytest.skip("not served")


def large(cell, recurrence, units, batch, steps, **options):
    """Return a case of a size that fills more than one block of a kernel."""
    usual = {"bidirectional": False, "stateful": False, "batch_first": False, "bias": True}
    heads = 8 if recurrence == "block" else 1
    options = {**usual, "recurrence": recurrence, "heads": heads, **options}
    return Case(
        cell, options, units, steps, batch, features=24, layers=1, padding="mask", resets=True, initial=True,
        training=True, seed=batch,
    )  # fmt: skip


LARGE = {
    "long indy_gru, few units": large("gru_before", "diagonal", 65, 2, 1500),
    "long indy_gru, many units": large("gru_before", "diagonal", 513, 33, 600, zoneout=0.1),
    "long indy_lstm": large("lstm", "diagonal", 70, 3, 1100, bidirectional=True),
    "long rnn": large("rnn", "diagonal", 130, 1, 1333, zoneout=0.1),
    "block": large("gru_after", "block", 1024, 17, 9),
    "gru": large("gru_after", "dense", 512, 64, 9),
    "gru, every multiprocessor": large("gru_after", "dense", 1024, 128, 9),
    "gru, both directions": large("gru_after", "dense", 320, 33, 9, bidirectional=True),
    "gru, odd": large("gru_after", "dense", 515, 1, 9),
    "gru before": large("gru_before", "dense", 768, 16, 9, zoneout=0.1),
    "lstm": large("lstm", "dense", 1024, 16, 9, zoneout=(0.1, 0.2)),
    "lstm, odd": large("lstm", "dense", 200, 65, 9),
    "rnn": large("rnn", "dense", 896, 48, 9),
}
PRECISIONS = ("float32", "bfloat16", "tf32")


@pytest.mark.parametrize("name", LARGE)
@pytest.mark.parametrize("precision", PRECISIONS)
def test_large_layers_agree_and_give_the_same_bits_twice(precision, name, refusals):
    case = LARGE[name]
    found = served(case, "fused", precision, refusals)
    if found is None:
        pytest.skip("not served")
    wanted = run(case, "eager", torch.float64, device=DEVICE, values=DTYPES[precision])
    assert_near_by_norm(found, wanted, (1e-5, 2e-5) if precision == "float32" else BOUNDS["fused", precision])
