"""Where metrics go beside the metrics.csv that every run has."""

import netrc
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pytorch_lightning.loggers import Logger


class LoggerSpec:
    """A logger's options."""

    def build(self, run: Path, config: dict[str, Any]) -> "list[Logger]":
        """Return the loggers that are to write, besides metrics.csv, for a run directory and its resolved config."""
        return []

    def close(self) -> None:
        """End what `build` opened, so that the next run of this process is one of its own."""


@dataclass(frozen=True)
class Csv(LoggerSpec):
    """metrics.csv alone."""


@dataclass(frozen=True)
class TensorBoard(LoggerSpec):
    """Event files in the run directory's folder ``tensorboard``."""

    def build(self, run: Path, config: dict[str, Any]) -> "list[Logger]":
        """Return a TensorBoardLogger."""
        from pytorch_lightning.loggers import TensorBoardLogger

        return [TensorBoardLogger(run, name="tensorboard", version="")]


@dataclass(frozen=True)
class Wandb(LoggerSpec):
    """Weights & Biases: one run for each run directory, named after it; offline unless a key is found.

    Attributes:
        project, entity, group, tags: as in ``wandb.init``.
    """

    project: str = "recurlab"
    entity: str | None = None
    group: str | None = None
    tags: list[str] = field(default_factory=list)

    def build(self, run: Path, config: dict[str, Any]) -> "list[Logger]":
        """Return a WandbLogger."""
        from pytorch_lightning.loggers import WandbLogger

        name = f"{config['experiment']}/{run.name}"
        logger = WandbLogger(
            name=name, save_dir=run.resolve(), project=self.project, offline=not _has_key(),
            entity=self.entity, group=self.group, tags=list(self.tags), config=config, log_model=False,
        )  # fmt: skip
        return [logger]

    def close(self) -> None:
        """Finish the run, if one was begun."""
        import wandb

        wandb.finish()


def _has_key() -> bool:
    """Return whether a key is set, without asking for one or touching the network."""
    if os.environ.get("WANDB_MODE") == "offline":
        return False
    if os.environ.get("WANDB_API_KEY"):
        return True
    try:
        return netrc.netrc().authenticators("api.wandb.ai") is not None
    except (OSError, netrc.NetrcParseError):
        return False
