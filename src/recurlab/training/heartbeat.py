"""Signs of life of a process that trains, so that one that hangs is told from one that works."""

from collections.abc import Callable
from typing import Any

from pytorch_lightning import Callback


class Heartbeat(Callback):
    """Tells of each part of a step: where several processes wait for each other, the one that hangs has told least.

    Args:
        tell: is called at each.
    """

    def __init__(self, tell: Callable[[], None]) -> None:
        self._tell = tell

    def on_train_batch_start(self, *given: Any) -> None:
        """Tell that the batch is there."""
        self._tell()

    def on_before_backward(self, *given: Any) -> None:
        """Tell that the loss is there."""
        self._tell()

    def on_train_batch_end(self, *given: Any) -> None:
        """Tell that the step is done."""
        self._tell()

    def on_validation_batch_end(self, *given: Any) -> None:
        """Tell that a batch is done."""
        self._tell()

    def on_test_batch_end(self, *given: Any) -> None:
        """Tell that a batch is done."""
        self._tell()
