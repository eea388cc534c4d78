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

from recurlab.config import TrainerConfig
from recurlab.data.module import DataModule
from recurlab.errors import Preempted, Pruned, RecurlabError, one_line
from recurlab.files import write_bytes
from recurlab.foreign import load_tensors
from recurlab.problems.problem import Problem
from recurlab.training import random_state
from recurlab.training.metrics_csv import MetricsCsv
from recurlab.training.run_dir import RunDir
from recurlab.training.signals import Signals
from recurlab.training.throughput import Throughput

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
        problem: Problem,
        config: TrainerConfig,
        content: str,
        signals: Signals,
        metrics: MetricsCsv | None,
        report: Report | None = None,
    ) -> None:
        self.best: float | None = None
        self._run, self._config, self._content = run, config, content
        self._monitor, self._sign = problem.monitor, 1.0 if problem.mode == "max" else -1.0
        self._signals, self._metrics, self._report = signals, metrics, report
        self._before_batch = False
        self._random: dict[str, Any] | None = None  # to be taken up before the first batch
        self._first: dict[str, Any] = {}  # as random numbers stood when the process began to train
        self._drawn = False  # some before
        self._measured: dict[str, float] = {}  # in the last step of all

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Listen to signals, which Lightning does not pass on."""
        self._signals.listen()
        if self._random is not None and trainer.fit_loop.epoch_loop.batch_progress.current.completed == 0:
            trainer.fit_loop.epoch_loop.restarting = False  # of an epoch that begins there is nothing to restart
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
        self._measured = {name: v.item() for name, v in trainer.callback_metrics.items() if name.startswith("train/")}
        self._save(trainer)

    def log_last(self, trainer: Trainer) -> None:
        """Log the last step of a training that was too short for any step to be logged, once it is at its end.

        It has no part in the checkpoint's rows: a run that was not stopped there has none for this step.
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
        if self._metrics is not None:
            self._metrics.sync()
        trainer.save_checkpoint(self._run.next)
        if trainer.is_global_zero:
            self._run.settle()

    def state_dict(self) -> dict[str, Any]:
        """Return what is not Lightning's to know."""
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
        progress = checkpoint["loops"]["fit_loop"]["epoch_loop.batch_progress"]
        if self._before_batch:
            for part in ("total", "current"):
                progress[part]["ready"] -= 1
            progress["is_last_batch"] = False
        checkpoint["content"], checkpoint["measured"] = self._content, self._measured
        checkpoint["rows"] = 0 if self._metrics is None else self._metrics.rows

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Go on with the data and the random numbers where they were; stop if the metric has been good enough."""
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        assert isinstance(data, DataModule)
        if trainer.max_steps == -1 or checkpoint["global_step"] < trainer.max_steps:
            _take_up_epoch(checkpoint["loops"]["fit_loop"])
        data.skip(*_place(checkpoint["loops"]["fit_loop"]))
        kept = checkpoint["callbacks"][self.state_key]
        self._measured = checkpoint.get("measured", {})
        # In another number of processes none has drawn any: see `recurlab.training.resume.check_goes_on`.
        same = len(kept["random"]) == trainer.world_size
        self._random = kept["random"][trainer.global_rank] if same else random_state.capture()
        self._drawn = kept.get("drawn", True)
        trainer.should_stop = self._good_enough(kept["best"])

    def _good_enough(self, value: float | None) -> bool:
        threshold = self._config.stopping_threshold
        return value is not None and threshold is not None and self._sign * value >= self._sign * threshold


def _take_up_epoch(loops: dict[str, Any]) -> None:
    """Count an epoch that max_steps has ended before its last batch, which Lightning holds to be over, as under way."""
    epochs = loops["epoch_progress"]
    if not loops["epoch_loop.batch_progress"]["is_last_batch"]:
        for part in ("total", "current"):
            epochs[part]["processed"] = epochs[part]["completed"] = epochs[part]["ready"] - 1


def _place(loops: dict[str, Any]) -> tuple[int, int]:
    """Return an epoch, and how many of its batches are done."""
    epochs, batches = loops["epoch_progress"]["current"], loops["epoch_loop.batch_progress"]["current"]
    return epochs["processed"], batches["completed"] if epochs["processed"] < epochs["ready"] else 0


def trained(checkpoint: dict[str, Any]) -> dict[str, int]:
    """Return how many epochs, be it in part, and steps a run has trained, under the names of their limits."""
    epochs, batches = _place(checkpoint["loops"]["fit_loop"])
    return {"max_epochs": epochs + (batches > 0), "max_steps": checkpoint["global_step"]}


def processes_of(checkpoint: dict[str, Any]) -> tuple[int, bool]:
    """Return in how many processes a run has trained, and whether any of them has drawn a random number in it."""
    kept = checkpoint["callbacks"][Checkpoints.__qualname__]
    return len(kept["random"]), kept.get("drawn", True)


def pace(checkpoint: dict[str, Any]) -> tuple[float, int]:
    """Return how long a run has trained, in seconds, and for how many steps."""
    return float(checkpoint["callbacks"][Throughput.__qualname__]["whole"]), int(checkpoint["global_step"])


def load_weights(problem: Problem, path: Path) -> None:
    """Fill a task with the weights of a checkpoint, in the precision they were kept in, read without unpickling code.

    Raises:
        RecurlabError: for a file that is missing, truncated or of another model.
    """
    if not path.is_file():
        raise RecurlabError(f"{path}: there is no such checkpoint")
    try:
        weights: dict[str, Tensor] = read(path)["state_dict"]
        take_precision(problem, weights)
        problem.load_state_dict(weights)
    except Exception as error:  # torch raises many kinds for a damaged file
        reason = one_line(error)[:200] or type(error).__name__
        raise RecurlabError(f"{path}: not a checkpoint of this model: {reason}") from error


def take_precision(problem: Problem, weights: dict[str, Tensor]) -> None:
    """Give a task the precision that weights were kept in, so that none is rounded when they are loaded."""
    problem.to(next(w.dtype for w in weights.values() if w.is_floating_point()))


def read(path: Path) -> dict[str, Any]:
    """Return a checkpoint, read without unpickling code; one of whose bytes has changed is an error."""
    checkpoint: dict[str, Any] = load_tensors(path, checked=True)
    return checkpoint
