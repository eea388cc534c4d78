"""How the learning rate changes: torch's schedulers, as dataclasses checked without importing torch."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from recurlab.errors import check_choice, check_integer, check_number

if TYPE_CHECKING:
    from torch.optim import Optimizer


class SchedulerSpec:
    """A schedule of the learning rate."""

    def build(self, optimizer: "Optimizer", monitor: str, mode: str) -> dict[str, Any] | None:
        """Return what Lightning wants to know of the scheduler, or None for a constant rate.

        Args:
            optimizer: whose rate is changed.
            monitor, mode: the validation metric, and whether "min" or "max" of it is better.
        """
        return None


@dataclass(frozen=True)
class Constant(SchedulerSpec):
    """The rate stays."""


@dataclass(frozen=True)
class Step(SchedulerSpec):
    """The rate is multiplied by `factor` after each `every` epochs or optimiser steps (`interval`).

    The first `after` epochs or steps do not count.
    """

    every: int = 10
    factor: float = 0.1
    interval: str = "epoch"
    after: int = 0

    def __post_init__(self) -> None:
        check_integer("scheduler.every", self.every)
        check_number("scheduler.factor", self.factor, above=0, high=1)
        check_choice("scheduler.interval", self.interval, ("epoch", "step"))
        check_integer("scheduler.after", self.after, low=0)

    def build(self, optimizer: "Optimizer", monitor: str, mode: str) -> dict[str, Any] | None:
        """Return a LambdaLR."""
        from torch.optim.lr_scheduler import LambdaLR

        def scale(count: int) -> float:
            return float(self.factor ** (max(0, count - self.after) // self.every))

        return {"scheduler": LambdaLR(optimizer, scale), "interval": self.interval}


@dataclass(frozen=True)
class Cosine(SchedulerSpec):
    """Half a cosine from the rate to `final` times it, over `over` epochs."""

    over: int = 10
    final: float = 0.0

    def __post_init__(self) -> None:
        check_integer("scheduler.over", self.over)
        check_number("scheduler.final", self.final, low=0, high=1)

    def build(self, optimizer: "Optimizer", monitor: str, mode: str) -> dict[str, Any] | None:
        """Return a LambdaLR that stays at the final rate once it is reached."""
        from math import cos, pi

        from torch.optim.lr_scheduler import LambdaLR

        def scale(count: int) -> float:
            return self.final + (1 - self.final) * (1 + cos(pi * min(count / self.over, 1))) / 2

        return {"scheduler": LambdaLR(optimizer, scale), "interval": "epoch"}


@dataclass(frozen=True)
class Plateau(SchedulerSpec):
    """The rate is multiplied by `factor` when the validation metric has not improved for `patience` validations."""

    factor: float = 0.5
    patience: int = 2

    def __post_init__(self) -> None:
        check_number("scheduler.factor", self.factor, above=0, high=0.999)
        check_integer("scheduler.patience", self.patience, low=0)

    def build(self, optimizer: "Optimizer", monitor: str, mode: str) -> dict[str, Any] | None:
        """Return a ReduceLROnPlateau."""
        from torch.optim.lr_scheduler import ReduceLROnPlateau

        scheduler = ReduceLROnPlateau(optimizer, mode=mode, factor=self.factor, patience=self.patience)  # type: ignore[arg-type]
        return {"scheduler": scheduler, "monitor": monitor}
