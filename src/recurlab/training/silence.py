"""How long processes that train have made no step."""

import time

from recurlab.errors import say


class Silence:
    """The time since a process was heard of; what hangs is said after some time, and after twice, four times … as long.

    Args:
        patience: seconds after which a process hangs.
    """

    def __init__(self, patience: float) -> None:
        self._patience, self._last, self._due = patience, time.monotonic(), patience

    def heard(self) -> None:
        """Begin anew, since a process has made a step."""
        self._last, self._due = time.monotonic(), self._patience

    @property
    def seconds(self) -> float:
        """How long it is."""
        return time.monotonic() - self._last

    def tell(self, who: str) -> None:
        """Say where it is time to that a process hangs."""
        if self.seconds > self._due:
            self._due = 2 * self.seconds
            say(f"{who} made no step for {self.seconds:.0f} s")
