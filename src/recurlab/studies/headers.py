"""Writes what was measured of each experiment into the header of its file and into README.md."""

import re
import textwrap
from pathlib import Path

from recurlab.errors import RecurlabError
from recurlab.files import write_text
from recurlab.studies.folder import load_study, study_names
from recurlab.studies.markdown import markdown_table, put_between_markers
from recurlab.studies.reproduction import Reproduction
from recurlab.studies.table import DIVERGED, FINISHED, RUNNING
from recurlab.studies.verdict import FIRST, Entry, entries_of

FOLDER = Path("configs") / "experiment"
WIDTH = 120
MEASURED = re.compile(r"^# Measured: .*(?:\n#.*)*\n", re.MULTILINE)  # to the end of the header
NOT_YET = "not yet"


def write_measured(check: bool = False) -> list[Path]:
    """Write what was measured into the header of each experiment that has a line for it, and into README.md.

    Args:
        check: write nothing.

    Returns:
        The files that had something else.
    """
    found: dict[str, list[Entry]] = {}
    for study in map(load_study, study_names()):
        for entry in entries_of(study) if isinstance(study, Reproduction) else ():
            found.setdefault(entry.recipe.experiment, []).append(entry)
    if not found:
        return []
    changed = [path for path in sorted(FOLDER.rglob("*.yaml")) if _put(path, found, check)]
    lines = [_line(entry) for shown in found.values() for entry in shown if entry.of(FINISHED)]
    text = markdown_table(["experiment", "measured", "published", "steps", "one core"], lines, texts=3)
    return [*changed, *put_between_markers(Path("README.md"), "measured", text, check, needed=False)]


def _put(path: Path, found: dict[str, list[Entry]], check: bool) -> bool:
    name = path.relative_to(FOLDER).with_suffix("").as_posix()
    try:
        old = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise RecurlabError(f"{path}: can't be read: {error}") from error
    said = "; ".join(filter(None, map(_said, found.get(name, [])))) or NOT_YET
    wrapped = textwrap.fill(f"Measured: {said}.", WIDTH, initial_indent="# ", subsequent_indent="# ")
    new = MEASURED.sub(lambda _: f"{wrapped}\n", old, count=1)
    if new == old:
        return False
    if not check:
        write_text(path, new)
    return True


def _said(entry: Entry) -> str:
    """Return what a row's runs came to in a few words, "" where there are none."""
    changes = f"with {' '.join(entry.recipe.changes)} " if entry.recipe.changes else ""
    done = entry.of(FINISHED)
    if done:
        beside = "" if entry.verdict == FIRST else f", {entry.verdict} beside {(entry.known or {})['value']}"
        return f"{changes}{_judged(entry)} {entry.said()} in {_steps(entry)} steps, {_time(entry)} of one core{beside}"
    for row in [*entry.of(DIVERGED), *entry.of(RUNNING)]:
        if said := entry.said():
            return f"{changes}{said}, after {row['epochs']} epochs"
    return ""


def _judged(entry: Entry) -> str:
    return entry.target.metric or f"{entry.target.unit} to be solved"


def _steps(entry: Entry) -> str:
    return " to ".join(f"{steps:,}" for steps in sorted({int(row["steps"]) for row in entry.of(FINISHED)}))


def _time(entry: Entry) -> str:
    """Return what a run took, from the fastest to the slowest."""
    seconds = sorted(float(row["seconds"]) * int(row["threads"] or 1) for row in entry.of(FINISHED))
    said = dict.fromkeys(f"{s / 3600:.1f} h" if s >= 5400 else f"{s / 60:.0f} min" if s >= 90 else f"{s:.0f} s"
                         for s in (seconds[0], seconds[-1]))  # fmt: skip
    return " to ".join(said)


def _line(entry: Entry) -> list[str]:
    known = entry.known
    return [
        f"`{entry.name}`", f"{_judged(entry)} {entry.said()}",
        "" if known is None else f"{known['value']}: {entry.verdict}", _steps(entry), _time(entry),
    ]  # fmt: skip
