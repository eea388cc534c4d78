"""How much faster than the reference a cell of a user's runs."""

import statistics
import time

import pytest
import torch

import recurlab
from users_cells import PUBLISHED


@pytest.mark.slow
@pytest.mark.usefixtures("able")
@pytest.mark.parametrize("name", PUBLISHED)
def test_a_diagonal_cell_runs_four_times_as_fast_as_the_reference(name):
    steps, batch, features, units = 784, 32, 64, 128
    layers = {
        backend: recurlab.RNN(features, units, cell=PUBLISHED[name], recurrence="diagonal", backend=backend)
        for backend in ("fused", "eager")
    }
    x = torch.randn(steps, batch, features)
    seconds = {backend: [] for backend in layers}
    for turn in range(4):
        for backend, layer in layers.items():
            start = time.perf_counter()
            layer(x)[0].sum().backward()
            if turn:  # the first compiles
                seconds[backend].append(time.perf_counter() - start)
    fused, eager = (statistics.median(seconds[backend]) for backend in ("fused", "eager"))
    assert eager > 4 * fused, f"{eager:.3f} s against {fused:.3f} s"
