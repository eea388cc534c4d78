"""Each cell of the package, and cells that users could have written: its kernels give the reference's numbers."""

import pytest
import torch
from torch.autograd import gradcheck
from torch.func import functional_call

import recurlab
from cell_runs import FLAGS, assert_same, everything, make, point_of
from gpu_cases import SMALL, TOLERANCE, WIDTH
from layer_cases import assert_near
from package_cells import FORMS
from recurlab.bench.machine import tf32
from users_cells import CELLS as USERS

pytestmark = pytest.mark.usefixtures("able", "quick_kernels")

CELLS = {**FORMS, **USERS}


@pytest.fixture(params=CELLS)
def cell(request):
    return CELLS[request.param]


def test_auto_takes_the_kernel_and_it_gives_the_numbers_of_the_reference(cell, recurrence):
    layer = make(cell, "auto", **recurrence)
    found = everything(layer)
    assert layer.backends_used == {0: "fused"}
    assert_same(found, everything(make(cell, "eager", **recurrence)))


@pytest.mark.parametrize("options", [{"masked_output": "hold"}, {"zoneout": 0.4, "bidirectional": True}])
def test_masks_resets_noise_and_two_directions_are_those_of_the_reference(cell, recurrence, options):
    options = {"num_layers": 2, "recurrent_dropout": 0.3, "dropconnect": 0.2, **options, **recurrence}
    assert_same(everything(make(cell, **options), **FLAGS), everything(make(cell, "eager", **options), **FLAGS))


@pytest.mark.parametrize("flags", [{}, FLAGS], ids=["plain", "masked"])
def test_gradients_are_those_of_finite_differences(cell, recurrence, flags):
    layer = make(cell, units=3, **recurrence)
    x, states = point_of(layer)
    names, weights = zip(*((n, p.detach().requires_grad_()) for n, p in layer.named_parameters()), strict=True)
    count = len(states)

    def run(x, *rest):
        given = rest[:count] if count > 1 else rest[0]
        output, final = functional_call(layer, dict(zip(names, rest[count:], strict=True)), (x, given), flags)
        return (output, *final) if count > 1 else (output, final)

    assert gradcheck(run, (x, *states, *weights), fast_mode=True)


# A cell of the package runs one of the two loops, in turn: test_cuda_kernels.py runs the loops themselves in both.
EMULATED = [
    pytest.param(name, loop, marks=pytest.mark.slow if name in FORMS and (i + k) % 2 else [])
    for i, name in enumerate(CELLS)
    for k, loop in enumerate(("dense", "diagonal"))
]


@pytest.mark.parametrize(("name", "loop"), EMULATED)
def test_the_kernels_of_a_gpu_give_the_numbers_of_the_reference(gpu, name, loop):
    gpu.use(dense=SMALL)
    cell, results = CELLS[name], []
    for backend in ("fused", "eager"):
        torch.manual_seed(3)
        zoneout = tuple(0.2 * (place + 1) for place in range(len(cell.states)))
        options = {"zoneout": zoneout, "recurrent_dropout": 0.3, "masked_output": "hold", "bidirectional": True}
        layer = recurlab.RNN(3, WIDTH, cell=cell, recurrence=loop, backend=backend, **options)
        x = torch.randn(7, 9, 3, requires_grad=True)
        with tf32(False):
            output, final = layer(x, mask=torch.rand(7, 9) < 0.7, resets=torch.rand(7, 9) < 0.2)
            finals = final if isinstance(final, tuple) else (final,)
            loss = (output * torch.randn(output.shape)).sum() + sum(one.sin().sum() for one in finals)
            leaves = {"x": x, **dict(layer.named_parameters())}
            found = torch.autograd.grad(loss, list(leaves.values()), allow_unused=True)
        zeros = (torch.zeros_like(t) if g is None else g for t, g in zip(leaves.values(), found, strict=True))
        named = zip(["output", *cell.states, *leaves], [output, *finals, *zeros], strict=True)
        results.append(dict(named))
    assert_near(*results, TOLERANCE)
    assert {launch.name for launch in gpu.launches} == {"forward", "backward"}
