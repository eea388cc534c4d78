"""What all problems share: steps, logging, optimiser, recurrent constraints and carried states."""

from collections.abc import Callable, Iterator
from typing import Any, ClassVar

import torch
from pytorch_lightning import LightningModule
from pytorch_lightning.core.optimizer import LightningOptimizer
from torch import Tensor, nn
from torch.optim import Optimizer

from recurlab.data.module import Batch
from recurlab.errors import RecurlabError
from recurlab.layers.rnn import RNN
from recurlab.tasks.optimizers import OptimizerSpec
from recurlab.tasks.schedulers import SchedulerSpec


class Task(LightningModule):
    """A problem type: a subclass says what its head, loss and metrics are.

    Attributes:
        head: "last" or "every": where the model answers.
        metric: the metric by which checkpoints are chosen.
        mode: "min" or "max": which values of it are better.
    """

    head: ClassVar[str]
    metric: ClassVar[str]
    mode: ClassVar[str]

    def __init__(self, model: nn.Module, optimizer: OptimizerSpec, scheduler: SchedulerSpec) -> None:
        super().__init__()
        self.model = model
        self._optimizer, self._scheduler = optimizer, scheduler
        self._training_states: list[Any] = []

    @property
    def monitor(self) -> str:
        """The name under which the validation metric is logged."""
        return f"valid/{self.metric}"

    def measure(self, outputs: Tensor, targets: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss and the metrics, each a mean over the batch."""
        raise TypeError(f"the task {type(self).__name__} measures nothing")

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Return the loss.

        Raises:
            RecurlabError: if the loss is not finite, naming the step.
        """
        loss, metrics = self.measure(self.model(batch.inputs, batch.lengths), batch.targets)
        self._check_finite(loss, "")
        self._log("train", loss.detach(), metrics, batch)
        return loss

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Log the loss and the metrics."""
        self._evaluate("valid", batch)

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        """Log the loss and the metrics."""
        self._evaluate("test", batch)

    def _evaluate(self, split: str, batch: Batch) -> None:
        loss, metrics = self.measure(self.model(batch.inputs, batch.lengths), batch.targets)
        self._check_finite(loss, f" in {split}")
        self._log(split, loss, metrics, batch)

    def _check_finite(self, loss: Tensor, where: str) -> None:
        if not torch.isfinite(loss):
            at = f"step {self.global_step} (epoch {self.current_epoch})"
            raise RecurlabError(f"loss={loss.item()}: not finite{where} at {at}")

    def _log(self, split: str, loss: Tensor, metrics: dict[str, Tensor], batch: Batch) -> None:
        shown = "loss" if split == "train" else self.metric
        for name, value in {"loss": loss, **metrics}.items():
            self.log(f"{split}/{name}", value, prog_bar=name == shown, batch_size=len(batch.targets))

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
        """Go on with the training state."""
        for layer, state in zip(self.recurrent_layers(), self._training_states, strict=True):
            layer.carried_state = state

    def on_test_epoch_start(self) -> None:
        """Start the test data from a zero state."""
        self.reset_states()

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add what stateful layers carry."""
        checkpoint["carried_states"] = [layer.carried_state for layer in self.recurrent_layers()]

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take up what stateful layers carried."""
        for layer, state in zip(self.recurrent_layers(), checkpoint["carried_states"], strict=True):
            layer.carried_state = state

    def recurrent_layers(self) -> Iterator[RNN]:
        """Iterate over the model's recurrent layers."""
        return (module for module in self.modules() if isinstance(module, RNN))

    def reset_states(self) -> None:
        """Forget what stateful layers carry."""
        for layer in self.recurrent_layers():
            layer.reset_states()
