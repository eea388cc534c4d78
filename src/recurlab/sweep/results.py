"""What a sweep has found: a table as a file and on the screen, and a picture."""

import csv
import io
import shlex
from pathlib import Path

from optuna import Study
from optuna.study import StudyDirection

from recurlab.errors import RecurlabError, did_you_mean, path_of
from recurlab.files import write_text
from recurlab.sweep.figures import draw_sweep
from recurlab.sweep.settings import SweepSettings
from recurlab.sweep.store import FACTS, Store, quiet_optuna, sqlite
from recurlab.sweep.trials import Row, rows, short_value

SHOWN = 5  # trials on the screen


def report_study(study: Study, folder: Path, count: int | None = None) -> str:
    """Write results.csv and sweep.png, and return the best trials in a few lines.

    Args:
        study: whose trials have ended.
        folder: of the files.
        count: how many of its trials count; None is all.

    Raises:
        RecurlabError: if no trial has come to a result, with the reason of the first.
    """
    facts, found = study.user_attrs[FACTS], rows(study, count)
    keys, metric = list(facts["space"]), str(facts["metric"])
    maximal = study.direction == StudyDirection.MAXIMIZE
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_text(folder / "results.csv", _csv(found, keys))
    except OSError as error:
        raise RecurlabError(f"{folder}: can't be written: {error.strerror}") from error
    ranked = sorted(
        (row for row in found if row.state == "finished" and row.value is not None),
        key=lambda row: (-1 if maximal else 1) * (row.value or 0.0),
    )
    if not ranked:
        reasons = [row.reason or row.state for row in found]
        raise RecurlabError(
            f"{folder / 'results.csv'}: no trial of {len(found)} has a result"
            + (f"; the first: {reasons[0]}" if reasons else "")
        )
    picture = draw_sweep(study, found, keys, metric, folder / "sweep.png")
    chosen = [f"{key}={value}" for key, value in ranked[0].parameters.items()]
    others = {state: sum(row.state == state for row in found) for state in ("pruned", "failed")}
    told = ", ".join([f"{len(ranked)} trials finished", *(f"{n} {state}" for state, n in others.items() if n)])
    return "\n".join(
        [
            *_table(ranked[:SHOWN], keys, metric),
            f"{told}; the best: recurlab train {shlex.join([*facts['words'], *chosen])}",
            f"run:     {ranked[0].run}",
            f"table:   {folder / 'results.csv'}",
            f"picture: {picture}",
        ]
    )


def report_of(path: str) -> str:
    """Report the sweeps in a folder with a sweep.db, or in an SQLite file.

    Raises:
        RecurlabError: if there is none.
    """
    file = path_of("sweep", path)
    file = file / "sweep.db" if file.is_dir() else file
    if not file.is_file():
        near = sorted(str(found.parent) for found in Path().glob("*/**/sweep.db"))
        raise RecurlabError(f"sweep={path!r}: there is no {file}{did_you_mean(path, near)}")
    usual = SweepSettings()
    store = Store(sqlite(file), usual.heartbeat, usual.retries)
    with quiet_optuna(), store.open() as storage:
        names = store.names(storage)
        if not names:
            raise RecurlabError(f"sweep={path!r}: has no study")
        folders = [file.parent if len(names) == 1 else file.parent / name for name in names]
        return "\n\n".join(
            report_study(store.load(storage, name), folder) for name, folder in zip(names, folders, strict=True)
        )


def _csv(found: list[Row], keys: list[str]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["trial", "state", "value", *keys, "seconds", "run", "reason"])
    for row in found:
        values = [row.parameters.get(key, "") for key in keys]
        value = "" if row.value is None else row.value
        writer.writerow([row.number, row.state, value, *values, f"{row.seconds:.1f}", row.run, row.reason])
    return text.getvalue()


def _table(ranked: list[Row], keys: list[str], metric: str) -> list[str]:
    lines = [["trial", metric, *keys, "seconds"]]
    for row in ranked:
        values = [short_value(row.parameters.get(key, "")) for key in keys]
        lines.append([str(row.number), f"{row.value:.6g}", *values, f"{row.seconds:.1f}"])
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return ["  ".join(f"{cell:>{width}}" for cell, width in zip(line, widths, strict=True)) for line in lines]
