"""Importing Lightning and torch in half the time."""

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from types import ModuleType
from typing import Any

SIGNALS = "scipy.signal"


class _Signals(ModuleType):
    """Stands for SciPy's signals, which take as long as Lightning itself, where they are installed.

    torchmetrics, which Lightning imports, only sees to it that they have a window that once was
    there. Asked for anything else, this makes way for them.
    """

    hamming = None

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        self.make_way()
        return getattr(import_module(SIGNALS), name)

    def make_way(self) -> None:
        if sys.modules.get(SIGNALS) is self:
            del sys.modules[SIGNALS]


@contextmanager
def importing() -> Iterator[None]:
    """Import meanwhile what the process is to keep; the first time alone, as later there is little to import.

    Python would look through all that has been imported for garbage, again and again: for a third
    of the time, and once more at the process's end.
    """
    if "pytorch_lightning" in sys.modules or not gc.isenabled():
        yield
        return
    signals = _Signals(SIGNALS)
    sys.modules.setdefault(SIGNALS, signals)
    gc.disable()
    try:
        yield
    finally:
        signals.make_way()
        gc.freeze()
        gc.enable()
