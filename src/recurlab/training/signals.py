"""What a run does when its process is told to end: finish the step, save, and say so."""

import os
import re
import signal
import subprocess
import threading
from collections.abc import Callable
from contextlib import suppress
from types import FrameType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pytorch_lightning import Trainer

# A scheduler's time limit or preemption; submitit announces a limit by SIGUSR2.
REQUEUE = (signal.SIGUSR1, signal.SIGUSR2)
HEARD = (signal.SIGINT, signal.SIGTERM, *REQUEUE)


class Signals:
    """Remembers the last signal that came, instead of dying of it; a second interrupt of the keyboard is obeyed.

    Attributes:
        received: its number, 0 where none has come.
        on_signal: is called with the number when one comes.
    """

    def __init__(self) -> None:
        self.received = 0
        self.on_signal: Callable[[int], None] | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "Signals":
        self.listen()
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def listen(self) -> None:
        """Handle the signals, also where somebody else has taken them over since."""
        if threading.current_thread() is not threading.main_thread():
            return
        for number in HEARD:
            handler = signal.signal(number, self._hear)
            self._before.setdefault(number, handler)

    def agreed(self, trainer: "Trainer") -> int:
        """Return the number of the signal that any of the processes has received, 0 where none has."""
        if trainer.world_size == 1:
            return self.received
        import torch.distributed

        highest = torch.tensor(self.received, device=trainer.strategy.root_device)
        torch.distributed.all_reduce(highest, torch.distributed.ReduceOp.MAX)
        return int(highest)

    def _hear(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT and self.received:
            raise KeyboardInterrupt
        self.received = number
        if self.on_signal is not None:
            self.on_signal(number)


def requeue(signum: int) -> None:
    """Put the job of this process back into Slurm's queue, where that is wanted: at a time limit or a preemption."""
    job = os.environ.get("SLURM_JOB_ID")
    if not job or not (signum in REQUEUE or (signum == signal.SIGTERM and _is_preempted(job))):
        return
    with suppress(OSError):
        subprocess.run(["scontrol", "requeue", job], check=False)


def _is_preempted(job: str) -> bool:
    """Return whether Slurm takes a job's place for another one; a job that is cancelled is not to come back."""
    try:
        shown = subprocess.run(["scontrol", "show", "job", job], capture_output=True, text=True, check=False).stdout
    except OSError:
        return False
    return "JobState=RUNNING" in shown and re.search(r"PreemptTime=\d", shown) is not None
