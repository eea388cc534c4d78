"""What a checkpoint holds, and Lightning's own counters: all that this package takes from either stands here.

Lightning writes ``state_dict``, ``optimizer_states``, ``lr_schedulers``, ``epoch``,
``global_step``, ``loops`` (its counters) and ``callbacks`` (the state of each callback, under the
name of its class). To these are added

- by the problem: ``carried_states``, what stateful layers carry from batch to batch, of all
  processes;
- by `recurlab.training.checkpoints.Checkpoints`: ``content`` (the name of what the checkpoint is
  of), ``rows`` (how many rows metrics.csv has before it) and ``measured`` (the metrics of the last
  training step, once the training has ended); as its state ``best`` (the best validation so far),
  ``random`` (the state of the random numbers of each process) and ``drawn`` (whether any process
  has drawn one);
- by `recurlab.training.throughput.Throughput`, as its state: ``sequences``, ``steps``, ``seconds``
  and ``whole``.

best.ckpt is for the weights alone: it has ``state_dict``, ``epoch``, ``global_step`` and
``carried_states``.
"""

from pathlib import Path
from typing import Any

from pytorch_lightning import Trainer
from torch import Tensor

from recurlab.errors import RecurlabError, one_line
from recurlab.foreign import load_tensors
from recurlab.problems.problem import Problem
from recurlab.training.throughput import Throughput

CALLBACK = "Checkpoints"  # the class in checkpoints.py, under whose name its state is kept


class Checkpoint:
    """A checkpoint, as it was read or is about to be written.

    Args:
        content: what Lightning keeps, by its keys.
        path: of the file; None before there is one.
    """

    def __init__(self, content: dict[str, Any], path: Path | None = None) -> None:
        self._content, self.path = content, path

    @classmethod
    def read(cls, path: Path) -> "Checkpoint":
        """Return the checkpoint in a file, read without unpickling code.

        Raises:
            Exception: of many types, for a file that is damaged, be it in one byte.
        """
        return cls(load_tensors(path, checked=True), path)

    def describe(self, content: str, rows: int, measured: dict[str, float]) -> None:
        """Add what `Checkpoints` has to say of a checkpoint that is about to be written."""
        self._content.update(content=content, rows=rows, measured=measured)

    @property
    def weights(self) -> dict[str, Tensor]:
        """The parameters and buffers by their names."""
        weights: dict[str, Tensor] = self._content["state_dict"]
        return weights

    @property
    def content(self) -> str | None:
        """The name of what the checkpoint is of, as `recurlab.training.resume.content_name` gives it."""
        return self._content.get("content")

    @property
    def rows(self) -> int:
        """How many rows of metrics.csv were logged before it."""
        return int(self._content["rows"])

    @property
    def measured(self) -> dict[str, float]:
        """The metrics of the last training step; empty unless the training has ended."""
        measured: dict[str, float] = self._content.get("measured", {})
        return measured

    @property
    def steps(self) -> int:
        """How many steps the optimiser has made."""
        return int(self._content["global_step"])

    @property
    def best(self) -> float | None:
        """The best validation so far, None before the first."""
        best: float | None = self._content["callbacks"][CALLBACK]["best"]
        return best

    @property
    def random(self) -> list[dict[str, Any]]:
        """The state of the random numbers of each process, as `recurlab.training.random_state.capture` gives it."""
        states: list[dict[str, Any]] = self._content["callbacks"][CALLBACK]["random"]
        return states

    @property
    def drawn(self) -> bool:
        """Whether any process has drawn a random number while it trained; an earlier version has not kept it."""
        return bool(self._content["callbacks"][CALLBACK].get("drawn", True))

    @property
    def seconds(self) -> float:
        """How long the run has trained."""
        return float(self._content["callbacks"][Throughput.__qualname__]["whole"])

    @property
    def position(self) -> tuple[int, int]:
        """The epoch that is under way, from 0, and how many of its batches are done."""
        epochs, batches = self._epochs["current"], self._batches["current"]
        return epochs["processed"], batches["completed"] if epochs["processed"] < epochs["ready"] else 0

    @property
    def lengths(self) -> dict[str, int]:
        """How many epochs, be it in part, and steps have been trained, under the names of their limits."""
        epochs, batches = self.position
        return {"max_epochs": epochs + (batches > 0), "max_steps": self.steps}

    def leave_out_fetched_batch(self) -> None:
        """Count the batch that was fetched last, but has not been trained, as one that is still to come."""
        for part in ("total", "current"):
            self._batches[part]["ready"] -= 1
        self._batches["is_last_batch"] = False

    def reopen_epoch(self) -> None:
        """Count an epoch as under way that `max_steps` has ended before its last batch: Lightning takes it for over."""
        if not self._batches["is_last_batch"]:
            for part in ("total", "current"):
                epochs = self._epochs[part]
                epochs["processed"] = epochs["completed"] = epochs["ready"] - 1

    # Lightning counts what is ready (begun), started, processed (its steps done) and completed (its hooks done): in
    # "current" since the epoch began, or of epochs since `fit` was called, and in "total" since the training began.

    @property
    def _epochs(self) -> dict[str, Any]:
        epochs: dict[str, Any] = self._content["loops"]["fit_loop"]["epoch_progress"]
        return epochs

    @property
    def _batches(self) -> dict[str, Any]:
        batches: dict[str, Any] = self._content["loops"]["fit_loop"]["epoch_loop.batch_progress"]
        return batches


def begin_epoch_anew(trainer: Trainer) -> None:
    """Tell Lightning, which goes on from a checkpoint, that the epoch begins, if none of its batches is done.

    It would take the epoch for one that has ended, and count a step that was not made.
    """
    loop = trainer.fit_loop.epoch_loop
    if loop.batch_progress.current.completed == 0:
        loop.restarting = False


def load_weights(problem: Problem, path: Path) -> None:
    """Load the weights of a checkpoint into a problem, in the precision they were kept in, without unpickling code.

    Raises:
        RecurlabError: for a file that is missing, truncated or of another model.
    """
    if not path.is_file():
        raise RecurlabError(f"{path}: there is no such checkpoint")
    try:
        weights = Checkpoint.read(path).weights
        take_precision(problem, weights)
        problem.load_state_dict(weights)
    except Exception as error:  # torch raises many types for a damaged file
        reason = one_line(error)[:200] or type(error).__name__
        raise RecurlabError(f"{path}: not a checkpoint of this model: {reason}") from error


def take_precision(problem: Problem, weights: dict[str, Tensor]) -> None:
    """Give a problem the precision that weights were kept in, so that none is rounded when they are loaded."""
    problem.to(next(w.dtype for w in weights.values() if w.is_floating_point()))
