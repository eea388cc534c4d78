"""Work on a GPU that the host must not wait for."""

import warnings
from contextlib import contextmanager

import torch


@contextmanager
def nothing_waits():
    """Let an operation fail that makes the host wait for the device."""
    with warnings.catch_warnings():
        # torch warns once of the mode itself; it has set it by then.
        warnings.filterwarnings("ignore", "Synchronization debug mode is a prototype")
        try:
            torch.cuda.set_sync_debug_mode("error")
            yield
        finally:
            torch.cuda.set_sync_debug_mode("default")
