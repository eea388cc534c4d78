"""When checkpoints are written, which of them are kept, and what is taken up from one when a run goes on."""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed
from lightning_fabric.plugins.io.torch_io import TorchCheckpointIO
from pytorch_lightning import Callback, LightningModule, Trainer

from recurlab.config import TrainerConfig
from recurlab.data.module import DataModule
from recurlab.errors import Preempted, Pruned
from recurlab.files import write_bytes
from recurlab.problems.metrics import sign_of
from recurlab.problems.problem import Problem
from recurlab.training import random_state
from recurlab.training.checkpoint_file import Checkpoint, begin_epoch_anew
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
    """Keeps the best weights, and the last two checkpoints from which training goes on as if it had not stopped.

    Such a checkpoint is written just before a batch, when weights, metrics and random state of all
    earlier batches are
    final: before the first batch of an epoch, every `checkpoint_every_n_steps`, and when the
        process is told to end;
    and once more after the last batch of the training. So this has to be the first of the
    callbacks, before any that logs. It also ends the training when the validation metric is good
    enough, or when `report` says so.

    Args:
        run: where they are kept.
        problem: what is trained.
        config: of the trainer.
        content: the name of what the checkpoints are of, as `recurlab.training.resume.content_name`
            gives it.
        signals: that may tell the process to end.
        metrics: metrics.csv, in the process that writes it; None in the others.
        report: is told of each validation.

    Attributes:
        best: the best validation so far, None before the first.
        metrics: as given.
    """

    def __init__(
        self,
        run: RunDir,
        problem: Problem,
        config: TrainerConfig,
        content: str,
        signals: Signals,
        metrics: MetricsCsv | None,
        report: Report | None = None,
    ) -> None:
        self.best: float | None = None
        self._run, self._config, self._content = run, config, content
        self._monitor, self._sign = problem.monitor, sign_of(problem.mode)
        self._signals, self.metrics, self._report = signals, metrics, report
        self._before_batch = False
        self._random: dict[str, Any] | None = None  # state to be restored before the first batch
        self._first: dict[str, Any] = {}  # state of the random numbers when this process began to train
        self._drawn = False  # whether any were drawn before that
        self._measured: dict[str, float] = {}  # metrics of the last step of the training

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Listen to signals, which Lightning does not pass on."""
        self._signals.listen()
        if self._random is not None:
            begin_epoch_anew(trainer)
        self._first = self._random or random_state.capture()

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
        assert isinstance(pl_module, Problem)
        self._measured = pl_module.last_measured()
        self._save(trainer)

    def log_last(self, trainer: Trainer) -> None:
        """Log the last step of a training that was too short for any step to be logged, once it is at its end.

        It has no part in the checkpoint's rows: a run that was not stopped there has none for this
        step.
        """
        if 0 < trainer.global_step < trainer.log_every_n_steps and self._measured:  # type: ignore[attr-defined]
            for logger in trainer.loggers:
                logger.log_metrics({**self._measured, "epoch": 0}, step=trainer.global_step - 1)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Keep the weights if they are the best so far; end if they are good enough, or no good."""
        value = trainer.callback_metrics[self._monitor].item()
        if self.best is None or self._sign * value > self._sign * self.best:
            self.best = value
            trainer.save_checkpoint(self._run.best, weights_only=True)
        if self._good_enough(value):
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
        if self.metrics is not None:
            self.metrics.sync()
        trainer.save_checkpoint(self._run.next)
        if trainer.is_global_zero:
            self._run.settle()

    def state_dict(self) -> dict[str, Any]:
        """Return the best metric, and the state of the random numbers of each process."""
        now = random_state.capture()
        mine = now, self._drawn or not random_state.same(now, self._first)
        several = torch.distributed.is_available() and torch.distributed.is_initialized()
        states: list[Any] = [mine]
        if several:
            states = [None] * torch.distributed.get_world_size()
            torch.distributed.all_gather_object(states, mine)
        return {"best": self.best, "random": [s for s, _ in states], "drawn": any(drawn for _, drawn in states)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up the best metric."""
        self.best = state_dict["best"]

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Leave out the batch that was fetched last, which has not been trained; say what the checkpoint is of."""
        saved = Checkpoint(checkpoint)
        if self._before_batch:
            saved.leave_out_fetched_batch()
        saved.describe(self._content, 0 if self.metrics is None else self.metrics.rows, self._measured)

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Go on with the data and the random numbers where they were; stop if the metric has been good enough."""
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        assert isinstance(data, DataModule)
        saved = Checkpoint(checkpoint)
        if trainer.max_steps == -1 or saved.steps < trainer.max_steps:
            saved.reopen_epoch()
        data.skip(*saved.position)
        self._measured, self._drawn = saved.measured, saved.drawn
        # A run that goes on in another number of processes has drawn none: `recurlab.training.resume.check_goes_on`.
        same = len(saved.random) == trainer.world_size
        self._random = saved.random[trainer.global_rank] if same else random_state.capture()
        trainer.should_stop = self._good_enough(saved.best)

    def _good_enough(self, value: float | None) -> bool:
        threshold = self._config.stopping_threshold
        return value is not None and threshold is not None and self._sign * value >= self._sign * threshold
