"""Lightning's loop over the batches of an epoch, without what takes time at each step and has no effect here.

What Lightning does beside a small model's step takes a third as long as the step: it looks through
batches, callbacks and signatures anew each time, and calls a hundred hooks that nobody has
overridden.
"""

from collections import OrderedDict
from collections.abc import Callable
from functools import cache, cached_property, partial
from typing import Any

from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.callbacks import LearningRateMonitor
from pytorch_lightning.loops.fetchers import _profile_nothing
from pytorch_lightning.loops.optimization.automatic import _AutomaticOptimization
from pytorch_lightning.loops.training_epoch_loop import _TrainingEpochLoop
from pytorch_lightning.loops.utilities import _is_max_limit_reached
from pytorch_lightning.plugins.precision import Precision
from pytorch_lightning.profilers import PassThroughProfiler
from pytorch_lightning.strategies import SingleDeviceStrategy
from pytorch_lightning.trainer.call import _call_lightning_module_hook
from pytorch_lightning.utilities import GradClipAlgorithmType
from pytorch_lightning.utilities.model_helpers import is_overridden
from torch import Tensor
from torch.nn.utils import clip_grad_norm_, clip_grad_value_
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

    @cached_property
    def of_batches(self) -> bool:
        """Whether the module has hooks for which Lightning's own loop has to train the batches."""
        return any(map(self.overridden, OTHERS))

    def _found(self, name: str) -> list[Hook]:
        trainer, module = self._trainer, self._trainer.lightning_module
        callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]
        nothing = getattr(Callback, name)  # an instance, too, may have a hook of its own, as LambdaCallback has
        listening = [c for c in callbacks if getattr(getattr(c, name), "__func__", None) is not nothing]
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
        return tensor

    def _after_closure(self, model: LightningModule, optimizer: Any) -> None:
        self.hooks("on_before_optimizer_step", optimizer)
        trainer = model.trainer
        bound, algorithm = trainer.gradient_clip_val, trainer.gradient_clip_algorithm
        if self.hooks.overridden("configure_gradient_clipping"):
            model.configure_gradient_clipping(optimizer, bound, algorithm)
        elif bound:
            clip = clip_grad_value_ if algorithm is GradClipAlgorithmType.VALUE else clip_grad_norm_
            clip(self.main_params(optimizer), bound)


class Optimization(_AutomaticOptimization):
    """A step of the optimiser for each batch."""

    def __init__(self, trainer: Trainer, hooks: Hooks) -> None:
        super().__init__(trainer)
        self._hooks = hooks

    def run(self, optimizer: Optimizer, batch_idx: int, kwargs: OrderedDict[str, Any]) -> dict[str, Any]:
        """Train a batch; return its loss, by that name."""
        trainer, strategy, steps = self.trainer, self.trainer.strategy, self.optim_progress.optimizer
        module: Any = strategy.lightning_module
        epoch = trainer.current_epoch
        outputs: dict[str, Any] = {}
        # Of one process, in float32, nothing surrounds a step.
        alone = type(strategy) is SingleDeviceStrategy and type(strategy.precision_plugin) is FullPrecision
        training_step = module.training_step if alone else strategy.training_step

        def closure() -> Any:
            if module._current_fx_name != "training_step":  # to set it would take longer
                module._current_fx_name = "training_step"
            loss: Any = training_step(*kwargs.values())
            outputs["loss"] = loss.detach()
            steps.zero_grad.increment_ready()
            self._hooks("on_before_zero_grad", optimizer)
            steps.zero_grad.increment_started()
            module.optimizer_zero_grad(epoch, batch_idx, optimizer)
            steps.zero_grad.increment_completed()
            strategy.backward(loss, optimizer)
            return loss

        steps.step.increment_ready()
        module.optimizer_step(epoch, batch_idx, strategy._lightning_optimizers[0], closure)
        steps.step.increment_completed()
        return outputs


class StepLog(Callback):
    """Passes what a training step measures to the loggers, where they take it, and nowhere else."""

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *given: Any) -> None:
        """Log what a problem has measured."""
        if _is_logged(trainer) and isinstance(pl_module, Problem):
            measured: dict[str, Any] = pl_module.last_measured()
            trainer._logger_connector.log_metrics(measured)


class Rates(LearningRateMonitor):
    """Passes the learning rate of each step that is logged to the loggers."""

    def __init__(self) -> None:
        super().__init__("step")

    def on_train_batch_start(self, trainer: Trainer, *given: Any) -> None:
        """Log the learning rate."""
        if _is_logged(trainer):
            super().on_train_batch_start(trainer, *given)


def _is_logged(trainer: Trainer) -> bool:
    """Return whether the loggers take what the present step of a training measures."""
    every: int = trainer.log_every_n_steps  # type: ignore[attr-defined]
    steps: int = trainer.fit_loop.epoch_loop._batches_that_stepped
    return every > 0 and ((steps + 1) % every == 0 or trainer.should_stop)


class EpochLoop(_TrainingEpochLoop):
    """The batches of an epoch.

    Args:
        trainer: of the loop; its loop is replaced.
    """

    def __init__(self, trainer: Trainer) -> None:
        super().__init__(trainer, trainer.min_steps, trainer.max_steps)
        self._hooks = Hooks(trainer)
        self._goes_on = False  # whether after the batch that was trained last another one is to be
        self.automatic_optimization = Optimization(trainer, self._hooks)
        if isinstance(trainer.precision_plugin, FullPrecision):
            trainer.precision_plugin.hooks = self._hooks
        trainer.fit_loop.epoch_loop = self

    def on_run_start(self, data_fetcher: Any) -> None:
        """Begin an epoch; of batches that nobody times, no profiler is told."""
        super().on_run_start(data_fetcher)
        if type(self.trainer.profiler) is PassThroughProfiler:
            data_fetcher._start_profiler = data_fetcher._stop_profiler = _profile_nothing

    def advance(self, data_fetcher: Any) -> None:
        """Train a batch."""
        self._goes_on = False
        if self.restarting or self._hooks.of_batches:
            super().advance(data_fetcher)
            return
        trainer, progress, strategy = self.trainer, self.batch_progress, self.trainer.strategy
        fetched, _, _ = next(data_fetcher)
        index = progress.current.ready
        progress.is_last_batch = data_fetcher.done
        batch = trainer.datamodule.transfer_batch_to_device(
            strategy.precision_plugin.convert_input(fetched), strategy.root_device, 0
        )
        progress.increment_ready()
        self._begin(batch)
        self._hooks("on_train_batch_start", batch, index)
        progress.increment_started()
        given = OrderedDict(batch=batch, batch_idx=index)
        outputs = self.automatic_optimization.run(strategy.optimizers[0], index, given)
        progress.increment_processed()
        if strategy.lr_scheduler_configs:
            self.update_lr_schedulers("step", update_plateau_schedulers=False)
            if self._num_ready_batches_reached():
                self.update_lr_schedulers("epoch", update_plateau_schedulers=False)
        self._hooks("on_train_batch_end", outputs, batch, index)
        steps = self.automatic_optimization.optim_progress.optimizer_steps
        last = _is_max_limit_reached(steps, self.max_steps) or self._num_ready_batches_reached()
        self._goes_on = not (last or trainer.should_stop)
        if _is_logged(trainer) or not self._goes_on:
            trainer._logger_connector.on_batch_end()
            trainer._logger_connector.update_train_step_metrics()
        progress.increment_completed()

    def _begin(self, batch: Any) -> None:
        """Tell what is logged of a new batch, as the logger connector's own way, which first looks for who trains."""
        connector, results = self.trainer._logger_connector, self._results
        connector._first_loop_iter = connector._first_loop_iter is None
        results.batch, results.batch_size, results.dataloader_idx = batch, None, None

    def on_advance_end(self, data_fetcher: Any) -> None:
        """Validate at the end of an epoch."""
        if self._goes_on:
            self._batches_that_stepped += 1
        else:
            super().on_advance_end(data_fetcher)

    @property
    def done(self) -> bool:
        """Whether the epoch, or the training, is at its end."""
        return not (self._goes_on and not self.trainer.should_stop) and super().done
