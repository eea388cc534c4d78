"""Layer normalisation in the kernels, of steps that users could have written."""

import pytest
import torch
from torch import sigmoid, tanh

import recurlab
from cell_runs import FLAGS, assert_same, everything, make
from users_cells import CELLS as USERS

pytestmark = pytest.mark.usefixtures("able", "quick_kernels")

NOISY = {"num_layers": 2, "bidirectional": True, "zoneout": 0.3, "recurrent_dropout": 0.3, "masked_output": "hold"}


class StateFirst(recurlab.Cell):
    """What is normalised enters the recurrence, and the state goes on as it is."""

    gates = ("update", "candidate")

    def step(self, x, h, recur):
        n = recur.normalize(h)
        return h + sigmoid(x.update + recur.update(n)) * tanh(x.candidate + recur.candidate(h))


class BetweenPhases(recurlab.Cell):
    """What is normalised depends on one phase, and another phase on it; one gate has no recurrence."""

    gates = ("candidate", "reset", "free")
    states = ("h", "c")

    def step(self, x, state, recur):
        h, c = state
        r = sigmoid(x.reset + recur.reset(c))
        n = recur.normalize(r * h + c)
        c = tanh(x.candidate + recur.candidate(n * r)) - 0.5 * n
        return c * sigmoid(x.free), c


class NothingElse(recurlab.Cell):
    """Without a recurrence, but with a state that is normalised."""

    gates = ("input",)

    def step(self, x, h, recur):
        return 0.5 * h + tanh(x.input) * recur.normalize(h + x.input)


OWN = {cell.__name__: cell() for cell in (StateFirst, BetweenPhases, NothingElse)}
CELLS = [*OWN, *(pytest.param(name, marks=pytest.mark.slow) for name in USERS)]


def normalized(cell, backend, **options):
    layer = make(cell, backend, layer_norm=True, **options)
    with torch.no_grad():
        for name, weight in layer.named_parameters():
            if name.startswith(("gain", "bias_state")):
                weight += 0.3 * torch.randn_like(weight)
    return layer


@pytest.mark.parametrize("name", CELLS)
def test_the_kernels_give_the_numbers_of_the_reference(name, recurrence):
    cell = {**OWN, **USERS}[name]
    for options, flags in (({}, {}), (NOISY, FLAGS), ({"bias": False, "units": 3}, FLAGS)):
        found, wanted = (normalized(cell, backend, **options, **recurrence) for backend in ("fused", "eager"))
        assert_same(everything(found, **flags), everything(wanted, **flags))
