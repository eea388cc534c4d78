"""Where metrics go beside the metrics.csv that every run has."""

import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recurlab.errors import RecurlabError

if TYPE_CHECKING:
    from pytorch_lightning.loggers import Logger

_WANDB = "recurlab.training.wandb_run"  # imports wandb, so it is imported where that is chosen


class LoggerSpec:
    """A logger's options. A run calls `build`, then `finish` if it has ended well, and `close` in any case."""

    def build(self, run: Path, config: dict[str, Any], step: int = 0) -> "list[Logger]":
        """Return the loggers that are to write besides metrics.csv.

        Args:
            run: the run directory, the one place that is written to.
            config: the resolved config, in plain containers.
            step: optimiser steps that the run has behind it; more than 0 where it is continued.
        """
        return []

    def finish(self, best: Path, metrics: dict[str, float]) -> None:
        """Keep the outcome of a run that has ended well: its best checkpoint and its last metrics."""

    def close(self) -> None:
        """End what `build` opened, so that the next run of this process is one of its own."""


@dataclass(frozen=True)
class Csv(LoggerSpec):
    """metrics.csv alone."""


@dataclass(frozen=True)
class TensorBoard(LoggerSpec):
    """Event files in the run directory's folder ``tensorboard``."""

    def build(self, run: Path, config: dict[str, Any], step: int = 0) -> "list[Logger]":
        """Return a TensorBoardLogger; what an earlier part of the run has written from `step` on is no longer shown."""
        from pytorch_lightning.loggers import TensorBoardLogger

        return [TensorBoardLogger(run, name="tensorboard", version="", default_hp_metric=False, purge_step=step)]


@dataclass(frozen=True)
class Wandb(LoggerSpec):
    """Weights & Biases: one run for each run directory, named after it; offline unless a key is found.

    Attributes:
        project, entity, tags: as in ``wandb.init``.
        group: as in ``wandb.init``; None is the name of the experiment.
    """

    project: str = "recurlab"
    entity: str | None = None
    group: str | None = None
    tags: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        if not 1 <= len(self.project) <= 128 or set(self.project) & set("/\\#?%:"):
            raise RecurlabError(
                f"logger.project={self.project!r}: must be 1 to 128 characters, none of them one of / \\ # ? % :"
            )
        for tag in self.tags:
            if not 1 <= len(tag) <= 64:
                raise RecurlabError(f"logger.tags={list(self.tags)!r}: each must be 1 to 64 characters")

    def build(self, run: Path, config: dict[str, Any], step: int = 0) -> "list[Logger]":
        """Return a WandbLogger, or none where WANDB_MODE is disabled. A run that is continued keeps its id."""
        from recurlab.training import wandb_run

        group = self.group or config["experiment"]
        options = {"project": self.project, "entity": self.entity, "group": group, "tags": list(self.tags)}
        logger = wandb_run.begin(run, {**options, "name": f"{config['experiment']}/{run.name}", "config": config})
        return [] if logger is None else [logger]

    def finish(self, best: Path, metrics: dict[str, float]) -> None:
        """Log the best checkpoint as an artifact of type ``model``, the metrics being its metadata and the summary."""
        from recurlab.training import wandb_run

        wandb_run.finish(best, metrics)

    def close(self) -> None:
        """End the run, as one that has failed if it has not been finished."""
        if module := sys.modules.get(_WANDB):
            module.close()
