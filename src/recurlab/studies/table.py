"""results.csv of a study: a row for each of its runs, which several processes may write to."""

import csv
import io
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from recurlab.errors import RecurlabError, one_line
from recurlab.files import write_text
from recurlab.locks import acquire
from recurlab.studies.definition import PUBLISHED, Levels, Run, Study

Row = dict[str, str]
FINISHED, DIVERGED, RUNNING, AHEAD = "finished", "diverged", "running", "not begun"  # states of a run
ENDED = (FINISHED, DIVERGED)  # such runs are not run again
NUMBERS = ("chance", "parameters", "seconds", "steps", "threads")
FURTHER = ("spread", "epoch")  # columns that published.csv may have
NEEDED = ("seconds", "threads", "device")  # columns that a finished run must have


def read_csv(path: Path) -> list[Row]:
    """Return the rows of a CSV file with a header, [] where there is no file.

    Raises:
        RecurlabError: for a damaged file.
    """
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file, strict=True))
    except FileNotFoundError:
        return []
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise RecurlabError(f"{path}: can't be read: {one_line(error)}") from error
    for line, row in enumerate(rows, start=2):
        if None in row or None in row.values():
            raise RecurlabError(f"{path}: row {line}: not as many values as columns")
    return rows


class Results:
    """The results of a study.

    Args:
        study: whose they are.
    """

    def __init__(self, study: Study) -> None:
        self.path = study.folder / "results.csv"
        self._study, self._lock = study, study.path
        self._order = {run.key: index for index, run in enumerate(r for s in study.scales for r in study.runs(s))}

    def rows(self) -> dict[tuple[str, ...], Row]:
        """Return the rows of the study's runs by `Run.key`, in the order of the runs; others are left out."""
        found = {}
        for line, row in enumerate(read_csv(self.path), start=2):
            self._check(f"{self.path}: row {line}: ", row)
            found[self._key(row)] = row
        return {key: found[key] for key in self._order if key in found}

    def put(self, rows: Iterable[Row]) -> None:
        """Replace older rows of the same runs, and write the file in one piece.

        A row of the same job that has come further stays.
        """
        with self._locked():
            merged = self.rows()
            for row in rows:
                old = merged.get(key := self._key(row))
                if old is None or old["job"] != row["job"] or not _is_behind(row, old):
                    merged[key] = row
            text = io.StringIO()
            writer = csv.DictWriter(text, self._study.columns, "", "ignore", lineterminator="\n")
            writer.writeheader()
            writer.writerows(merged[key] for key in self._order if key in merged)
            write_text(self.path, text.getvalue())

    def _check(self, where: str, row: Row) -> None:
        """Raise unless the columns of numbers hold numbers, and a finished run has the columns that tables need."""
        for name in (self._study.metric, *self._study.measures, *NUMBERS):
            try:
                float(row.get(name) or 0)
            except ValueError as error:
                raise RecurlabError(f"{where}{name}={row[name]!r}: not a number") from error
        for name in ("state", "job", *(NEEDED if row.get("state") == FINISHED else ())):
            if not row.get(name):
                raise RecurlabError(f"{where}{name} is missing")

    def _key(self, row: Row) -> tuple[str, ...]:
        return tuple(row.get(name, "") for name in ("scale", *self._study.factors, "seed"))

    @contextmanager
    def _locked(self) -> Iterator[None]:
        try:
            file = self._lock.open("r+b")
        except OSError as error:
            raise RecurlabError(f"{self._lock}: can't be opened: {error.strerror}") from error
        with file:
            acquire(file)
            yield


def _is_behind(row: Row, old: Row) -> bool:
    """Return whether a row is from an earlier moment of the run than another one."""
    if old["state"] == row["state"] == RUNNING:
        return int(row.get("steps") or 0) < int(old.get("steps") or 0)
    return old["state"] in ENDED and row["state"] not in ENDED[: ENDED.index(old["state"]) + 1]


def published_rows(study: Study) -> list[Row]:
    """Return the rows of published.csv, [] where there is none.

    Beside `PUBLISHED` and the factors it may have the column epoch, of rows that are validations
    after so many epochs, and spread, by how much the value may be another one: as published, or for
    a test on as many sequences.

    Raises:
        RecurlabError: for a damaged file, an unknown column, or a value that is no number.
    """
    path = study.folder / "published.csv"
    rows = read_csv(path)
    for line, row in enumerate(rows, start=2):
        allowed = (*PUBLISHED, *study.factors, *FURTHER)
        for name in row:
            if name not in allowed:
                raise RecurlabError(f"{path}: {name!r}: unknown column; allowed are {', '.join(allowed)}")
        for name in PUBLISHED[:3]:
            if not row.get(name):
                raise RecurlabError(f"{path}: row {line}: {name} is missing")
        for name, parse in {"value": float, "spread": float, "epoch": int}.items():
            try:
                parse(row.get(name) or 0)
            except ValueError as error:
                raise RecurlabError(f"{path}: row {line}: {name}={row[name]!r}: not a number") from error
    return rows


def fits(row: Row, levels: Levels) -> bool:
    """Return whether a published row belongs to a combination of levels; an empty cell stands for all levels."""
    return all(row.get(name) in (None, "", level) for name, level in levels.items())


def make_row(run: Run, **columns: object) -> Row:
    """Return a row of a run with some columns; None is an empty cell."""
    cells = {"scale": run.scale, **run.levels, "seed": run.seed, **columns}
    return {name: "" if value is None else str(value) for name, value in cells.items()}
