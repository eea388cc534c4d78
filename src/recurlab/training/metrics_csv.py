"""metrics.csv: what a run logs, a row at a time, so that a run which is continued goes on where its checkpoint was."""

import csv
import io
from pathlib import Path
from typing import Any

from pytorch_lightning.loggers import Logger

from recurlab.atomic import write_text
from recurlab.errors import RecurlabError, one_line
from recurlab.foreign import content_of
from recurlab.training.run_dir import MOST

FLUSH = 100  # steps


class MetricsCsv(Logger):
    """Writes metrics.csv: the columns epoch, step and the metrics' names, in alphabetical order.

    Args:
        path: of the file.
        rows: how many of the rows in it to keep, where a run is continued; None begins anew.

    Raises:
        RecurlabError: if there are not so many.
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
            old = self._read() if self._written else []
            self._columns = columns
            write_text(self._path, self._text(old, header=True))
        with self._path.open("a", newline="") as file:
            file.write(self._text(self._pending))
        self._written += len(self._pending)
        self._pending = []

    def finalize(self, status: str) -> None:
        """Write what has been logged."""
        self.save()

    def _cut(self, rows: int) -> None:
        old = self._read() if self._path.is_file() else []
        if len(old) < rows:
            raise RecurlabError(f"{self._path}: {len(old)} rows, but the checkpoint was written after {rows}")
        self._columns, self._written = sorted(old[0]) if old else [], rows
        write_text(self._path, self._text(old[:rows], header=bool(old)))

    def _read(self) -> list[dict[str, Any]]:
        try:
            text = io.StringIO(content_of(self._path, MOST).decode(), newline="")
            return [row for row in csv.DictReader(text) if None not in row and None not in row.values()]
        except (OSError, UnicodeDecodeError, csv.Error) as error:
            raise RecurlabError(f"{self._path}: can't be read: {one_line(error)}") from error

    def _text(self, rows: list[dict[str, Any]], header: bool = False) -> str:
        text = io.StringIO()
        writer = csv.DictWriter(text, self._columns, lineterminator="\n")
        if header:
            writer.writeheader()
        writer.writerows(rows)
        return text.getvalue()
