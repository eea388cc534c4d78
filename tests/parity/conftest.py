"""Loads the plain reference that every backend is held against."""

import sys
from importlib import util
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def reference():
    """Return the module beside this file; test folders are not packages, so it is loaded by its path."""
    spec = util.spec_from_file_location("recurlab_tests_reference", Path(__file__).with_name("reference.py"))
    module = util.module_from_spec(spec)
    sys.modules[spec.name] = module  # a dataclass looks its module up here
    spec.loader.exec_module(module)
    return module
