"""The fused kernels against the reference through the layer, training-mode noise included, in both precisions."""

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import recurlab
from compiling import compiled_with
from layer_cases import assert_near, cases, run
from recurlab.fuse.cpu import compiler
from recurlab.layers import LAYER_NORMS


@pytest.fixture(autouse=True, scope="module")
def _able():
    if reason := compiler.unavailable():
        pytest.skip(reason)


def assert_agree(case, dtype, tolerance):
    assert_near(run(case, "fused", dtype), run(case, "eager", dtype), tolerance)


@settings(deadline=None, max_examples=300, suppress_health_check=[HealthCheck.too_slow])
@given(case=cases())
def test_float32_agrees_with_the_reference_to_its_precision(case):
    assert_agree(case, torch.float32, 2e-5)


@settings(deadline=None, max_examples=200, suppress_health_check=[HealthCheck.too_slow])
@given(case=cases(noisy=True))
def test_noise_of_training_is_applied_as_by_the_reference(case):
    assert_agree(case, torch.float64, 1e-10)


def test_layer_normalisation_of_every_kind_is_that_of_the_reference():
    normalized = st.booleans().flatmap(lambda noisy: cases(noisy=noisy, norms=(True, *LAYER_NORMS)))

    @settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.too_slow])
    @given(case=normalized, narrow=st.booleans())
    def check(case, narrow):
        # A row of numbers that are almost equal is scaled by up to 316, and what has been rounded with it.
        assert_agree(case, torch.float32 if narrow else torch.float64, 6e-3 if narrow else 1e-10)

    with compiled_with("-O0"):
        check()


def test_dropout_between_layers_is_drawn_alike_whatever_the_layout():
    found, wanted = [], []
    for backend, outputs in (("fused", found), ("eager", wanted)):
        for batch_first in (False, True):
            torch.manual_seed(1)
            options = {"dropout": 0.5, "batch_first": batch_first, "backend": backend, "dtype": torch.float64}
            layer = recurlab.RNN(3, 5, 2, **options)
            x = torch.randn(4, 2, 3, dtype=torch.float64)
            torch.manual_seed(2)
            outputs.append(layer(x.transpose(0, 1).contiguous())[0].transpose(0, 1) if batch_first else layer(x)[0])
    torch.testing.assert_close(found, wanted, rtol=1e-10, atol=1e-10)
