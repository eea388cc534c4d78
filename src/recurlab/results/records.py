"""What a run wrote of itself, read back and checked, without torch."""

import csv
import io
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, get_origin

from recurlab.data.data import SPLITS
from recurlab.errors import RecurlabError, one_line
from recurlab.foreign import content_of
from recurlab.training.run_dir import MOST, RunDir, read_json

Points = list[tuple[int, float]]  # step of the optimiser, value
BITS = 63  # of a whole number, but for its sign


@dataclass(frozen=True)
class Result:
    """result.json: what a finished run measured.

    Attributes:
        metrics: of the best checkpoint, as "test/accuracy".
        chance: the value of a metric without learning, as "accuracy".
        parameters, epochs, steps: how many.
        seconds: of training.
        sequences_per_second, steps_per_second: time steps are those of single sequences.
        backends: of each recurrent layer.
    """

    metrics: dict[str, float]
    chance: dict[str, float]
    parameters: int
    epochs: int
    steps: int
    seconds: float
    sequences_per_second: float
    steps_per_second: float
    backends: list[str]

    @classmethod
    def read(cls, run: RunDir) -> "Result":
        """Return the result of a run; a missing or damaged one is an error."""
        content, found = read_json(run.result), {}
        for field in fields(cls):
            value: Any = content.get(field.name)
            if not _fits(value, get_origin(field.type) or field.type):
                raise RecurlabError(f"{run.result}: {field.name}={value!r}: not what a run writes")
            found[field.name] = value
        return cls(**found)

    def cost(self) -> str:
        """Return what the training took, in a line."""
        return (
            f"{self.steps} steps in {self.seconds:.1f} s, {self.sequences_per_second:.0f} sequences/s, "
            f"{self.parameters} parameters, backend {', '.join(sorted(set(self.backends)))}"
        )


def _fits(value: Any, kind: Any) -> bool:
    if kind is dict:
        return isinstance(value, dict) and all(_fits(number, float) for number in value.values())
    if kind is list:
        return isinstance(value, list) and all(isinstance(name, str) for name in value)
    if isinstance(value, int):
        return not isinstance(value, bool) and value.bit_length() <= BITS
    return kind is float and isinstance(value, float)


class Curves:
    """metrics.csv: what a run logged; empty where it has not come so far.

    Args:
        run: also one that is writing it.

    Attributes:
        columns: the points of each column that has any.

    Raises:
        RecurlabError: for a damaged file.
    """

    def __init__(self, run: RunDir) -> None:
        rows = _rows(run.metrics, growing=read_json(run.status).get("state") == "running")
        header = rows[0] if rows else []
        if rows and "step" not in header:
            raise RecurlabError(f"{run.metrics}: line 1: no column 'step'")
        self.columns: dict[str, Points] = {}
        for line, row in enumerate(rows[1:], start=2):
            if len(row) != len(header):
                raise RecurlabError(f"{run.metrics}: line {line}: {len(row)} values for {len(header)} columns")
            cells = dict(zip(header, row, strict=True))
            step = _number(run.metrics, line, "step", cells["step"], int)
            for name, cell in cells.items():
                if name not in ("step", "epoch") and cell:
                    point = step, _number(run.metrics, line, name, cell, float)
                    self.columns.setdefault(name, []).append(point)

    @property
    def steps(self) -> int:
        """The last step of which something is known."""
        return max((points[-1][0] for points in self.columns.values()), default=0)

    @property
    def metrics(self) -> list[str]:
        """The names of what was measured, as "accuracy"; "loss" comes first."""
        names = {name.partition("/")[2] for name in self.columns if name.partition("/")[0] in SPLITS}
        return sorted(names, key=lambda name: (name != "loss", name))

    @property
    def rates(self) -> dict[str, Points]:
        """The learning rates that differ; all parameters having one, it is called "learning rate"."""
        found: dict[str, Points] = {}
        for name, points in self.columns.items():
            if name.startswith("lr-") and points not in found.values():
                found[name] = points
        return {"learning rate": next(iter(found.values()))} if len(found) == 1 else found

    def of(self, split: str, metric: str) -> Points:
        """Return the points of a metric on a split, [] where there are none."""
        return self.columns.get(f"{split}/{metric}", [])


def read_confusion(run: RunDir) -> tuple[list[str], list[list[int]]] | None:
    """Return the names of K classes, and how many of each one (row) were taken for which (column).

    None where a run has no confusion.csv.

    Raises:
        RecurlabError: for a damaged file.
    """
    path = run.confusion
    if not path.is_file():
        return None
    names, *rows = _rows(path) or [[]]
    counts = [[_number(path, line, "count", cell, int) for cell in row] for line, row in enumerate(rows, start=2)]
    if not names or [len(row) for row in rows] != [len(names)] * len(names):
        sizes = sorted({len(row) for row in rows})
        raise RecurlabError(f"{path}: {len(names)} classes, but {len(rows)} rows of {sizes} counts")
    return names, counts


def _rows(path: Path, growing: bool = False) -> list[list[str]]:
    """Return the rows of a file, [] where there is none; of one that is `growing`, the complete ones."""
    try:
        text = content_of(path, MOST).decode()
        if growing:
            text = text[: text.rfind("\n") + 1]
        return list(csv.reader(io.StringIO(text, newline="")))
    except FileNotFoundError:
        return []
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise RecurlabError(f"{path}: can't be read: {one_line(error)}") from error


def _number(path: Path, line: int, name: str, cell: str, kind: type) -> Any:
    try:
        number = kind(cell)
        if isinstance(number, int) and number.bit_length() > BITS:
            raise ValueError("no array holds it")
        return number
    except ValueError as error:
        raise RecurlabError(f"{path}: line {line}: {name}={cell[:40]!r}: not a number") from error
