"""How fast a run trains."""

import time
from typing import Any

from pytorch_lightning import Callback, LightningModule, Trainer

from recurlab.data.batches import Batch


class Throughput(Callback):
    """Counts sequences and time steps, and the seconds between the start and the end of training batches."""

    def __init__(self) -> None:
        self.sequences, self.steps, self.seconds = 0, 0, 0.0
        self._start = 0.0
        self._began, self._before = 0.0, 0.0  # of the whole training, and how long it had taken when it was stopped

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock of the whole training."""
        self._began = time.perf_counter()

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stop it."""
        self._before, self._began = self._whole(), 0.0

    def _whole(self) -> float:
        return self._before + (time.perf_counter() - self._began if self._began else 0.0)

    def state_dict(self) -> dict[str, Any]:
        """Return the counts so far."""
        return {"sequences": self.sequences, "steps": self.steps, "seconds": self.seconds, "whole": self._whole()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from them."""
        self.sequences, self.steps = state_dict["sequences"], state_dict["steps"]
        self.seconds, self._before = state_dict["seconds"], state_dict["whole"]

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Batch, batch_idx: int) -> None:
        """Start the clock."""
        self._start = time.perf_counter()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
        """Stop the clock."""
        self.seconds += time.perf_counter() - self._start
        sequences, steps = batch.inputs.shape[:2]
        sequences *= trainer.world_size
        self.sequences += sequences
        self.steps += sequences * steps

    @property
    def rate(self) -> float:
        """Sequences per second so far."""
        return self.sequences / self.seconds if self.seconds else 0.0

    def result(self) -> dict[str, float]:
        """Return the seconds of training, validation included, and sequences and their time steps per second."""
        return {
            "seconds": self._whole(),
            "sequences_per_second": self.rate,
            "steps_per_second": self.steps / (self.seconds or float("inf")),
        }
