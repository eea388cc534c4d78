"""The progress bar of a run."""

import time
from typing import Any

from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import RichProgressBar
from pytorch_lightning.callbacks.progress.rich_progress import RichProgressBarTheme, _RefreshThread

from recurlab.problems.problem import Problem
from recurlab.training.throughput import Throughput

REFRESHES = 8  # a second


class Drawing(_RefreshThread):
    """The thread that draws the bar; one that is to end does so at once, while Lightning's sleeps on."""

    def run(self) -> None:
        """Draw what is new, `REFRESHES` times a second."""
        while not self.done.wait(1 / self.refresh_per_second):
            with self.live._lock:
                if self.refresh_cond and not self.done.is_set():
                    self.refresh_cond = False
                    self.live.refresh()


class Bar(RichProgressBar):
    """Shows the loss of the last step, the rate of the training and the last validation, a few times a second.

    Lightning's own draws itself a hundred times a second, while the training waits.
    """

    def __init__(self) -> None:
        super().__init__(REFRESHES, leave=True, theme=RichProgressBarTheme(metrics_format=".4g"))
        self._due = 0.0

    def _init_progress(self, trainer: Trainer) -> None:
        before = self.progress
        super()._init_progress(trainer)
        if self.progress is None or self.progress is before:
            return
        live = self.progress.live
        if live._refresh_thread is not None:  # Lightning's, which has nothing to draw yet
            live._refresh_thread.stop()
            live._refresh_thread = Drawing(live, live.refresh_per_second)
            live._refresh_thread.start()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Show where the training is, if it is time to."""
        now = time.monotonic()
        if now >= self._due or trainer.is_last_batch:
            self._due = now + 1 / REFRESHES
            super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)

    def get_metrics(self, trainer: Trainer, pl_module: LightningModule) -> dict[str, Any]:
        """Return the numbers beside the bar."""
        callbacks: list[Any] = trainer.callbacks  # type: ignore[attr-defined]
        shown: dict[str, Any] = super().get_metrics(trainer, pl_module)
        if isinstance(pl_module, Problem) and pl_module.measured and trainer.world_size == 1:
            shown["train/loss"] = pl_module.measured["train/loss"].item()
        elif "train/loss" in trainer.logged_metrics:  # of several processes, the mean that was logged last
            shown["train/loss"] = trainer.logged_metrics["train/loss"]
        for callback in callbacks:
            if isinstance(callback, Throughput) and callback.sequences:
                shown["sequences/s"] = callback.rate
        return shown
