"""Waiting, in checks that run beside a server."""

import time
from collections.abc import Callable
from typing import Any

TIMEOUT = 600.0  # seconds


def wait(what: str, found: Callable[[], Any]) -> Any:
    """Return what `found` gives as soon as that is something."""
    deadline = time.monotonic() + TIMEOUT
    while not (result := found()):
        assert time.monotonic() < deadline, f"no {what} after {TIMEOUT} s"
        time.sleep(0.2)
    return result
