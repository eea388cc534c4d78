"""metrics.csv: what a run logs, a row at a time, so that a run which is continued goes on where its checkpoint was."""

import csv
import io
from contextlib import suppress
from pathlib import Path
from typing import Any

from pytorch_lightning.loggers import Logger

from recurlab.errors import RecurlabError, one_line
from recurlab.files import sync, write_text
from recurlab.foreign import content_of
from recurlab.training.run_dir import MOST

FLUSH = 100  # steps


class MetricsCsv(Logger):
    """Writes metrics.csv: the columns epoch, step and the metrics' names, in alphabetical order.

    Args:
        path: of the file.
        rows: how many of the rows in it to keep, where a run is continued; None begins anew.
    """

    def __init__(self, path: Path, rows: int | None = None) -> None:
        super().__init__()
        self._path, self._columns = path, list[str]()
        self._pending: list[dict[str, Any]] = []
        self._written = 0
        path.unlink(missing_ok=True) if rows is None else self._cut(rows)

    @property
    def name(self) -> str:
        """Nothing: the run directory says it."""
        return ""

    @property
    def version(self) -> str:
        """Nothing."""
        return ""

    @property
    def rows(self) -> int:
        """How many rows have been logged, written or not."""
        return self._written + len(self._pending)

    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """Do nothing: config.yaml has them."""

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        """Add a row."""
        self._pending.append({**metrics, "step": step})
        if step is not None and (step + 1) % FLUSH == 0:
            self.save()

    def save(self) -> None:
        """Write what has been logged."""
        if not self._pending:
            return
        columns = sorted({*self._columns, *(name for row in self._pending for name in row)})
        if columns != self._columns:
            old = read_rows(self._path) if self._written else []
            self._columns = columns
            write_text(self._path, self._text(old, header=True))
        with self._path.open("a", newline="") as file:
            file.write(self._text(self._pending))
        self._written += len(self._pending)
        self._pending = []

    def sync(self) -> None:
        """Write what has been logged, and have it on the disk on return."""
        self.save()
        if self._written:
            sync(self._path)
            sync(self._path.parent)

    def finalize(self, status: str) -> None:
        """Write what has been logged."""
        self.save()

    def _cut(self, rows: int) -> None:
        old = read_rows(self._path)[:rows]
        self._columns, self._written = sorted(old[0]) if old else [], len(old)
        write_text(self._path, self._text(old, header=bool(old)))

    def _text(self, rows: list[dict[str, Any]], header: bool = False) -> str:
        text = io.StringIO()
        writer = csv.DictWriter(text, self._columns, lineterminator="\n")
        if header:
            writer.writeheader()
        writer.writerows(rows)
        return text.getvalue()


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Return the rows of a metrics.csv up to the first that is not whole; none where there is no such file."""
    try:
        text = content_of(path, MOST).decode(errors="replace") if path.exists() else ""
    except OSError as error:
        raise RecurlabError(f"{path}: can't be read: {one_line(error)}") from error
    rows: list[dict[str, Any]] = []
    with suppress(csv.Error, KeyError, TypeError, ValueError):  # a field too long, too few, too many, or no number
        for row in csv.DictReader(io.StringIO(text)):
            float(row["step"])
            for value in row.values():
                float(value or (0 if value == "" else value))
            rows.append(row)
    return rows
