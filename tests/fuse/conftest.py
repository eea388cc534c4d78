"""Fixtures of the tests that need compiled kernels."""

import pytest

from variants import VARIANTS


@pytest.fixture(params=VARIANTS)
def variant(request):
    return VARIANTS[request.param]


@pytest.fixture
def able(skip_unless_able):
    skip_unless_able("fused")
