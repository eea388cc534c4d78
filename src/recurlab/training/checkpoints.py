"""Which weights are kept, from where a run goes on, and the reading of both."""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed
from lightning_fabric.plugins.io.torch_io import TorchCheckpointIO
from pytorch_lightning import Callback, LightningModule, Trainer
from torch import Tensor

from recurlab.atomic import write_bytes
from recurlab.config import TrainerConfig
from recurlab.data.module import BenchmarkData
from recurlab.errors import Preempted, Pruned, RecurlabError, one_line
from recurlab.foreign import load_tensors
from recurlab.tasks.task import Task
from recurlab.training import random_state
from recurlab.training.metrics_csv import MetricsCsv
from recurlab.training.run_dir import RunDir
from recurlab.training.signals import Signals

Report = Callable[[int, float], bool]  # of the optimiser's steps and the validation metric; True: not worth going on


class WholeFiles(TorchCheckpointIO):
    """Writes checkpoints so that a file is there in one piece and on the disk, or not at all."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Write a checkpoint."""
        content = io.BytesIO()
        torch.save(checkpoint, content)
        write_bytes(Path(path), content.getbuffer(), durable=True)


class Checkpoints(Callback):
    """Keeps the best weights, and the last two points from which training goes on as if it had not stopped.

    Such a point lies right before a training batch, where all that the batches before it have changed is in place:
    before the first batch of an epoch, all `checkpoint_every_n_steps`, when the process is told to end, and after the
    last batch of all. So it has to be the first of the callbacks, before any that logs. Also ends the training where
    the validation metric is good enough, or `report` says so.

    Args:
        run: where they are kept.
        task: what is trained.
        config: of the trainer.
        content: what the checkpoints are of; see `recurlab.training.job.digest`.
        signals: that may tell the process to end.
        metrics: what has been logged, in the process that logs.
        report: is told of each validation.
    """

    def __init__(
        self,
        run: RunDir,
        task: Task,
        config: TrainerConfig,
        content: str,
        signals: Signals,
        metrics: MetricsCsv | None,
        report: Report | None = None,
    ) -> None:
        self.best: float | None = None
        self._run, self._config, self._content = run, config, content
        self._monitor, self._sign = task.monitor, 1.0 if task.mode == "max" else -1.0
        self._signals, self._metrics, self._report = signals, metrics, report
        self._before_batch = False
        self._random: dict[str, Any] | None = None  # to be taken up before the first batch

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Listen to signals, which Lightning does not pass on."""
        self._signals.listen()
        if self._random is not None and trainer.fit_loop.epoch_loop.batch_progress.current.completed == 0:
            trainer.fit_loop.epoch_loop.restarting = False  # of an epoch that begins there is nothing to restart

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Save where it is time to."""
        resumed = self._random is not None
        if self._random is not None:
            random_state.restore(self._random)
            self._random = None
        every = self._config.checkpoint_every_n_steps
        due = trainer.global_step % every == 0 if every and batch_idx else batch_idx == 0
        told = self._signals.agreed(trainer)
        if (due or told) and trainer.global_step > 0 and not resumed:
            self._before_batch = True
            self._save(trainer)
            self._before_batch = False
        if told:
            raise Preempted(told, f"after step {trainer.global_step}")

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save the end."""
        self._save(trainer)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Keep the weights if they are the best so far; end if they are good enough, or no good."""
        value = trainer.callback_metrics[self._monitor].item()
        if self.best is None or self._sign * value > self._sign * self.best:
            self.best = value
            trainer.save_checkpoint(self._run.best, weights_only=True)
        threshold = self._config.stopping_threshold
        if threshold is not None and self._sign * value >= self._sign * threshold:
            trainer.should_stop = True
        if self._report is not None and self._report(trainer.global_step, value):
            raise Pruned(f"after step {trainer.global_step}")

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Listen to signals."""
        self._signals.listen()

    def on_test_batch_start(self, trainer: Trainer, *batch: Any) -> None:
        """End if the process is told to; the test is done anew when the run goes on."""
        if told := self._signals.agreed(trainer):
            raise Preempted(told, "in the test")

    def _save(self, trainer: Trainer) -> None:
        """Write last.ckpt, and keep the one before it."""
        if self._metrics is not None:
            self._metrics.save()
        trainer.save_checkpoint(self._run.next)
        if trainer.is_global_zero:
            if self._run.last.exists():
                self._run.last.replace(self._run.previous)
            self._run.next.replace(self._run.last)

    def state_dict(self) -> dict[str, Any]:
        """Return what is not Lightning's to know."""
        mine = random_state.capture()
        several = torch.distributed.is_available() and torch.distributed.is_initialized()
        states: list[Any] = [mine]
        if several:
            states = [None] * torch.distributed.get_world_size()
            torch.distributed.all_gather_object(states, mine)
        return {"best": self.best, "random": states}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up the best metric."""
        self.best = state_dict["best"]

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Say where the data stand; the batch that was fetched last has not been trained."""
        progress = checkpoint["loops"]["fit_loop"]["epoch_loop.batch_progress"]
        if self._before_batch:
            for part in ("total", "current"):
                progress[part]["ready"] -= 1
            progress["is_last_batch"] = False
        batches = progress["current"]["completed"] if self._before_batch else 0
        checkpoint["data"] = {"epoch": trainer.current_epoch, "batches": batches}
        checkpoint["content"], checkpoint["stopped"] = self._content, trainer.should_stop
        checkpoint["rows"] = 0 if self._metrics is None else self._metrics.rows

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Go on with the data, the random numbers and the decision to stop where they were."""
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        assert isinstance(data, BenchmarkData)
        data.skip(**checkpoint["data"])
        self._random = checkpoint["callbacks"][self.state_key]["random"][trainer.global_rank]
        trainer.should_stop = checkpoint["stopped"]


def load_weights(task: Task, path: Path) -> None:
    """Fill a task with the weights of a checkpoint, in the precision they were kept in, read without unpickling code.

    Raises:
        RecurlabError: for a file that is missing, truncated or of another model.
    """
    if not path.is_file():
        raise RecurlabError(f"{path}: there is no such checkpoint")
    try:
        weights: dict[str, Tensor] = read(path)["state_dict"]
        task.to(next(w.dtype for w in weights.values() if w.is_floating_point()))
        task.load_state_dict(weights)
    except Exception as error:  # torch raises many kinds for a damaged file
        reason = one_line(error)[:200] or type(error).__name__
        raise RecurlabError(f"{path}: not a checkpoint of this model: {reason}") from error


def read(path: Path) -> dict[str, Any]:
    """Return a checkpoint, read without unpickling code; one of whose bytes has changed is an error."""
    checkpoint: dict[str, Any] = load_tensors(path, checked=True)
    return checkpoint
