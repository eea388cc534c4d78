"""A step of the training is Lightning's, told to the same hooks in the same order, with the same numbers."""

import pytest
import torch
from pytorch_lightning import Callback, Trainer

from recurlab.config import TrainerConfig
from recurlab.data.adding import Adding
from recurlab.data.module import DataModule
from recurlab.models.sequence_model import SequenceModel
from recurlab.problems.optimizers import Adam
from recurlab.problems.regression import Regression
from recurlab.problems.schedulers import Step
from recurlab.training.trainer import make_trainer, quiet

HOOKS = (
    "on_train_batch_start", "on_before_zero_grad", "on_before_backward", "on_after_backward",
    "on_before_optimizer_step", "on_train_batch_end",
)  # fmt: skip
OPTIONS = {"accelerator": "cpu", "max_epochs": 2, "gradient_clip_val": 0.1, "gradient_clip_algorithm": "norm"}
MODULES = {
    "no hook": (),
    "a hook after each step": ("on_after_backward", "on_train_batch_end"),
    "a hook before each batch": ("on_train_batch_start", "on_before_optimizer_step"),
    "clipping of its own": ("configure_gradient_clipping",),
    "batches of its own": ("on_after_batch_transfer",),
}


def recording(base, names, seen, who):
    """Return a class whose hooks write down what they are given, apart from numbers."""

    def hook(name):
        def told(self, *given, **named):
            shown = [type(each).__name__ for each in [*given, *named.values()] if not isinstance(each, Trainer)]
            if isinstance(given[-1] if given else None, dict):
                shown += given[-1]
            seen.append((who, name, *shown))
            return getattr(base, name)(self, *given, **named)

        return told

    return type(who, (base,), {name: hook(name) for name in names})


class Stopping(Callback):
    """Tells the trainer to stop, in a hook, at the second batch."""

    def __init__(self, hook):
        setattr(self, hook, lambda trainer, *given: setattr(trainer, "should_stop", trainer.global_step >= 1))


def trained(make, names, interval, other=None):
    """Return what the hooks were told, and the weights at the end."""
    torch.manual_seed(0)
    seen = []
    model = SequenceModel(2, 1, head="last", layer={"hidden_size": 4, "num_layers": 1, "cell": "indrnn"})
    problem = recording(Regression, names, seen, "module")(model, Adam(lr=0.1), Step(every=2, interval=interval))
    data = DataModule(Adding(length=5, train_size=20, valid_size=4, test_size=4, batch_size=8), seed=0)
    data.setup()
    with quiet():
        make([recording(Callback, HOOKS, seen, "callback")(), other or Callback()]).fit(problem, data)
    return seen, [weight.tolist() for weight in problem.parameters()]


def ours(callbacks):
    return make_trainer(TrainerConfig(**OPTIONS, enable_progress_bar=False), callbacks, logger=False)


def lightnings(callbacks):
    off = dict.fromkeys(("logger", "enable_progress_bar", "enable_model_summary", "enable_checkpointing"), False)
    return Trainer(**OPTIONS, **off, callbacks=callbacks, num_sanity_val_steps=0, reload_dataloaders_every_n_epochs=1)


@pytest.mark.filterwarnings("ignore:You have overridden `on_after_batch_transfer`:UserWarning")
@pytest.mark.parametrize("interval", ["step", "epoch"])
@pytest.mark.parametrize("names", MODULES.values(), ids=MODULES)
def test_a_step_is_lightnings(names, interval):
    found, wanted = (trained(make, names, interval) for make in (ours, lightnings))
    assert len(found[0]) >= 6 * len(HOOKS)
    assert found == wanted


@pytest.mark.parametrize("hook", ["on_train_batch_start", "on_before_backward", "on_train_batch_end"])
def test_a_training_that_is_told_to_stop_ends_where_lightnings_does(hook):
    found, wanted = (trained(make, ("on_train_batch_end",), "step", Stopping(hook)) for make in (ours, lightnings))
    assert len(found[0]) < 2 * 3 * len(HOOKS)
    assert found == wanted
