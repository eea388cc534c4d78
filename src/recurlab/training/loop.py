"""Lightning's loop over the batches of an epoch, without what takes time at each step and has no effect here.

What Lightning does beside a small model's step takes a third as long as the step: it looks through
batches, callbacks and signatures anew each time, and calls a hundred hooks that nobody has
overridden.
"""

from collections import OrderedDict
from collections.abc import Callable
from functools import cache, partial
from typing import Any

from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.loops.optimization.automatic import _AutomaticOptimization
from pytorch_lightning.loops.training_epoch_loop import _TrainingEpochLoop
from pytorch_lightning.plugins.precision import Precision
from pytorch_lightning.trainer.call import _call_lightning_module_hook
from pytorch_lightning.utilities import GradClipAlgorithmType
from pytorch_lightning.utilities.model_helpers import is_overridden
from torch import Tensor
from torch.optim import Optimizer

from recurlab.problems.problem import Problem

Hook = Callable[..., Any]
# Of a module that has one of these, Lightning's own loop trains the batches.
OTHERS = ("on_before_batch_transfer", "transfer_batch_to_device", "on_after_batch_transfer", "on_train_batch_start")


class Hooks:
    """The hooks of a trainer's callbacks and module that somebody has overridden.

    Attributes:
        overridden: whether the module has a hook of a name.
    """

    def __init__(self, trainer: Trainer) -> None:
        self._trainer = trainer
        self._listening, self.overridden = cache(self._found), cache(self._overridden)

    def __call__(self, name: str, *given: Any) -> None:
        """Call the callbacks' hooks of a name, and then the module's."""
        for hook in self._listening(name):
            hook(*given)

    def _found(self, name: str) -> list[Hook]:
        trainer, module = self._trainer, self._trainer.lightning_module
        callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]
        listening = [c for c in callbacks if getattr(type(c), name) is not getattr(Callback, name)]
        found: list[Hook] = [partial(getattr(callback, name), trainer, module) for callback in listening]
        return [*found, *([partial(_call_lightning_module_hook, trainer, name)] if self.overridden(name) else [])]

    def _overridden(self, name: str) -> bool:
        return bool(is_overridden(name, self._trainer.lightning_module))


class FullPrecision(Precision):
    """float32 throughout.

    Attributes:
        hooks: of the trainer.
    """

    hooks: Hooks

    def pre_backward(self, tensor: Tensor, module: LightningModule) -> Tensor:  # type: ignore[override]
        """Tell of the loss."""
        self.hooks("on_before_backward", tensor)
        return tensor

    def post_backward(self, tensor: Tensor, module: LightningModule) -> Tensor:  # type: ignore[override]
        """Tell of the gradients."""
        self.hooks("on_after_backward")
        return tensor.detach()

    def _after_closure(self, model: LightningModule, optimizer: Any) -> None:
        self.hooks("on_before_optimizer_step", optimizer)
        bound, algorithm = model.trainer.gradient_clip_val, model.trainer.gradient_clip_algorithm
        if self.hooks.overridden("configure_gradient_clipping"):
            model.configure_gradient_clipping(optimizer, bound, algorithm)
        elif bound:
            self.clip_gradients(optimizer, bound, algorithm or GradClipAlgorithmType.NORM)


class Optimization(_AutomaticOptimization):
    """A step of the optimiser for each batch."""

    def __init__(self, trainer: Trainer, hooks: Hooks) -> None:
        super().__init__(trainer)
        self._hooks = hooks

    def run(self, optimizer: Optimizer, batch_idx: int, kwargs: OrderedDict[str, Any]) -> dict[str, Any]:
        """Train a batch; return its loss, by that name."""
        trainer, module, steps = self.trainer, self.trainer.lightning_module, self.optim_progress.optimizer
        epoch, outputs = trainer.current_epoch, dict[str, Any]()

        def closure() -> Any:
            module._current_fx_name = "training_step"
            loss: Any = trainer.strategy.training_step(*kwargs.values())
            outputs["loss"] = loss.detach()
            steps.zero_grad.increment_ready()
            self._hooks("on_before_zero_grad", optimizer)
            steps.zero_grad.increment_started()
            module.optimizer_zero_grad(epoch, batch_idx, optimizer)
            steps.zero_grad.increment_completed()
            trainer.strategy.backward(loss, optimizer)
            return loss

        steps.step.increment_ready()
        module.optimizer_step(epoch, batch_idx, trainer.strategy._lightning_optimizers[0], closure)
        steps.step.increment_completed()
        return outputs


class StepLog(Callback):
    """Passes what a training step measures to the loggers, where they take it, and nowhere else."""

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *given: Any) -> None:
        """Log what a problem has measured."""
        if trainer._logger_connector.should_update_logs and isinstance(pl_module, Problem):
            measured: dict[str, Any] = pl_module.last_measured()
            trainer._logger_connector.log_metrics(measured)


class EpochLoop(_TrainingEpochLoop):
    """The batches of an epoch.

    Args:
        trainer: of the loop; its loop is replaced.
    """

    def __init__(self, trainer: Trainer) -> None:
        super().__init__(trainer, trainer.min_steps, trainer.max_steps)
        self._hooks = Hooks(trainer)
        self.automatic_optimization = Optimization(trainer, self._hooks)
        if isinstance(trainer.precision_plugin, FullPrecision):
            trainer.precision_plugin.hooks = self._hooks
        trainer.fit_loop.epoch_loop = self

    def advance(self, data_fetcher: Any) -> None:
        """Train a batch."""
        if self.restarting or any(map(self._hooks.overridden, OTHERS)):
            super().advance(data_fetcher)
            return
        trainer, progress, connector = self.trainer, self.batch_progress, self.trainer._logger_connector
        fetched, _, _ = next(data_fetcher)
        index = progress.current.ready
        progress.is_last_batch = data_fetcher.done
        batch = trainer.datamodule.transfer_batch_to_device(
            trainer.precision_plugin.convert_input(fetched), trainer.strategy.root_device, 0
        )
        progress.increment_ready()
        connector.on_batch_start(batch)
        self._hooks("on_train_batch_start", batch, index)
        progress.increment_started()
        given = OrderedDict(batch=batch, batch_idx=index)
        outputs = self.automatic_optimization.run(trainer.optimizers[0], index, given)
        progress.increment_processed()
        if trainer.lr_scheduler_configs:
            self.update_lr_schedulers("step", update_plateau_schedulers=False)
            if self._num_ready_batches_reached():
                self.update_lr_schedulers("epoch", update_plateau_schedulers=False)
        self._hooks("on_train_batch_end", outputs, batch, index)
        if connector.should_update_logs or self._is_at_end:
            connector.on_batch_end()
            connector.update_train_step_metrics()
        progress.increment_completed()

    def on_advance_end(self, data_fetcher: Any) -> None:
        """Validate at the end of an epoch."""
        if self._is_at_end or self.restarting:
            super().on_advance_end(data_fetcher)
        else:
            self._batches_that_stepped += 1

    @property
    def _is_at_end(self) -> bool:
        """Whether no further batch may follow in this epoch."""
        return self.batch_progress.is_last_batch or self.trainer.should_stop or self._is_training_done
