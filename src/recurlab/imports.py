"""Importing Lightning and torch in less time."""

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def importing() -> Iterator[None]:
    """Import meanwhile what the process is to keep; the first time alone, as later there is little to import.

    Python would look through all that has been imported for garbage, again and again: for a third
    of the time, and once more at the process's end.
    """
    if "pytorch_lightning" in sys.modules or not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()
