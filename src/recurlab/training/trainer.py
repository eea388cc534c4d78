"""Lightning's Trainer as a run's config asks for it, and without its chatter."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from lightning_fabric.plugins.environments.lightning import LightningEnvironment
from pytorch_lightning import Callback, Trainer

from recurlab.config import TrainerConfig
from recurlab.errors import RecurlabError
from recurlab.training.bar import Bar
from recurlab.training.checkpoints import WholeFiles
from recurlab.training.loop import EpochLoop, FullPrecision

CHATTER = (
    ".*`isinstance.treespec, LeafSpec.` is deprecated.*",  # Lightning's own use of torch
    ".*does not have many workers.*",  # a batch of an array in memory is one indexing: a worker would slow it down
    ".*could not find the monitored key.*",  # stopped before the first validation: run.py keeps a checkpoint itself
    ".*is smaller than the logging interval.*",  # run.py looks to it, and random windows may be fewer in another epoch
    ".*your dataloader is not resumable.*",  # data/module.py looks to it
    ".*Consider setting `persistent_workers=True`.*",  # an epoch has a loader of its own
    ".*`srun` command is available.*",  # training/ranks.py knows how the processes were started
)
# Options that Lightning has not, or that it is given in another form.
OURS = ("enable_progress_bar", "num_workers", "checkpoint_every_n_steps", "stopping_threshold", "stall_timeout")


def check_accelerator(config: TrainerConfig) -> None:
    """Raise if a GPU is asked for and there is none, or not so many."""
    if config.accelerator == "gpu" and not torch.cuda.is_available():
        raise RecurlabError(
            "trainer.accelerator='gpu': this machine has none that torch can use; allowed are auto, cpu"
        )
    if config.precision == "16-mixed" and not on_gpu(config):
        raise RecurlabError("trainer.precision='16-mixed': needs a GPU; bf16-mixed does not")
    if on_gpu(config) and config.devices > torch.cuda.device_count():
        raise RecurlabError(f"trainer.devices={config.devices}: this machine has {torch.cuda.device_count()} GPU(s)")


def make_trainer(config: TrainerConfig, callbacks: list[Callback], **options: Any) -> Trainer:
    """Return a Trainer: of this process alone, or as one of the processes of `recurlab.training.processes`."""
    several = config.world > 1
    fields = {key: value for key, value in vars(config).items() if key not in OURS}
    # Lightning would take an environment of its own under Slurm.
    plugins: list[Any] = [LightningEnvironment(), WholeFiles()]
    if config.precision == "32-true":
        fields["precision"], plugins = None, [*plugins, FullPrecision()]
    with quiet():
        trainer = Trainer(
            **{**fields, **options},
            strategy="ddp" if several else "auto",
            plugins=plugins,
            sync_batchnorm=several and on_gpu(config),
            use_distributed_sampler=False,  # the data know their share
            callbacks=[*callbacks, *([Bar()] if config.enable_progress_bar else [])],
            enable_progress_bar=config.enable_progress_bar,
            enable_model_summary=False,
            enable_checkpointing=False,  # by Lightning's own callback
            num_sanity_val_steps=0,
            reload_dataloaders_every_n_epochs=1,  # the order, and fresh data, belong to an epoch
        )
    EpochLoop(trainer)
    return trainer


def on_gpu(config: TrainerConfig) -> bool:
    """Return whether a run trains on GPUs."""
    return config.accelerator != "cpu" and torch.cuda.is_available()


@contextmanager
def without_denormals() -> Iterator[None]:
    """Take numbers below 1e-38 for zero, in this thread and those it starts.

    A gradient that vanishes over many steps is made of them, and on a CPU each costs as much as a
    hundred others: a backward pass of 500 steps takes 8 to 25 times as long.
    """
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(False)


@contextmanager
def quiet() -> Iterator[None]:
    """Keep Lightning's tips and device lines off the screen."""
    loggers = [logging.getLogger(name) for name in ("pytorch_lightning", "lightning_fabric", "lightning.pytorch")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.WARNING)
    with warnings.catch_warnings():
        for message in CHATTER:
            warnings.filterwarnings("ignore", message=message)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)
