"""How far a run has come, and its validations so far, read from its directory."""

from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from omegaconf import DictConfig, OmegaConf

from recurlab.errors import RecurlabError
from recurlab.problems.metrics import best_of
from recurlab.results.records import Curves, Points
from recurlab.studies.reproduction import Target
from recurlab.training.run_dir import RunDir

EPOCHS = (1, 2, 5, 10, 20, 50, 100, 200)  # whose validations are kept, with the last one and those that are published


@dataclass(frozen=True)
class Course:
    """How far a run has come.

    Attributes:
        epochs: that were finished.
        steps: of the optimiser.
        of: how many steps it is to make; None before its first epoch is finished.
        valid: validations, as (epoch, value).
    """

    epochs: int
    steps: int
    of: int | None
    valid: Points

    @classmethod
    def read(cls, curves: Curves, config: DictConfig, target: Target) -> "Course":
        """Return how far a run has come, by its metrics.csv and its config."""
        points = curves.columns.get(target.valid, [])
        every: Any = OmegaConf.select(config, "trainer.check_val_every_n_epoch") or 1
        per_epoch = (points[0][0] + 1) / every if points else None
        last = [points[-1][0] for name, points in curves.columns.items() if not name.startswith("test/")]
        valid = [] if per_epoch is None else [(round((step + 1) / per_epoch), value) for step, value in points]
        limits: list[int] = [int(OmegaConf.select(config, "trainer.max_steps") or -1)]
        if per_epoch is not None:
            limits.append(round(int(OmegaConf.select(config, "trainer.max_epochs") or 0) * per_epoch))
        of = min((limit for limit in limits if limit > 0), default=None)
        return cls(valid[-1][0] if valid else 0, max(last, default=-1) + 1, of, valid)

    def best(self, better: str) -> float | None:
        """Return the best validation, None before the first."""
        return best_of((value for _, value in self.valid), better)

    def text(self, epochs: Iterable[int] = ()) -> str:
        """Return validations as a cell of results.csv: those after `EPOCHS`, the last one and those asked for."""
        wanted = {*EPOCHS, *epochs, self.epochs}
        return " ".join(f"{epoch}:{value:.6g}" for epoch, value in self.valid if epoch in wanted)


def points_of(text: str) -> dict[int, float]:
    """Return the validations in a cell of results.csv by their epochs."""
    try:
        pairs = [cell.split(":") for cell in text.split()]
        return {int(epoch): float(value) for epoch, value in pairs}
    except ValueError as error:
        raise RecurlabError(f"curve={text!r}: not a list of epoch:value") from error


def pace_of(run: RunDir) -> tuple[float, int] | None:
    """Return the seconds and the steps that a run has trained up to its last checkpoint.

    None where there is no checkpoint that can be read.
    """
    from recurlab.training.checkpoint_file import Checkpoint

    for path in (run.next, run.last, run.previous):
        with suppress(Exception):  # a damaged file makes torch raise errors of many classes
            found = Checkpoint.read(path)
            return found.seconds, found.steps
    return None
