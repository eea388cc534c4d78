"""Lightning's Trainer as a run's config asks for it, and without its chatter."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from pytorch_lightning import Callback, Trainer
from pytorch_lightning.callbacks import RichProgressBar
from pytorch_lightning.callbacks.progress.rich_progress import RichProgressBarTheme

from recurlab.config import TrainerConfig
from recurlab.errors import RecurlabError

CHATTER = (
    ".*`isinstance.treespec, LeafSpec.` is deprecated.*",  # Lightning's own use of torch
    ".*does not have many workers.*",  # a batch of an array in memory is one indexing: a worker would slow it down
    ".*could not find the monitored key.*",  # stopped before the first validation: run.py keeps a checkpoint itself
    ".*exists and is not empty.*",  # metrics.csv is written into the run directory, beside other files
)


def check_accelerator(config: TrainerConfig) -> None:
    """Raise if a GPU is asked for and there is none."""
    if config.accelerator == "gpu" and not torch.cuda.is_available():
        raise RecurlabError(
            "trainer.accelerator='gpu': this machine has none that torch can use; allowed are auto, cpu"
        )


def make_trainer(config: TrainerConfig, callbacks: list[Callback], **options: Any) -> Trainer:
    """Return a Trainer for one process."""
    bar = [RichProgressBar(leave=True, theme=RichProgressBarTheme(metrics_format=".4g"))]
    fields = {key: value for key, value in vars(config).items() if key != "enable_progress_bar"}
    return Trainer(
        **{**fields, **options},
        devices=1,
        callbacks=[*callbacks, *(bar if config.enable_progress_bar else [])],
        enable_progress_bar=config.enable_progress_bar,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        reload_dataloaders_every_n_epochs=1,  # the order, and fresh data, belong to an epoch
    )


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
