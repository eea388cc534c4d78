"""What all problems share: steps, metrics over epochs and processes, optimiser, constraints and carried states."""

from collections.abc import Callable, Iterator, Sequence
from math import isfinite
from typing import Any, ClassVar, NamedTuple

import torch
import torch.distributed
from pytorch_lightning import LightningModule
from pytorch_lightning.core.optimizer import LightningOptimizer
from torch import Tensor
from torch.optim import Optimizer

from recurlab.cells.cell import State
from recurlab.data.batches import Batch
from recurlab.data.data import Data
from recurlab.errors import RecurlabError
from recurlab.layers.rnn import RNN
from recurlab.layers.sequence import mask_of
from recurlab.models.sequence_model import Features, SequenceModel
from recurlab.problems.loss import Loss
from recurlab.problems.metrics import mode_of
from recurlab.problems.optimizers import OptimizerSpec
from recurlab.problems.schedulers import SchedulerSpec


class Measured(NamedTuple):
    """What a batch measured.

    Attributes:
        loss: in nats, or as the problem says; a mean over `items`.
        metrics: means over `asked`.
        items: how many sequences, or steps, the loss is of.
        asked: how many the metrics are of, where it is not `items`.
    """

    loss: Tensor
    metrics: dict[str, Tensor]
    items: Tensor | int
    asked: Tensor | int | None = None

    def means(self) -> dict[str, tuple[Tensor, Tensor | int]]:
        """Return the loss and the metrics by name, each with the number that it is a mean of."""
        asked = self.items if self.asked is None else self.asked
        return {"loss": (self.loss.detach(), self.items), **{name: (m, asked) for name, m in self.metrics.items()}}


class Problem(LightningModule):
    """A problem type: a subclass says what its head, loss and metrics are.

    Args:
        model: what is trained.
        optimizer, scheduler, loss: how.
        data: what it is trained on, where a problem has to know of it.

    Attributes:
        head: "last" or "every": where the model answers.
        metric: the metric by which checkpoints are chosen.
        measured: what the last training step measured, under the names that it is logged by.
    """

    head: ClassVar[str]
    metric: ClassVar[str]

    def __init__(
        self,
        model: SequenceModel,
        optimizer: OptimizerSpec,
        scheduler: SchedulerSpec,
        loss: Loss | None = None,
        data: Data | None = None,
    ) -> None:
        super().__init__()
        self.model = model
        self.data = data
        self._optimizer, self._scheduler, self._loss = optimizer, scheduler, loss or Loss()
        if self._loss.over_time == "sum" and self.head == "last":
            raise RecurlabError("loss.over_time='sum': this problem has no loss at each step, only at the last one")
        if data is not None and data.ahead and model.bidirectional:
            raise RecurlabError("model.bidirectional=True: the reverse direction would read what is to be predicted")
        self._sums: dict[str, Tensor] = {}  # of the epoch of an evaluation: of values times counts, and of counts
        self._training_states: list[Any] = []
        self._recurrent = [module for module in model.modules() if isinstance(module, RNN)]
        self.measured: dict[str, Tensor] = {}

    @property
    def monitor(self) -> str:
        """The name under which the validation metric is logged."""
        return f"valid/{self.metric}"

    @property
    def mode(self) -> str:
        """Which values of it are better: "min" or "max"."""
        return mode_of(self.metric)

    def measure(self, outputs: Tensor, targets: Tensor, lengths: Tensor | None = None) -> Measured:
        """Return what a batch of answers measures.

        Args:
            outputs: of the model, (B, O) or (B, T, O).
            targets: (B, ...) or (B, T, ...).
            lengths: (B,) where sequences are right-padded.
        """
        raise TypeError(f"the task {type(self).__name__} measures nothing")

    def summarize(self, means: dict[str, float]) -> dict[str, float]:
        """Return the metrics of an epoch, given the means of what was measured."""
        return means

    def observe(self, split: str, outputs: Tensor, targets: Tensor) -> None:
        """Take note of the answers of an evaluation, for a metric that is no mean over its batches."""

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Return the loss.

        Raises:
            RecurlabError: if the loss is not finite, naming the step.
        """
        model = self.model
        features = model.features(batch.inputs, batch.lengths, batch.resets)
        measured = self.measure(model.answers(features), batch.targets, batch.lengths)
        self._check_finite(measured.loss, "")
        means, terms = measured.means(), [self._objective(measured, len(batch.inputs)), *self._penalties(features)]
        values = self._weighted(batch.counted, [*means.values(), *terms])
        # Not by the module's own way, which looks for parameters each time.
        vars(self)["measured"] = {f"train/{name}": value for name, value in zip(means, values, strict=False)}
        parts, factor = values[len(means) :], self.loss_factor(batch)
        loss = sum(parts[1:], parts[0])
        return loss if factor == 1 else loss * factor

    def last_measured(self) -> dict[str, float]:
        """Return what the last training step measured, of all processes, under the names that it is logged by."""
        return {name: self._mean_of_processes(value).item() for name, value in self.measured.items()}

    def loss_factor(self, batch: Batch) -> float:
        """Return what the loss of a training batch is multiplied by, where batches do not weigh the same."""
        return 1.0

    def _objective(self, measured: Measured, sequences: int) -> tuple[Tensor, Tensor | int]:
        """Return what is minimised, and the number that it is a mean of: a sum over time is a mean over sequences."""
        if self._loss.over_time == "mean":
            return measured.loss, measured.items
        return measured.loss * measured.items / sequences, sequences

    def _penalties(self, features: Features) -> list[tuple[Tensor, Tensor | int]]:
        """Return the weights' regularisations and, with the number of these, the activations' over the valid steps."""
        ar, tar, raw, valid = self._loss.ar, self._loss.tar, features.raw, features.steps.mask
        found: list[tuple[Tensor, Tensor | int]] = []
        if ar:
            mean, count = _mean(features.dropped.square(), valid)
            found.append((ar * mean, count))
        if tar:  # a single step has no change: 0 of them, as other processes may have some
            mean, count = _mean((raw[1:] - raw[:-1]).square(), None if valid is None else valid[1:])
            found.append((tar * mean, count))
        return found + [(layer.penalty(), 1) for layer in self._recurrent if layer.regularized]

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Measure a batch."""
        self._evaluate("valid", batch)

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        """Measure a batch."""
        self._evaluate("test", batch)

    def _evaluate(self, split: str, batch: Batch) -> None:
        outputs = self.model(batch.inputs, batch.lengths, batch.resets)
        measured = self.measure(outputs, batch.targets, batch.lengths)
        self._check_finite(measured.loss, f" in {split}")
        if batch.counted:
            self.observe(split, outputs, batch.targets)
        for name, (value, items) in measured.means().items():  # each process has all names, be it with counts of 0
            count = torch.as_tensor(items, dtype=torch.float64, device=self.device) * batch.counted
            self._sums[name] = self._sums.get(name, 0) + torch.stack([value.double() * count, count])

    def _report(self, split: str) -> None:
        """Log the means of an evaluation, over all processes."""
        sums = {name: self.sum_of_processes(value) for name, value in sorted(self._sums.items())}
        self._sums = {}
        means = {name: (total / count.clamp_min(1)).item() for name, (total, count) in sums.items()}
        for name, value in self.summarize(means).items():
            exact = torch.tensor(value, dtype=torch.float64, device=self.device)  # a float would be rounded to float32
            self.log(f"{split}/{name}", exact, prog_bar=name == self.metric, sync_dist=self._world > 1)

    def _weighted(self, counted: bool, means: list[tuple[Tensor, Tensor | int]]) -> list[Tensor]:
        """Return means, each given with its count, multiplied so that their mean over processes is that of all.

        Processes may have other numbers of sequences or steps in their part of a batch.
        """
        if self._world == 1:
            return [value for value, _ in means]
        counts = [torch.as_tensor(n, dtype=torch.float64, device=self.device) for _, n in means]
        mine = torch.stack(counts) * counted
        shares = (mine / self.sum_of_processes(mine).clamp_min(1) * self._world).to(self.dtype)
        return [value * share for (value, _), share in zip(means, shares, strict=True)]

    @property
    def _world(self) -> int:
        return 1 if self._trainer is None else self.trainer.world_size

    def sum_of_processes(self, value: Tensor) -> Tensor:
        """Return the sum of a tensor over all processes."""
        if self._world == 1:
            return value
        total: Tensor = self.trainer.strategy.reduce(value.clone(), reduce_op="sum")
        return total

    def _mean_of_processes(self, value: Tensor) -> Tensor:
        if self._world == 1:
            return value
        mean: Tensor = self.trainer.strategy.reduce(value.clone(), reduce_op="mean")
        return mean

    def _check_finite(self, loss: Tensor, where: str) -> None:
        if not isfinite(value := loss.item()):
            at = f"step {self.global_step} (epoch {self.current_epoch})"
            raise RecurlabError(f"loss={value}: not finite{where} at {at}")

    def configure_optimizers(self) -> Any:
        """Return the optimiser and its scheduler."""
        optimizer = self._optimizer.build(self.model)
        scheduler = self._scheduler.build(optimizer, self.monitor, self.mode)
        if scheduler is None:
            return optimizer
        if "monitor" in scheduler and self._trainer is not None:  # it is there only after a validation
            scheduler["frequency"] = self.trainer.check_val_every_n_epoch
        return {"optimizer": optimizer, "lr_scheduler": scheduler}

    def optimizer_step(
        self,
        epoch: int,
        batch_idx: int,
        optimizer: Optimizer | LightningOptimizer,
        optimizer_closure: Callable[[], Any] | None = None,
    ) -> None:
        """Step, then bring the recurrent weights back into their bounds."""
        super().optimizer_step(epoch, batch_idx, optimizer, optimizer_closure)
        for layer in self.recurrent_layers():
            layer.constrain()

    # A stateful layer carries its state along the training data; validation and test have streams of their own.

    def on_train_epoch_start(self) -> None:
        """Start the training data from a zero state."""
        self.reset_states()

    def on_validation_epoch_start(self) -> None:
        """Put the training state aside."""
        self._training_states = [layer.carried_state for layer in self.recurrent_layers()]
        self.reset_states()

    def on_validation_epoch_end(self) -> None:
        """Log the means; go on with the training state."""
        self._report("valid")
        for layer, state in zip(self.recurrent_layers(), self._training_states, strict=True):
            layer.carried_state = state

    def on_test_epoch_start(self) -> None:
        """Start the test data from a zero state."""
        self.reset_states()

    def on_test_epoch_end(self) -> None:
        """Log the means."""
        self._report("test")

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add what stateful layers carry: a list of the processes' for each state."""
        checkpoint["carried_states"] = [self._gathered(layer.carried_state) for layer in self.recurrent_layers()]

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take up what stateful layers carried, be it in another number of processes."""
        rank = 0 if self._trainer is None else self.trainer.global_rank
        for layer, states in zip(self.recurrent_layers(), checkpoint["carried_states"], strict=True):
            layer.carried_state = None if states is None else tuple(_share(each, rank, self._world) for each in states)

    def _gathered(self, states: State | None) -> list[list[Tensor]] | None:
        if states is None:
            return None
        if self._world == 1:
            return [[state] for state in states]
        found: list[Any] = [None] * self._world
        torch.distributed.all_gather_object(found, [state.cpu() for state in states])
        return [list(each) for each in zip(*found, strict=True)]

    @property
    def normalizes_batches(self) -> bool:
        """Whether the model has statistics of batches: each process those of its part, unless they are shared."""
        return any(isinstance(module, torch.nn.modules.batchnorm._BatchNorm) for module in self.modules())

    def recurrent_layers(self) -> Iterator[RNN]:
        """Iterate over the model's recurrent layers."""
        return iter(self._recurrent)

    def reset_states(self) -> None:
        """Forget what stateful layers carry."""
        for layer in self.recurrent_layers():
            layer.reset_states()


def valid_steps(outputs: Tensor, lengths: Tensor | None) -> Tensor:
    """Return which steps of answers (B, T, O) count, boolean (B, T)."""
    if lengths is None:
        return torch.ones(outputs.shape[:2], dtype=torch.bool, device=outputs.device)
    return mask_of(lengths, outputs.transpose(0, 1)).transpose(0, 1)


def _share(states: Sequence[Tensor], rank: int, world: int) -> Tensor:
    """Return the state (layers, B, H) that a process takes up, given those of the processes that were.

    Of a batch, process r of n has the sequences r, r + n, r + 2 n and so on.
    """
    if len(states) == world:
        return states[rank]
    layers, _, size = states[0].shape
    whole = states[0].new_zeros(layers, sum(state.shape[1] for state in states), size)
    for place, state in enumerate(states):
        whole[:, place :: len(states)] = state
    return whole[:, rank::world]


def _mean(x: Tensor, valid: Tensor | None) -> tuple[Tensor, Tensor | int]:
    """Return the mean of x (T, B, F) over the steps that are valid (T, B), and their number."""
    if valid is None:
        return x.sum() / max(1, x.numel()), x.shape[0] * x.shape[1]
    count = valid.sum()
    return (x * valid.unsqueeze(-1)).sum() / (count.clamp_min(1) * x.shape[-1]), count
